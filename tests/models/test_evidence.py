"""What the task heads may read besides pooled features, and the head that reads intensities."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmmas_jax.models.decoders import Decoder, DetailHead
from gmmas_jax.models.heads import Classifier, tumour_evidence
from gmmas_jax.models.layers import LEAKY_SLOPE, NORM_EPSILON
from gmmas_jax.models.options import ClassifierOptions, LayerOptions
from tests.models.small import SMALL, random_variables, run

OPTIONS = LayerOptions(**SMALL["layers"])
SETTINGS = ClassifierOptions(**SMALL["classifier"] | {"hidden": (8,)})
TASKS = (("histology", 3), ("idh", 2))


def _draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _certain(label, classes=4):
    """Logits that leave no doubt."""
    return 60.0 * jax.nn.one_hot(jnp.asarray(label), classes)


def _evidence(label, image):
    """`tumour_evidence` of a hard segmentation of one example, voxel lists in NumPy."""
    tumour = (label > 0).sum() + 30
    shares, means, deviations = [], [], []
    for code in (1, 2, 3):
        values = np.asarray(image, np.float64)[label == code]
        trust = len(values) / (len(values) + 30)
        shares.append(np.log10((len(values) + 30) / tumour))
        means.append(trust * values.mean(axis=0) if len(values) else np.zeros(image.shape[-1]))
        spread = values.var(axis=0) if len(values) else np.zeros(image.shape[-1])
        deviations.append(trust * np.sqrt(spread + 1e-6))
    size = np.log10(tumour) - 3
    return np.concatenate([[size], shares, np.ravel(means), np.ravel(deviations)])


def test_evidence_of_a_certain_segmentation_is_counted_voxel_by_voxel():
    label = np.random.default_rng(0).choice(4, p=(0.5, 0.1, 0.3, 0.1), size=(2, 5, 4, 6))
    label[1][label[1] == 3] = 2  # the second example has no enhancing tumour
    image = _draw(2, 5, 4, 6, 4) + 1.0
    values = tumour_evidence(_certain(label), image)
    assert values.shape == (2, 1 + 3 * (1 + 2 * 4))
    assert values.dtype == jnp.float32
    expected = [_evidence(label[i], np.asarray(image[i])) for i in range(2)]
    np.testing.assert_allclose(values, expected, atol=2e-4)


def test_evidence_of_an_uncertain_segmentation_weighs_by_probability():
    logits, image = _draw(1, 4, 5, 3, 4), _draw(1, 4, 5, 3, 2, seed=1)
    values = np.asarray(tumour_evidence(logits, image))[0]
    likely = np.asarray(jax.nn.softmax(logits), np.float64).reshape(-1, 4)
    weight = likely[:, 1:] * (likely[:, :1] < 0.5)
    assert 0 < np.count_nonzero(weight[:, 0]) < len(weight)
    intensity = np.asarray(image, np.float64).reshape(-1, 2)
    size = weight.sum(0)
    trust = (size / (size + 30))[:, None]
    np.testing.assert_allclose(values[0], np.log10(size.sum() + 30) - 3, rtol=1e-5)
    shares = np.log10((size + 30) / (size.sum() + 30))
    np.testing.assert_allclose(values[1:4], shares, rtol=1e-4)
    mean = weight.T @ intensity / size[:, None]
    np.testing.assert_allclose(values[4:10], (trust * mean).ravel(), atol=1e-5)
    square = weight.T @ intensity**2 / size[:, None]
    deviation = trust * np.sqrt(square - mean**2 + 1e-6)
    np.testing.assert_allclose(values[10:], deviation.ravel(), atol=1e-5)


def test_a_patch_without_tumour_has_finite_evidence():
    values = tumour_evidence(_certain(np.zeros((1, 4, 4, 4), int)), _draw(1, 4, 4, 4, 4))
    assert float(values[0, 0]) == pytest.approx(np.log10(30) - 3)
    assert float(jnp.abs(values[0, 1:]).max()) <= 1.1e-3


def test_a_tumour_has_the_same_evidence_in_a_patch_as_in_the_whole_brain():
    label = np.zeros((1, 12, 12, 12), int)
    label[0, 4:8, 4:8, 4:8] = np.random.default_rng(0).integers(1, 4, (4, 4, 4))
    logits, image = _certain(label) / 10.0, _draw(1, 12, 12, 12, 4)
    patch = np.s_[:, 2:10, 2:10, 2:10]
    np.testing.assert_allclose(
        tumour_evidence(logits, image), tumour_evidence(logits[patch], image[patch]), atol=1e-5
    )


def test_an_absent_sequence_has_no_evidence():
    label = np.random.default_rng(0).integers(0, 4, (1, 4, 4, 4))
    image = _draw(1, 4, 4, 4, 4).at[..., 1].set(0.0)
    values = np.asarray(tumour_evidence(_certain(label), image))[0]
    means, deviations = values[4:16].reshape(3, 4), values[16:].reshape(3, 4)
    assert not means[:, 1].any()
    assert deviations[:, 1].max() <= 1e-3
    assert deviations[:, 0].min() > 0.1


def test_no_gradient_reaches_the_segmentation():
    logits, image = _draw(1, 4, 4, 4, 4), _draw(1, 4, 4, 4, 4, seed=1)

    def total(logits, image):
        return jnp.square(tumour_evidence(logits, image)).sum()

    to_logits, to_image = jax.grad(total, argnums=(0, 1))(logits, image)
    assert not to_logits.any()
    assert to_image.any()


@pytest.mark.parametrize("evidence", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_the_classifier_adds_what_its_options_say(evidence, normalize):
    local, deep = 30.0 * _draw(2, 3, 4, 3, 5), 30.0 * _draw(2, 3, 4, 3, 6, seed=1)
    logits, image = _draw(2, 6, 8, 6, 4, seed=2), _draw(2, 6, 8, 6, 4, seed=3)
    plain = Classifier(TASKS, SETTINGS, OPTIONS)
    options = dataclasses.replace(SETTINGS, evidence=evidence, normalize=normalize)
    classifier = Classifier(TASKS, options, OPTIONS)
    inputs = (local, deep, logits, image)
    variables = random_variables(classifier, *inputs, method=Classifier.pool)
    pooled = run(lambda v: classifier.apply(v, *inputs, method=Classifier.pool), variables)
    features = {"params": {"features": variables["params"]["features"]}}
    expected = run(lambda v: plain.apply(v, *inputs, method=Classifier.pool), features)
    for task, _ in TASKS:
        values, reference = np.asarray(pooled[task]), np.asarray(expected[task], np.float64)
        width = reference.shape[-1]
        if normalize:
            own = variables["params"][f"norms_{task}"]
            assert set(own) == {"scale", "bias"}
            spread = np.sqrt(reference.var(-1, keepdims=True) + NORM_EPSILON)
            reference = (reference - reference.mean(-1, keepdims=True)) / spread
            reference = reference * np.asarray(own["scale"]) + np.asarray(own["bias"])
        np.testing.assert_allclose(values[:, :width], reference, rtol=1e-4, atol=1e-4)
        if evidence:
            np.testing.assert_allclose(
                values[:, width:], tumour_evidence(logits, image), rtol=1e-4, atol=1e-4
            )
        else:
            assert values.shape[-1] == width


@pytest.mark.parametrize("stride", [1, 2])
def test_detail_head_is_a_perceptron_on_unfolded_features_and_intensities(stride):
    x, image = _draw(2, 2, 3, 2, 5), _draw(2, 2 * stride, 3 * stride, 2 * stride, 4, seed=1)
    head = DetailHead(4, stride, 6, 0, OPTIONS)
    variables = random_variables(head, x, image)
    params = jax.tree.map(np.asarray, variables["params"])
    logits = head.apply(variables, x, image)
    assert logits.shape == (*image.shape[:4], 4)
    assert logits.dtype == jnp.float32

    unfolded = np.asarray(x) @ params["unfold"]["kernel"] + params["unfold"]["bias"]
    cubes = unfolded.reshape(2, 2, 3, 2, stride, stride, stride, 6)
    for b, d, h, w in ((0, 0, 0, 0), (1, 2 * stride - 1, 1, stride), (0, 1, 3 * stride - 1, 0)):
        own = cubes[b, d // stride, h // stride, w // stride, d % stride, h % stride, w % stride]
        hidden = np.concatenate([own, np.asarray(image)[b, d, h, w]])
        hidden = hidden @ params["hidden"]["kernel"] + params["hidden"]["bias"]
        hidden = np.where(hidden > 0, hidden, LEAKY_SLOPE * hidden)
        expected = hidden @ params["logits"]["kernel"] + params["logits"]["bias"]
        np.testing.assert_allclose(logits[b, d, h, w], expected, atol=1e-5)


def test_one_voxel_of_the_image_changes_the_logits_of_that_voxel_alone():
    x, image = _draw(1, 2, 2, 2, 5), _draw(1, 4, 4, 4, 4, seed=1)
    head = DetailHead(4, 2, 6, 0, OPTIONS)
    variables = random_variables(head, x, image)
    other = head.apply(variables, x, image.at[0, 1, 2, 3, 0].add(5.0))
    changed = np.argwhere(np.abs(other - head.apply(variables, x, image)).max(-1) > 0)
    np.testing.assert_array_equal(changed, [[0, 1, 2, 3]])


@pytest.mark.parametrize(("width", "with_image"), [(6, True), (6, False), (0, True)])
def test_a_decoder_has_a_detail_head_where_it_has_an_image(width, with_image):
    skips = (_draw(1, 2, 2, 2, 4), _draw(1, 1, 1, 1, 8, seed=1))
    image = _draw(1, 4, 4, 4, 4, seed=2) if with_image else None
    decoder = Decoder(4, 2, 0, "concat", OPTIONS, width)
    shapes = jax.eval_shape(
        lambda key: decoder.init(key, skips[1], skips, (), False, image), jax.random.key(0)
    )
    detailed = "unfold" in shapes["params"]["head"]
    assert detailed == (width > 0 and with_image)
