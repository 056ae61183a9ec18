"""Preparing a case for a network, and bringing a result back."""

import numpy as np
import pytest

from gmmas_jax.cases.case import Case, Grid
from gmmas_jax.cases.prepare import prepare, restore, whole_volume
from gmmas_jax.errors import UserError

SHAPE = (40, 44, 36)


def distance(centre, shape=SHAPE):
    axes = np.meshgrid(*map(np.arange, shape), indexing="ij")
    return np.sqrt(sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)))


def head(*, spacing=1.0, sequences=("t1n", "t1c", "t2w", "t2f")):
    """A ball of brain with a ball of oedema, a core in it, on a background of 0."""
    rng = np.random.default_rng(0)
    brain = distance((19, 22, 18)) < 14
    label = np.zeros(SHAPE, np.uint8)
    label[distance((22, 20, 18)) < 7.5] = 2
    label[distance((22, 20, 18)) < 5] = 1
    images = {
        name: np.where(brain, 100.0 * (i + 1) + 20 * rng.normal(size=SHAPE), 0).astype(np.float32)
        for i, name in enumerate(sequences)
    }
    grid = Grid(SHAPE, np.diag([spacing, spacing, spacing, 1.0]))
    return Case("head", images, label, grid, grid), brain


def one_hot(label, classes=4):
    return np.eye(classes, dtype=np.float32)[label]


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_the_box_is_the_brains_and_the_statistics_are_0_and_1():
    case, brain = head()
    prepared = prepare(case, spacing_mm=1.0)
    np.testing.assert_array_equal(brain[prepared.box], prepared.brain)
    assert brain.sum() == prepared.brain.sum()
    assert prepared.image.dtype == np.float32
    assert prepared.image.shape == (*prepared.brain.shape, 4)
    for channel in range(4):
        inside = prepared.image[..., channel][prepared.brain]
        assert inside.mean() == pytest.approx(0, abs=1e-5)
        assert inside.std() == pytest.approx(1, abs=1e-5)
    assert not prepared.image[~prepared.brain].any()


def test_an_absent_sequence_stays_zero_and_changes_nothing_else():
    case, _ = head()
    full = prepare(case, spacing_mm=1.0)
    del case.images["t1c"]
    partial = prepare(case, spacing_mm=1.0)
    np.testing.assert_array_equal(partial.present, [1, 0, 1, 1])
    assert not partial.image[..., 1].any()
    np.testing.assert_array_equal(partial.image[..., [0, 2, 3]], full.image[..., [0, 2, 3]])


def test_interpolation_undershoot_and_specks_around_the_brain_are_no_brain():
    case, brain = head()
    clean = prepare(case, spacing_mm=1.0)
    image = case.images["t1n"]
    shell = (distance((19, 22, 18)) < 16) & ~brain
    image[shell] = -0.5
    image[1, 1, 1] = 300.0
    prepared = prepare(case, spacing_mm=1.0)
    assert prepared.box == clean.box
    np.testing.assert_array_equal(prepared.image, clean.image)


def test_a_hole_in_the_brain_belongs_to_it():
    case, brain = head(sequences=("t2f",))
    hole = distance((16, 22, 18)) < 3
    case.images["t2f"][hole] = 0.0
    assert prepare(case, spacing_mm=1.0).brain.sum() == brain.sum()


def test_a_one_hot_label_comes_back_exactly_at_the_same_spacing():
    case, _ = head()
    prepared = prepare(case, spacing_mm=1.0)
    restored = restore(one_hot(prepared.label), prepared)
    assert restored.shape == (*SHAPE, 4)
    np.testing.assert_array_equal(restored.argmax(-1), case.label)
    np.testing.assert_array_equal(restored[0, 0, 0], [1, 0, 0, 0])


def test_a_smooth_blob_survives_2_mm():
    case, _ = head()
    prepared = prepare(case, spacing_mm=2.0)
    assert prepared.image.shape[0] < 16
    restored = restore(one_hot(prepared.label), prepared).argmax(-1)
    assert dice(restored > 0, case.label > 0) > 0.9
    assert dice(restored == 1, case.label == 1) > 0.9


@pytest.mark.parametrize("spacing", [0.7, 2.0])
def test_other_spacings_become_the_asked_one(spacing):
    case, _ = head(spacing=spacing)
    prepared = prepare(case, spacing_mm=1.0)
    assert prepared.brain.sum() == pytest.approx((4 / 3) * np.pi * (14 * spacing) ** 3, rel=0.05)
    restored = restore(one_hot(prepared.label), prepared).argmax(-1)
    assert dice(restored > 0, case.label > 0) > 0.9


def test_probabilities_stay_probabilities_also_from_float16():
    case, _ = head()
    prepared = prepare(case, spacing_mm=2.0)
    logits = np.random.default_rng(1).normal(size=(*prepared.brain.shape, 4))
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    restored = restore(probabilities.astype(np.float16), prepared)
    assert restored.dtype == np.float32
    assert restored.min() >= 0
    np.testing.assert_allclose(restored.sum(-1), 1.0, atol=2e-3)


def test_a_constant_sequence_and_a_spike_give_finite_float16():
    case, brain = head()
    case.images["t1n"] = np.where(brain, np.float32(7.0), np.float32(0.0))
    case.images["t2w"][20, 22, 18] = 3e4
    image = prepare(case, spacing_mm=1.0).image
    assert np.isfinite(image.astype(np.float16)).all()
    assert not image[..., 0].any()


def test_the_whole_volume_has_the_asked_shape_and_extent():
    case, _ = head()
    prepared = prepare(case, spacing_mm=1.0)
    whole = whole_volume(prepared.image, (8, 9, 10))
    assert whole.shape == (8, 9, 10, 4)
    assert whole.dtype == np.float32
    assert whole.mean() == pytest.approx(prepared.image.mean(), abs=0.05)


def test_a_result_of_another_case_is_refused():
    prepared = prepare(head()[0], spacing_mm=1.0)
    with pytest.raises(ValueError, match="probabilities have shape"):
        restore(np.zeros((3, 3, 3, 4)), prepared)


def test_a_case_of_zeros_is_refused():
    case, _ = head()
    case.images = {"t1n": np.zeros(SHAPE, np.float32)}
    with pytest.raises(UserError, match="head: every sequence is zero"):
        prepare(case, spacing_mm=1.0)
