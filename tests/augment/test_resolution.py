"""Blur, low resolution and thick slices against SciPy and loops over slices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from gmmas_jax.augment.examples import Numbers
from gmmas_jax.augment.resolution import (
    blur_matrix,
    filter_volume,
    random_resolution,
    slice_matrix,
)
from gmmas_jax.augment.settings import make_stages


@pytest.mark.parametrize("sigma", [(0.5, 0.8, 1.0), (1.5, 0.0, 0.62)])
def test_blur_equals_scipy(sigma):
    volume = np.random.default_rng(0).normal(size=(11, 9, 6)).astype(np.float32)
    matrices = [
        blur_matrix(jnp.float32(s), size=n, radius=8)
        for s, n in zip(sigma, volume.shape, strict=True)
    ]
    result = filter_volume(jnp.asarray(volume), matrices)
    expected = gaussian_filter(volume, sigma, mode="nearest", truncate=4.0)
    np.testing.assert_allclose(result, expected, atol=1e-5)


def numpy_slices(line, thickness, start):
    """Averages over slices by fine sampling, then linear interpolation between their centres."""
    fine = 1000
    value = np.repeat(line, fine)
    place = (np.arange(len(value)) + 0.5) / fine
    number = np.floor((place + start) / thickness).astype(int)
    found = np.unique(number)
    means = [value[number == k].mean() for k in found]
    centres = (found + 0.5) * thickness - start
    return np.interp(np.arange(len(line)) + 0.5, centres, means)


@pytest.mark.parametrize(
    ("thickness", "start"),
    [(2.0, 0.0), (2.0, 1.3), (3.7, 0.9), (5.5, 5.2), (1.2, 0.7), (16.0, 3.0)],
)
def test_slices_equal_averages_and_interpolation(thickness, start):
    line = np.random.default_rng(1).normal(size=13).astype(np.float32)
    matrix = slice_matrix(jnp.float32(thickness), jnp.float32(start), size=13)
    np.testing.assert_allclose(np.asarray(matrix).sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(matrix @ line, numpy_slices(line, thickness, start), atol=5e-3)


def test_nothing_is_the_identity_bitwise():
    for matrix in (
        slice_matrix(jnp.float32(1), jnp.float32(0), size=9),
        blur_matrix(jnp.float32(0), size=9, radius=4),
    ):
        np.testing.assert_array_equal(matrix, np.eye(9))


def test_halving_the_resolution_keeps_a_ramp():
    """No shift by half a voxel: inside, a straight line stays where it is."""
    ramp = jnp.arange(12.0)
    matrix = slice_matrix(jnp.float32(2), jnp.float32(0), size=12)
    np.testing.assert_allclose((matrix @ ramp)[1:-1], ramp[1:-1], atol=1e-5)


def test_each_sequence_by_its_own_draw(batch, augmented):
    chosen = {"probability": 1.0, "sequence_probability": 0.5}
    changed = np.zeros(4)
    for seed in range(8):
        result = augmented(batch, seed, blur=chosen)
        difference = (result["image"] != batch["image"]).any((1, 2, 3))
        assert not difference[1, 1]
        changed += difference[0]
        np.testing.assert_array_equal((result["image"] == 0).all(-1), (batch["image"] == 0).all(-1))
        np.testing.assert_array_equal(result["label"], batch["label"])
    assert 5 < changed.sum() < 27


def test_slices_lie_at_the_same_places_in_patch_and_whole(section):
    """Along the axis of its slices, a sequence changes its slope at the same brain positions."""
    from gmmas_jax.augment.patch import make_augmentation

    # A brain of 48 voxels; the patch holds the voxels 12 to 36, the whole has voxels of half a one.
    value = np.random.default_rng(3).normal(size=48) + 5
    image = np.broadcast_to(value[12:36, None, None, None], (24, 4, 4, 4))
    whole = np.broadcast_to(np.repeat(value, 2)[:, None, None, None], (96, 4, 4, 4))
    batch = {
        "image": image[None].astype(np.float32),
        "whole": whole[None].astype(np.float32),
        "box": np.array([[[0.25, 0, 0], [0.75, 1, 1]]], np.float32),
        "present": np.ones((1, 4), np.float32),
        "label": np.zeros((1, 24, 4, 4), np.int32),
        "whole_label": np.zeros((1, 96, 4, 4), np.int32),
    }
    thick = {"probability": 1.0, "sequence_probability": 1.0, "lowest": 4.0, "highest": 5.0}
    function = jax.jit(make_augmentation(**section(thick_slices=thick)))
    compared = 0
    for seed in range(6):
        result = jax.device_get(function(jax.random.key(seed), batch))
        for c in range(4):
            patch, brain = result["image"][0, :, 0, 0, c], result["whole"][0, :, 0, 0, c]
            if np.allclose(patch, value[12:36], atol=1e-5):
                continue  # the slices of this sequence lie along another axis
            compared += 1
            # A voxel of the patch is two of the whole; a patch's outer slices are cut off.
            inside = slice(7, -7)
            seen = brain.reshape(48, 2).mean(1)[12:36]
            np.testing.assert_allclose(patch[inside], seen[inside], atol=0.03)
    assert compared >= 3


def test_draws(off):
    off = {k: v for k, v in off.items() if k == "sequence_dropout" or isinstance(v, dict)}
    on = {
        name: off[name] | {"probability": 0.5, "sequence_probability": 0.6}
        for name in ("blur", "low_resolution", "thick_slices")
    }
    rows = np.random.default_rng(0).uniform(size=(500, 64)).astype(np.float32)

    def draw(changes):
        stages = make_stages(**off | changes)
        return jax.vmap(lambda row: random_resolution(Numbers(row), stages, 4))(rows)

    sigma, thickness, phase = map(np.asarray, draw(on))
    blurred = sigma[..., 0] > 0
    assert 0.25 < blurred.mean() < 0.35
    assert 0.4 < blurred.any(1).mean() < 0.52
    assert sigma[sigma > 0].min() >= 0.5
    assert sigma.max() <= 1.0
    assert (phase <= thickness).all()
    _, low, _ = map(np.asarray, draw({"low_resolution": on["low_resolution"]}))
    assert (low == low[..., :1]).all()
    assert 1 < low[low > 1].min() < low.max() <= 2
    _, thick, _ = map(np.asarray, draw({"thick_slices": on["thick_slices"]}))
    assert set(np.unique((thick > 1).sum(-1))) == {0, 1}
    assert (np.abs((thick > 1).mean((0, 1)) - 0.1) < 0.04).all()
    assert 2 <= thick[thick > 1].min() < thick.max() <= 6
