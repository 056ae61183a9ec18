"""The segmentation losses against a NumPy reference written out voxel by voxel sum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmmas_jax.errors import UserError
from gmmas_jax.objectives.segmentation import (
    SegmentationLoss,
    groups,
    subsample,
    voxel_cross_entropy,
)

SHAPE = (3, 4, 6, 8)
NUM_CLASSES = 4
REGION_CODES = {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}
LABEL_CODES = {"NCR": [1], "ED": [2], "ET": [3]}


@pytest.fixture(name="data")
def _data():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(*SHAPE, NUM_CLASSES)).astype(np.float32)
    label = generator.integers(0, NUM_CLASSES, size=SHAPE).astype(np.int32)
    return logits, label


def _softmax(logits):
    exponent = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return exponent / exponent.sum(-1, keepdims=True)


def _sums(logits, label, codes):
    """Returns Σpg and Σp + Σg per example, [b], float64."""
    keep = (label >= 0) & (label < NUM_CLASSES)
    probability = _softmax(logits)[..., codes].sum(-1) * keep
    truth = np.isin(label, codes)
    axes = (1, 2, 3)
    return (probability * truth).sum(axes), probability.sum(axes) + truth.sum(axes)


def _ones(count=SHAPE[0]):
    return jnp.ones((count,), jnp.float32)


@pytest.mark.parametrize(("over", "codes"), [("labels", LABEL_CODES), ("regions", REGION_CODES)])
@pytest.mark.parametrize(("smooth", "epsilon"), [(0.0, 1e-5), (1.0, 0.0)])
def test_dice_equals_numpy(data, over, codes, smooth, epsilon):
    logits, label = data
    loss = SegmentationLoss(dice_over=over, smooth=smooth, epsilon=epsilon)
    values, dice = loss(jnp.asarray(logits), jnp.asarray(label), _ones())
    expected = {}
    for name, members in codes.items():
        overlap, size = _sums(logits, label, members)
        expected[name] = (2 * overlap + smooth) / (size + smooth + epsilon)
    assert list(dice) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(dice[name], value, rtol=1e-5)
    np.testing.assert_allclose(values, 1 - np.mean(list(expected.values()), axis=0), rtol=1e-5)


def test_batch_sums_are_the_published_form(data):
    logits, label = data
    loss = SegmentationLoss(batch_sums=True, sum_classes=True, smooth=0.0, epsilon=1e-5)
    valid = jnp.asarray([1.0, 0.0, 1.0])
    values, _ = loss(jnp.asarray(logits), jnp.asarray(label), valid)
    expected = 0.0
    for codes in LABEL_CODES.values():
        overlap, size = _sums(logits[[0, 2]], label[[0, 2]], codes)
        expected += 1 - 2 * overlap.sum() / (size.sum() + 1e-5)
    np.testing.assert_allclose(values, [expected, 0, expected], rtol=1e-5)


def test_cross_entropy_equals_numpy(data):
    logits, label = data
    plain, _ = SegmentationLoss()(jnp.asarray(logits), jnp.asarray(label), _ones())
    both, _ = SegmentationLoss(cross_entropy_weight=0.5)(
        jnp.asarray(logits), jnp.asarray(label), _ones()
    )
    picked = np.take_along_axis(_softmax(logits), label[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(both - plain, -0.5 * np.log(picked).mean((1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("weights", [(0.2, 1.0, 1.0, 1.5), (1.0, 0.0, 2.0, 5.0)])
def test_label_weights_weigh_the_voxels_of_each_class(data, weights):
    logits, label = data
    label = label.copy()
    label[0, 0] = 7  # without a class: neither above nor below the fraction
    values = voxel_cross_entropy(jnp.asarray(logits), jnp.asarray(label), weights)
    picked = np.take_along_axis(_softmax(logits), np.minimum(label, 3)[..., None], axis=-1)[..., 0]
    weight = np.append(weights, [0.0] * 4)[label]
    expected = -(weight * np.log(picked)).sum((1, 2, 3)) / weight.sum((1, 2, 3))
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    loss = SegmentationLoss(cross_entropy_weight=0.5, label_weights=weights)
    both, _ = loss(jnp.asarray(logits), jnp.asarray(label), _ones())
    plain, _ = SegmentationLoss()(jnp.asarray(logits), jnp.asarray(label), _ones())
    np.testing.assert_allclose(both - plain, 0.5 * expected, rtol=1e-5)


@pytest.mark.parametrize("weights", [None, (1.0,) * 4, (3.0,) * 4])
def test_equal_label_weights_are_a_plain_mean(data, weights):
    logits, label = data
    values = voxel_cross_entropy(jnp.asarray(logits), jnp.asarray(label), weights)
    picked = np.take_along_axis(_softmax(logits), label[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(values, -np.log(picked).mean((1, 2, 3)), rtol=1e-5)


def test_an_example_whose_voxels_all_weigh_nothing_is_zero_and_not_nan(data):
    logits, label = data
    value, gradient = jax.value_and_grad(
        lambda x: voxel_cross_entropy(x, jnp.zeros_like(label), (0.0, 1.0, 1.0, 1.0)).sum()
    )(jnp.asarray(logits))
    assert value == 0
    assert not gradient.any()


def test_one_example_equals_its_value_in_a_batch(data):
    logits, label = (jnp.asarray(array) for array in data)
    loss = SegmentationLoss(dice_over="regions", cross_entropy_weight=1.0)
    together, _ = loss(logits, label, _ones())
    apart = [loss(logits[i : i + 1], label[i : i + 1], _ones(1))[0][0] for i in range(SHAPE[0])]
    np.testing.assert_allclose(together, apart, rtol=1e-6)


@pytest.mark.parametrize("code", [-1, 4, 200])
def test_voxels_without_a_class_are_left_out(data, code):
    logits, label = data
    unknown = label.copy()
    unknown[:, :2] = code
    loss = SegmentationLoss(cross_entropy_weight=1.0)
    left_out, _ = loss(jnp.asarray(logits), jnp.asarray(unknown), _ones())
    cropped, _ = loss(jnp.asarray(logits[:, 2:]), jnp.asarray(label[:, 2:]), _ones())
    np.testing.assert_allclose(left_out, cropped, rtol=1e-5)


def test_unlabelled_example_has_value_and_gradient_zero(data):
    logits, label = (jnp.asarray(array) for array in data)
    loss = SegmentationLoss(cross_entropy_weight=1.0)
    valid = jnp.asarray([0.0, 1.0, 0.0])
    values, dice = loss(logits, label, valid)
    assert values[0] == 0
    assert values[1] > 0
    assert all(value[0] == 0 for value in dice.values())
    gradient = jax.grad(lambda x: loss(x, label, valid)[0].sum())(logits)
    assert not gradient[0].any()
    assert gradient[1].any()


@pytest.mark.parametrize("smooth", [0.0, 1e-5])
def test_absent_class_is_finite(smooth):
    logits = jnp.zeros((1, 2, 2, 2, NUM_CLASSES)).at[..., 0].set(200.0)
    label = jnp.zeros((1, 2, 2, 2), jnp.int32)
    loss = SegmentationLoss(smooth=smooth)
    value, gradient = jax.value_and_grad(lambda x: loss(x, label, _ones(1))[0].sum())(logits)
    assert value == (0 if smooth else 1)
    assert jnp.isfinite(gradient).all()


def test_deep_outputs_are_weighted(data):
    logits, label = (jnp.asarray(array) for array in data)
    deep = (logits[:, ::2, ::2, ::2], logits[:, ::4, ::2, ::4])
    plain = SegmentationLoss()
    parts = [plain(logits, label, _ones())[0]]
    parts += [plain(low, subsample(label, low.shape[1:4]), _ones())[0] for low in deep]
    values, _ = SegmentationLoss(deep_weights=(0.5, 0.25))(logits, label, _ones(), deep)
    np.testing.assert_allclose(
        values, (parts[0] + 0.5 * parts[1] + 0.25 * parts[2]) / 1.75, rtol=1e-6
    )
    with pytest.raises(UserError, match="deep_weights has 1 values"):
        SegmentationLoss(deep_weights=(0.5,))(logits, label, _ones(), deep)


def test_subsample_takes_the_middle_of_each_block():
    label = jnp.arange(8)[None, :, None, None] * jnp.ones((1, 1, 4, 4), jnp.int32)
    assert subsample(label, (2, 4, 4))[0, :, 0, 0].tolist() == [2, 6]
    with pytest.raises(ValueError, match="does not divide"):
        subsample(label, (3, 4, 4))


def test_sums_are_float32_for_bfloat16_logits():
    # bfloat16 holds 3312 and 3328, but not the 3315 voxels that a perfect answer adds up to.
    label = jnp.ones((1, 15, 17, 13), jnp.int32)
    logits = (50.0 * jax.nn.one_hot(label, NUM_CLASSES)).astype(jnp.bfloat16)
    values, dice = SegmentationLoss(cross_entropy_weight=1.0)(logits, label, _ones(1))
    assert values.dtype == jnp.float32
    np.testing.assert_allclose(dice["NCR"], 1.0, rtol=1e-6)


def test_groups_follow_the_number_of_classes():
    assert list(groups(5, "regions")) == ["WT", "TC", "ET", "RC"]
    assert groups(5, "labels")["RC"] == (4,)
    with pytest.raises(UserError, match="dice_over is 'voxels'"):
        groups(4, "voxels")
