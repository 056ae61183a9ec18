import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmmas_jax.errors import UserError
from gmmas_jax.models.heads import Classifier, TaskFeatures, TaskHead
from gmmas_jax.models.options import ClassifierOptions, LayerOptions
from tests.models.small import SMALL, random_variables, run
from tests.models.test_layers import correlate

OPTIONS = LayerOptions(**SMALL["layers"])
SETTINGS = ClassifierOptions(**SMALL["classifier"] | {"hidden": (8,)})
TASKS = (("histology", 3), ("idh", 2))


def volume(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_every_task_pools_the_stitched_features_of_all(padding):
    local, deep = volume(2, 3, 4, 3, 5), volume(2, 3, 4, 3, 6, seed=1)
    layer = TaskFeatures(TASKS, dataclasses.replace(SETTINGS, padding=padding), OPTIONS)
    params = random_variables(layer, local, deep)["params"]
    stitched = []
    for x, name, width in ((local, "local", 2 * 4), (deep, "deep", 2 * 8)):
        kernel, bias = (np.asarray(params[name][part]) for part in ("kernel", "bias"))
        assert kernel.shape[-1] == width
        stitched.append(correlate(np.asarray(x), kernel) + bias)
    z = np.concatenate(stitched, axis=-1)
    z = z[:, 1:-1, 1:-1, 1:-1] if padding == "valid" else z
    mixed = z @ np.asarray(params["mix"]["kernel"]) + np.asarray(params["mix"]["bias"])
    pooled = layer.apply({"params": params}, local, deep)
    assert list(pooled) == ["histology", "idh"]
    for index, values in enumerate(pooled.values()):
        own = mixed[..., index * 8 : (index + 1) * 8]
        expected = np.concatenate([own.mean(axis=(1, 2, 3)), own.max(axis=(1, 2, 3))], axis=-1)
        np.testing.assert_allclose(values, expected, atol=1e-5)


def test_valid_padding_refuses_a_level_of_two_voxels():
    layer = TaskFeatures(TASKS, dataclasses.replace(SETTINGS, padding="valid"), OPTIONS)
    with pytest.raises(UserError, match="padding is 'valid'"):
        random_variables(layer, volume(1, 2, 4, 4, 5), volume(1, 2, 4, 4, 6))


@pytest.mark.parametrize(
    ("activation", "affine"), [("none", True), ("relu", False), ("gelu", False)]
)
def test_the_published_head_is_an_affine_map(activation, affine):
    head = TaskHead(2, dataclasses.replace(SETTINGS, activation=activation), OPTIONS)
    x, y = volume(3, 16), volume(3, 16, seed=1)
    variables = random_variables(head, x, False)

    def logits(z: jax.Array) -> jax.Array:
        return head.apply(variables, z, False)

    gap = jnp.abs(logits(0.5 * (x + y)) - 0.5 * (logits(x) + logits(y))).max()
    assert (float(gap) < 1e-5) == affine


def test_classify_draws_another_dropout_mask_for_every_key():
    classifier = Classifier(TASKS, SETTINGS, OPTIONS)
    pooled = {task: volume(2, 16) for task, _ in TASKS}
    variables = random_variables(classifier, pooled, False, method=Classifier.classify)
    sample = jax.vmap(
        lambda key: classifier.apply(
            variables, pooled, True, method=Classifier.classify, rngs={"dropout": key}
        )
    )
    logits = run(sample, jax.random.split(jax.random.key(0), 5))
    assert logits["histology"].shape == (5, 2, 3)
    assert logits["idh"].dtype == jnp.float32
    assert float(logits["idh"].std(axis=0).min()) > 0
