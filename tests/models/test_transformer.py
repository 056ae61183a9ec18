import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf, softmax

from gmmas_jax.errors import UserError
from gmmas_jax.models.options import LayerOptions, TransformerOptions
from gmmas_jax.models.transformer import (
    SelfAttention,
    TransformerBlock,
    VolumeTransformer,
    sincos_positions,
)
from tests.models.small import SMALL, random_variables, run

OPTIONS = LayerOptions(**SMALL["layers"])
SETTINGS = TransformerOptions(**SMALL["transformer"])


def tokens(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def normalize(x: np.ndarray, params) -> np.ndarray:
    z = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
    return z * np.asarray(params["scale"]) + np.asarray(params["bias"])


def linear(x: np.ndarray, params) -> np.ndarray:
    return x @ np.asarray(params["kernel"]) + np.asarray(params.get("bias", 0.0))


def test_block_against_numpy():
    x = tokens(2, 5, 24) * 0.01  # small, so that the epsilon of the norms counts
    block = TransformerBlock(SETTINGS, OPTIONS)
    params = random_variables(block, x, False)["params"]
    attention = params["attention"]
    assert "bias" not in attention["qkv"]

    y = linear(normalize(np.asarray(x), params["norm_attention"]), attention["qkv"])
    query, key, value = np.moveaxis(y.reshape(2, 5, 3, 2, 12), 2, 0)
    weights = softmax(np.einsum("bqhc,bkhc->bhqk", query, key) / 12**0.5, axis=-1)
    y = np.einsum("bhqk,bkhc->bqhc", weights, value).reshape(2, 5, 24)
    middle = np.asarray(x) + linear(y, attention["project"])
    y = linear(normalize(middle, params["norm_mlp"]), params["mlp_0"])
    y = 0.5 * y * (1 + erf(y / 2**0.5))
    expected = middle + linear(y, params["mlp_1"])
    np.testing.assert_allclose(block.apply({"params": params}, x, False), expected, atol=1e-5)


def test_attention_with_dropped_weights_is_the_fused_one_when_none_is_dropped():
    x = tokens(2, 6, 24)
    fused = SelfAttention(SETTINGS, OPTIONS)
    explicit = SelfAttention(dataclasses.replace(SETTINGS, attention_dropout=1e-6), OPTIONS)
    variables = random_variables(fused, x, False)
    rngs = {"dropout": jax.random.key(0)}
    expected = fused.apply(variables, x, True)
    np.testing.assert_allclose(explicit.apply(variables, x, True, rngs=rngs), expected, atol=1e-5)
    dropping = SelfAttention(dataclasses.replace(SETTINGS, attention_dropout=0.5), OPTIONS)
    assert float(jnp.abs(dropping.apply(variables, x, True, rngs=rngs) - expected).max()) > 0.01


def test_cudnn_attention_reaches_jax_and_fails_without_a_gpu():
    x = tokens(1, 4, 24)
    layer = SelfAttention(dataclasses.replace(SETTINGS, attention="cudnn"), OPTIONS)
    variables = random_variables(SelfAttention(SETTINGS, OPTIONS), x, False)
    if jax.default_backend() == "gpu":
        pytest.skip("there is a GPU")
    with pytest.raises(RuntimeError, match="cuDNN"):
        layer.apply(variables, x, False)


def test_dropout_on_the_attention_branch_is_that_of_two_in_a_row():
    x = jnp.zeros((1, 400, 24))
    settings = dataclasses.replace(SETTINGS, dropout=0.3)
    block = TransformerBlock(settings, OPTIONS)
    params = random_variables(block, x, False)["params"]
    params["mlp_1"] = jax.tree.map(jnp.zeros_like, params["mlp_1"])
    params["attention"]["project"]["kernel"] *= 0.0
    params["attention"]["project"]["bias"] = jnp.ones(24)
    y = run(
        lambda p: block.apply({"params": p}, x, True, rngs={"dropout": jax.random.key(0)}), params
    )
    np.testing.assert_allclose(np.unique(y), [0.0, 1 / 0.49], rtol=1e-6)
    np.testing.assert_allclose((y > 0).mean(), 0.49, atol=0.02)


def test_sincos_positions_are_centred_and_fit_any_grid():
    small, large = sincos_positions((2, 3, 4), 32), sincos_positions((4, 5, 6), 32)
    assert small.shape == (2, 3, 4, 32)
    np.testing.assert_allclose(large[1:-1, 1:-1, 1:-1], small, atol=1e-6)
    np.testing.assert_array_equal(small[..., 30:], 0.0)
    distinct = np.unique(np.asarray(small).reshape(-1, 32).round(4), axis=0)
    assert len(distinct) == 24


def test_sincos_positions_let_the_window_differ_from_the_training_patch():
    layer = VolumeTransformer(SETTINGS, OPTIONS)
    variables = random_variables(layer, tokens(1, 2, 2, 2, 8), False)
    assert run(lambda v, x: layer.apply(v, x, False), variables, tokens(1, 3, 2, 4, 8)).shape == (
        *(1, 3, 2, 4),
        24,
    )


def test_learned_positions_start_at_zero_and_refuse_another_grid():
    layer = VolumeTransformer(dataclasses.replace(SETTINGS, positions="learned"), OPTIONS)
    x = tokens(1, 2, 2, 2, 8)
    variables = random_variables(layer, x, False)
    assert variables["params"]["positions"].shape == (2, 2, 2, 24)
    start = jax.jit(lambda key: layer.init(key, x, False)["params"]["positions"])
    np.testing.assert_array_equal(start(jax.random.key(0)), 0.0)
    with pytest.raises(UserError, match=r"\(2, 2, 2\) tokens, but the patch has \(3, 2, 4\)"):
        layer.apply(variables, tokens(1, 3, 2, 4, 8), False)


def test_positions_tell_equal_tokens_apart():
    x = jnp.ones((1, 2, 2, 2, 8))
    layer = VolumeTransformer(SETTINGS, OPTIONS)
    variables = random_variables(layer, x, False)
    variables["params"]["conv_in"]["kernel"] *= 0.0
    y = run(lambda v: layer.apply(v, x, False), variables)
    assert len(np.unique(np.asarray(y).reshape(8, 24).round(4), axis=0)) == 8
