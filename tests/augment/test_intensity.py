"""Bias field, noise, brightness, contrast and gamma against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32
from scipy.interpolate import BSpline
from scipy.stats import kstest

from gmmas_jax.augment.examples import Numbers
from gmmas_jax.augment.intensity import (
    bend,
    bend_inverted,
    bias_field,
    multiply_field,
    stretch,
    two_sided,
)
from gmmas_jax.augment.noise import bit_pair, normal_pair, rician
from gmmas_jax.augment.settings import Range
from gmmas_jax.augment.volumes import as_volume, find_brain, rows_of

ALWAYS = {"probability": 1.0}
NUMBER = np.array([0.7, 1.2, 0.9, 1.4], np.float32)


@pytest.fixture(name="volumes")
def _volumes(batch):
    return {name: batch[name][0] for name in ("image", "whole")}


@pytest.fixture(name="shown")
def _shown(volumes):
    return {
        n: np.broadcast_to((v != 0).any(-1, keepdims=True), v.shape) for n, v in volumes.items()
    }


def on_rows(function, volumes, *arguments):
    """Applies a function of rows to volumes; all sequences are present."""
    rows = rows_of(volumes)
    result = function(rows, find_brain(rows, jnp.ones(4)), *arguments)
    return {name: np.asarray(as_volume(own)) for name, own in result.items()}


def numbers_of(volumes, shown, c):
    """Least, greatest, mean and spread of a sequence, as they are defined."""
    everything = np.concatenate([v[..., c].ravel() for v in volumes.values()])
    inside = volumes["whole"][..., c][shown["whole"][..., c]].astype(float)
    return everything.min(), everything.max(), inside.mean(), inside.std()


def numpy_gamma(values, brain, gamma, low, high):
    """One sequence: to 0..1, power, back to the mean and spread of the brain."""
    bent, bent_brain = (((v - low) / (high - low)) ** gamma for v in (values, brain))
    return (bent - bent_brain.mean()) / bent_brain.std() * brain.std() + brain.mean()


@pytest.mark.parametrize("sign", [1, -1])
def test_gamma_equals_numpy(volumes, shown, sign):
    result = on_rows(bend if sign == 1 else bend_inverted, volumes, NUMBER)
    for c in range(4):
        low, high, _, _ = numbers_of(volumes, shown, c)
        low, high = (low, high) if sign == 1 else (-high, -low)
        brain = sign * volumes["whole"][..., c][shown["whole"][..., c]].astype(float)
        for name in volumes:
            values = sign * volumes[name][..., c].astype(float)
            expected = sign * numpy_gamma(values, brain, NUMBER[c], low, high)
            inside = shown[name][..., c]
            np.testing.assert_allclose(result[name][inside, c], expected[inside], atol=1e-4)


def test_inverted_gamma_bends_the_other_end(volumes, shown):
    """Below 1, gamma spreads what is dark; inverted, what is bright."""
    dark, bright = (on_rows(f, volumes, 0.7 + 0 * NUMBER) for f in (bend, bend_inverted))
    for result, end in ((dark, 0.1), (bright, 0.9)):
        before, after = (np.sort(v["whole"][shown["whole"]].ravel()) for v in (volumes, result))
        place = int(end * len(before))
        here = slice(place - 30, place + 30)
        assert after[here].max() - after[here].min() > 1.1 * (
            before[here].max() - before[here].min()
        )


def test_contrast_equals_numpy(volumes, shown):
    result = on_rows(stretch, volumes, NUMBER)
    for c in range(4):
        low, high, mean, _ = numbers_of(volumes, shown, c)
        for name in volumes:
            stretched = (volumes[name][..., c] - mean) * NUMBER[c] + mean
            np.testing.assert_allclose(result[name][..., c], stretched.clip(low, high), atol=1e-5)


def test_bias_equals_numpy(volumes, shown, batch):
    rng = np.random.default_rng(2)
    nodes = 0.4 * rng.normal(size=(4, 6, 6, 6)).astype(np.float32)
    rows = bias_field(jnp.asarray(nodes), rows_of(volumes), jnp.asarray(batch["box"][0]))
    field = {name: as_volume(own) for name, own in rows.items()}
    basis = BSpline.basis_element(np.arange(-2, 3), extrapolate=False)
    for name, (low, high) in (("image", batch["box"][0]), ("whole", ((0,) * 3, (1,) * 3))):
        weights = []
        for axis, n in enumerate(volumes[name].shape[:3]):
            place = low[axis] + (np.arange(n) + 0.5) / n * (high[axis] - low[axis])
            weights.append(np.nan_to_num(basis(place[:, None] * 3 - np.arange(-1, 5))))
        logs = np.einsum("cijk,di,hj,wk->dhwc", nodes, *weights)
        np.testing.assert_allclose(field[name], np.exp(logs), rtol=1e-4)
    result = on_rows(multiply_field, volumes, rows)
    for c in range(4):
        low, _, mean, spread = numbers_of(volumes, shown, c)
        lit = {n: (volumes[n][..., c] - low) * np.asarray(field[n])[..., c] for n in volumes}
        brain = lit["whole"][shown["whole"][..., c]].astype(float)
        for name in volumes:
            expected = (lit[name] - brain.mean()) / brain.std() * spread + mean
            inside = shown[name][..., c]
            np.testing.assert_allclose(result[name][inside, c], expected[inside], atol=1e-4)


def test_rician_noise_is_a_magnitude():
    rng = np.random.default_rng(0)
    image = np.full((30, 30, 120), 3.0, np.float32)
    low = jnp.full(4, 3.0)
    first, second = (rng.normal(size=image.shape).astype(np.float32) for _ in range(2))
    air = np.asarray(rician(image, low, first, second)) - 3
    assert (air >= 0).all()
    # Without signal the magnitude has a Rayleigh distribution.
    np.testing.assert_allclose(air.mean(), np.sqrt(np.pi / 2), rtol=0.01)
    bright = np.asarray(rician(image + 20, low, first, second)) - 23
    np.testing.assert_allclose(bright.std(), 1, rtol=0.01)
    np.testing.assert_allclose(bright.mean(), 1 / 40, atol=0.01)


def test_bits_are_those_of_jax():
    """Its own hash of two words, as a function of a key and an array of counters."""
    key = jax.random.key(5)
    first, second = bit_pair(key, 1001)
    words = threefry_2x32(jax.random.key_data(key), jnp.arange(2002, dtype=jnp.uint32))
    np.testing.assert_array_equal(np.concatenate([first, second]), words)


def test_noise_is_normal_in_every_part_of_an_odd_patch():
    first, second = map(np.asarray, normal_pair(jax.random.key(1), (40, 37, 36)))
    for numbers in (first, second):
        assert kstest(numbers.ravel(), "norm").pvalue > 0.01
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.02
    assert len(np.unique(np.concatenate([first, second]))) > 0.99 * 2 * first.size


def test_noise_of_an_odd_number_of_planes(batch, augmented):
    odd = {name: batch[name][:, 1:] for name in ("image", "label")}
    result = augmented(batch | odd, gaussian_noise=ALWAYS)
    noise = (result["image"] - odd["image"])[0][(odd["image"][0] != 0).all(-1)]
    assert len(np.unique(noise)) > 0.9 * noise.size


@pytest.mark.parametrize("name", ["gaussian_noise", "rician_noise"])
def test_noise_has_the_level_of_its_sequence(batch, augmented, name):
    batch["image"] = np.where(batch["image"] != 0, 5.0, 0.0).astype(np.float32)
    batch["image"][:, 1, 1, 1] = np.where(batch["present"] > 0, -5.0, 0.0)
    levels = []
    for seed in range(12):
        result = augmented(batch, seed, **{name: {"probability": 1.0, "highest": 0.4}})
        noise = np.where(batch["image"] == 5, result["image"] - 5, np.nan)
        noise[1, ..., 1] = 0
        spread = np.nanstd(noise, axis=(1, 2, 3))
        levels += list(spread[batch["present"] > 0])
        np.testing.assert_array_equal(result["whole"], batch["whole"])
    levels = np.array(levels)
    assert levels.max() < 0.43
    assert 0.15 < levels.mean() < 0.25
    assert len(np.unique(levels)) == len(levels)


@pytest.mark.parametrize("stages", [("bias", "contrast"), ("rician_noise", "inverted_gamma")])
def test_background_and_absent_sequences_stay_zero(batch, augmented, stages):
    result = augmented(batch, 4, **dict.fromkeys(stages, ALWAYS))
    assert (result["image"] != batch["image"]).any()
    for volume in ("image", "whole"):
        assert (result[volume][1, ..., 1] == 0).all()
        np.testing.assert_array_equal((result[volume] == 0).all(-1), (batch[volume] == 0).all(-1))
    for kept in ("label", "whole_label", "box", "present"):
        np.testing.assert_array_equal(result[kept], batch[kept])


def test_brightness_multiplies(batch, augmented):
    result = augmented(batch, brightness={"probability": 1.0, "lowest": 0.5, "highest": 1.5})
    factor = []
    for c in range(4):
        before, after = (b["image"][0, ..., c] for b in (batch, result))
        factor.append(after[before != 0] / before[before != 0])
    assert len({round(float(f.mean()), 4) for f in factor}) == 4
    for c, f in enumerate(factor):
        assert f.std() < 1e-5
        assert 0.5 <= f.mean() <= 1.5
        brain = batch["whole"][0, ..., c]
        np.testing.assert_allclose(result["whole"][0, ..., c], f.mean() * brain, atol=1e-5)


def test_numbers_lie_on_both_sides_of_one():
    rows = np.random.default_rng(0).uniform(size=(500, 8)).astype(np.float32)

    def draw(lowest, highest):
        section = Range(probability=1.0, lowest=lowest, highest=highest)
        return np.asarray(jax.vmap(lambda row: two_sided(Numbers(row), section))(rows))

    both = draw(0.7, 1.5)
    assert 0.45 < (both < 1).mean() < 0.55
    assert 0.7 <= both.min() < 0.71
    assert 1.49 < both.max() <= 1.5
    for lowest, highest in ((1.0, 2.0), (1.5, 2.0), (0.5, 0.9)):
        drawn = draw(lowest, highest)
        assert drawn.min() >= lowest
        assert drawn.max() <= highest
        assert np.abs(drawn.mean() - (lowest + highest) / 2) < 0.03
