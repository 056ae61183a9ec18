"""Mirroring and changes of intensity, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmmas_jax.augment.patch import _mirrored, _mirrored_by_index, make_augmentation, mirror
from gmmas_jax.errors import UserError

VOLUMES = ("image", "whole")


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_mirroring_moves_everything_alike(batch, axis):
    flips = np.zeros((2, 3), bool)
    flips[1, axis] = True
    result = jax.device_get(mirror(batch, jnp.asarray(flips)))
    for name in ("image", "whole", "label", "whole_label"):
        np.testing.assert_array_equal(result[name][0], batch[name][0])
        np.testing.assert_array_equal(result[name][1], np.flip(batch[name][1], axis))
    np.testing.assert_array_equal(result["box"][0], batch["box"][0])
    expected = batch["box"][1].copy()
    expected[:, axis] = 1 - expected[::-1, axis]
    np.testing.assert_allclose(result["box"][1], expected, atol=1e-6)
    assert (result["box"][:, 0] < result["box"][:, 1]).all()


def test_mirrored_box_still_finds_the_patch():
    """A patch cut from a mirrored volume at the mirrored box is the mirrored patch."""
    volume = np.arange(8.0).reshape(1, 8, 1, 1, 1).astype(np.float32)
    batch = {
        "image": volume[:, 1:4],
        "whole": volume,
        "label": volume[:, 1:4, ..., 0].astype(np.int32),
        "whole_label": volume[..., 0].astype(np.int32),
        "box": np.array([[[1 / 8, 0, 0], [4 / 8, 1, 1]]], np.float32),
    }
    result = jax.device_get(mirror(batch, jnp.array([[True, False, False]])))
    first, last = np.round(result["box"][0, :, 0] * 8).astype(int)
    np.testing.assert_array_equal(result["whole"][:, first:last], result["image"])


@pytest.mark.parametrize("axes", [(0,), (0, 1, 2)])
def test_processors_and_accelerators_mirror_alike(axes):
    rng = np.random.default_rng(1)
    volume, flips = rng.normal(size=(9, 4, 5, 3, 2)), rng.integers(0, 2, (9, 3)).astype(bool)
    arrays = jnp.asarray(volume), jnp.asarray(flips)
    results = (f(*arrays, axes=axes) for f in (_mirrored, _mirrored_by_index))
    np.testing.assert_array_equal(*results)


def test_flip_share_is_kept(batch, augmented):
    counts = sum(
        (augmented(batch, seed, flip=(0.5, 0.0, 0.0))["box"] != batch["box"]).any((1, 2)).sum()
        for seed in range(40)
    )
    assert 25 <= counts <= 55


def test_scale_and_shift_are_affine_per_sequence_and_shared_with_the_whole(batch, augmented):
    result = augmented(batch, intensity_scale=0.2, intensity_shift=0.3)
    factors = []
    for example in range(2):
        for channel in range(4):
            if not batch["present"][example, channel]:
                continue
            before, after = (
                np.concatenate([b[name][example, ..., channel].ravel() for name in VOLUMES])
                for b in (batch, result)
            )
            inside = before != 0
            (factor, term), residual, *_ = np.polyfit(before[inside], after[inside], 1, full=True)
            assert residual < 1e-8
            assert 0.8 <= factor <= 1.2
            assert -0.3 <= term <= 0.3
            factors.append(factor)
    assert len({round(factor, 5) for factor in factors}) == 7


@pytest.mark.parametrize(
    "changes",
    [
        {"intensity_scale": 0.2, "intensity_shift": 0.3},
        {"gamma": 0.4},
        {"noise": 0.3},
        {"flip": (0.5, 0.5, 0.5), "gamma": 0.3, "noise": 0.2, "intensity_shift": 0.2},
    ],
)
def test_background_and_absent_sequences_stay_zero(batch, augmented, changes):
    result = augmented(batch, **changes)
    for name in VOLUMES:
        assert (result[name][1, ..., 1] == 0).all()
        assert (result[name] != batch[name]).any() or name == "whole"
        assert result[name].dtype == np.float32
        zeros = [(volume == 0).all(-1).sum((1, 2, 3)) for volume in (batch[name], result[name])]
        np.testing.assert_array_equal(*zeros)
    np.testing.assert_array_equal(result["targets"]["idh"], batch["targets"]["idh"])


def test_gamma_keeps_order_mean_and_spread(batch, augmented):
    result = augmented(batch, seed=3, gamma=0.5)
    inside = (batch["whole"][0] != 0).any(-1)
    before, after = (b["whole"][0][inside] for b in (batch, result))
    np.testing.assert_allclose(before.mean(0), after.mean(0), atol=1e-4)
    np.testing.assert_allclose(before.std(0), after.std(0), rtol=1e-4)
    assert np.abs(before - after).max() > 0.01
    for channel in range(4):
        order = np.argsort(before[:, channel])
        assert (np.diff(after[order, channel]) >= -1e-5).all()


def test_noise_has_at_most_the_strength_asked_for(batch, augmented):
    batch["image"] = np.where(batch["image"] != 0, 1.0, 0.0).astype(np.float32)
    result = augmented(batch, noise=0.3)
    spread = (result["image"] - batch["image"])[0, 1:-1, 1:-1, 1:-1].std((0, 1, 2))
    assert (spread > 0).all()
    assert (spread < 0.4).all()
    np.testing.assert_array_equal(result["whole"], batch["whole"])


def test_draws_follow_the_key_alone(batch, augmented):
    on = {"flip": (0.5, 0.0, 0.0), "gamma": 0.3, "intensity_scale": 0.2, "noise": 0.1}
    one, same, other = (
        augmented(batch, 1, **on),
        augmented(batch, 1, **on),
        augmented(batch, 2, **on),
    )
    np.testing.assert_array_equal(one["image"], same["image"])
    assert (one["image"] != other["image"]).any()


def test_laterality_is_recorded(batch, augmented):
    found = set()
    for seed in range(12):
        result = augmented(batch, seed, flip=(0.5, 0.5, 0.5), noise=0.0)
        assert result["mirrored"].shape == (2, 3)
        assert result["mirrored"].dtype == bool
        for example in range(2):
            axes = np.flatnonzero(result["mirrored"][example])
            found.add(tuple(axes))
            for name in ("image", "label"):
                back = np.flip(result[name][example], axes)
                np.testing.assert_array_equal(back, batch[name][example])
    assert len(found) >= 6
    assert not augmented(batch, noise=0.1)["mirrored"].any()


def test_mirroring_twice_is_recorded_as_none(batch):
    flips = jnp.array([[True, False, True], [False, False, True]])
    twice = jax.device_get(mirror(mirror(batch, flips), flips))
    assert not twice["mirrored"].any()
    np.testing.assert_array_equal(twice["image"], batch["image"])
    np.testing.assert_allclose(twice["box"], batch["box"], atol=1e-6)


def test_section_is_checked_and_may_be_off(section):
    assert make_augmentation(**section()) is None
    assert make_augmentation(**section(gamma=0.1)) is not None
    assert make_augmentation(**section(rotation={"probability": 0.1})) is not None
    assert make_augmentation(**section(sequence_dropout=0.1)) is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flip": (0.5, 2)}, r"augment\.flip is \(0\.5, 2\)"),
        ({"noise": -1}, r"augment\.noise is -1"),
        ({"sequence_dropout": 1.0}, r"augment\.sequence_dropout is 1\.0; expected a share"),
        ({"rotation": {"probability": 2}}, r"augment\.rotation\.probability is 2"),
        ({"rotation": {"degrees": 300}}, r"augment\.rotation\.degrees is 300"),
        ({"shear": {"strength": -1}}, r"augment\.shear\.strength is -1"),
        ({"elastic": {"displacement": 0.6}}, r"augment\.elastic\.displacement is 0\.6; .* fold"),
        ({"elastic": {"nodes": 1}}, r"augment\.elastic\.nodes is 1"),
        ({"blur": {"sequence_probability": -1}}, r"augment\.blur\.sequence_probability is -1"),
        ({"blur": {"highest": 0.2}}, r"augment\.blur is \(0\.5, 0\.2\); expected lowest ≤ highest"),
        ({"low_resolution": {"lowest": 0.5}}, r"augment\.low_resolution is \(0\.5, 2\.0\)"),
        ({"rician_noise": {"highest": 7}}, r"augment\.rician_noise\.highest is 7"),
    ],
)
def test_impossible_numbers_are_named(section, changes, message):
    with pytest.raises(UserError, match=message):
        make_augmentation(**section(**changes))


def test_unknown_fields_fail_by_name(section):
    with pytest.raises(TypeError, match="sigma"):
        make_augmentation(**section(blur={"sigma": 1}))
    with pytest.raises(TypeError, match="blurr"):
        make_augmentation(**section(), blurr={"probability": 1})
