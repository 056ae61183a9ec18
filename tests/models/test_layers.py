import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from gmmas_jax.errors import UserError
from gmmas_jax.models.layers import (
    Downsample,
    GroupNorm,
    ResidualBlock,
    convolution,
    convolve,
    dense,
    kernel_initializer,
    normalize_activate,
)
from gmmas_jax.models.options import LayerOptions
from tests.models.small import SMALL, random_variables

OPTIONS = LayerOptions(**SMALL["layers"])


class Layer(nn.Module):
    """Calls one of the functions that need to be inside a compact method."""

    function: object
    arguments: dict

    @nn.compact
    def __call__(self, *inputs):
        return self.function(*inputs, name="layer", **self.arguments)


def volume(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def correlate(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The 3x3x3 convolution of deep learning, with zero padding, by SciPy: [b d h w c]."""
    result = np.zeros((*x.shape[:-1], kernel.shape[-1]))
    for case, inputs, outputs in np.ndindex(x.shape[0], x.shape[-1], kernel.shape[-1]):
        result[case, ..., outputs] += ndimage.correlate(
            x[case, ..., inputs].astype(float), kernel[..., inputs, outputs], mode="constant"
        )
    return result


@pytest.mark.parametrize("stride", [1, 2])
def test_convolve_pads_one_voxel_on_both_sides_for_every_stride(stride):
    x, kernel = volume(2, 4, 6, 4, 2), volume(3, 3, 3, 2, 3, seed=1)
    expected = correlate(np.asarray(x), np.asarray(kernel))[:, ::stride, ::stride, ::stride]
    np.testing.assert_allclose(convolve(x, kernel, stride=stride), expected, atol=1e-5)


@pytest.mark.parametrize(("padding", "size"), [("same", 4), ("valid", 2)])
def test_convolution_keeps_or_shrinks_the_volume(padding, size):
    layer = Layer(convolution, {"features": 3, "options": OPTIONS, "padding": padding})
    x = volume(1, 4, 4, 4, 2)
    variables = random_variables(layer, x)
    kernel, bias = variables["params"]["layer"]["kernel"], variables["params"]["layer"]["bias"]
    inside = slice((4 - size) // 2, (4 + size) // 2)
    expected = correlate(np.asarray(x), np.asarray(kernel))[:, inside, inside, inside]
    expected += np.asarray(bias)
    np.testing.assert_allclose(layer.apply(variables, x), expected, atol=1e-5)


def test_downsample_of_four_averaged_branches_is_one_merged_convolution():
    x = volume(1, 4, 4, 4, 2)
    four, one = Downsample(3, 4, OPTIONS), Downsample(3, 1, OPTIONS)
    params = random_variables(four, x)["params"]
    result = four.apply({"params": params}, x)
    apart = [
        correlate(np.asarray(x), np.asarray(params["kernel"][branch]))[:, ::2, ::2, ::2]
        + np.asarray(params["bias"][branch])
        for branch in range(4)
    ]
    np.testing.assert_allclose(result, np.mean(apart, axis=0), atol=1e-5)
    merged = jax.tree.map(lambda leaf: leaf.mean(axis=0, keepdims=True), params)
    np.testing.assert_allclose(one.apply({"params": merged}, x), result, atol=1e-6)


def test_group_norm_agrees_with_flax():
    x = 3.0 + 2.0 * volume(2, 3, 4, 5, 8)
    ours = GroupNorm(group_size=4, dtype=jnp.float32)
    variables = random_variables(ours, x)
    flax = nn.GroupNorm(num_groups=None, group_size=4, epsilon=1e-5)
    np.testing.assert_allclose(ours.apply(variables, x), flax.apply(variables, x), atol=2e-5)


def test_group_norm_has_one_group_where_channels_are_few_and_refuses_a_remainder():
    x = volume(2, 3, 3, 3, 6)
    norm = GroupNorm(group_size=8, dtype=jnp.float32)
    y = norm.apply(norm.init(jax.random.key(0), x), x)
    np.testing.assert_allclose(y.mean(axis=(1, 2, 3, 4)), 0.0, atol=1e-5)
    with pytest.raises(UserError, match="group_size is 4, but a layer has 6 channels"):
        GroupNorm(group_size=4, dtype=jnp.float32).init(jax.random.key(0), x)


def test_batch_norm_has_the_constants_of_pytorch():
    options = dataclasses.replace(OPTIONS, norm="batch")
    layer = Layer(normalize_activate, {"options": options, "train": True})
    x = 5.0 + volume(3, 4, 4, 4, 2)
    variables = layer.init(jax.random.key(0), x)
    y, updated = layer.apply(variables, x, mutable=["batch_stats"])
    mean, variance = x.mean(axis=(0, 1, 2, 3)), x.var(axis=(0, 1, 2, 3))
    z = (x - mean[None, None, None, None]) / np.sqrt(variance + 1e-5)[None, None, None, None]
    np.testing.assert_allclose(y, np.where(z > 0, z, 0.01 * z), atol=1e-4)
    stats = updated["batch_stats"]["layer"]
    np.testing.assert_allclose(stats["mean"], 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * variance, rtol=1e-4)


def test_residual_block_adds_to_its_input():
    x = volume(1, 4, 4, 4, 4)
    block = ResidualBlock(OPTIONS)
    params = random_variables(block, x, False)["params"]
    params["conv_1"] = jax.tree.map(jnp.zeros_like, params["conv_1"])
    np.testing.assert_array_equal(block.apply({"params": params}, x, False), x)


def test_initialisers_have_the_stated_spread():
    shape = (3, 3, 3, 40, 40)
    torch = kernel_initializer(OPTIONS, fan_in=1080)(jax.random.key(0), shape)
    bound = 1080**-0.5
    assert float(jnp.abs(torch).max()) <= bound
    np.testing.assert_allclose(torch.std(), bound / 3**0.5, rtol=0.02)
    options = dataclasses.replace(OPTIONS, initializer="he")
    he = kernel_initializer(options, fan_in=1080)(jax.random.key(0), shape)
    np.testing.assert_allclose(he.std(), (2 / 1080) ** 0.5, rtol=0.02)


def test_biases_start_uniform_as_in_pytorch_or_at_zero():
    x = volume(2, 100)
    for initializer, largest in (("torch", 0.1), ("he", 0.0)):
        options = dataclasses.replace(OPTIONS, initializer=initializer)
        layer = Layer(dense, {"features": 500, "options": options})
        bias = layer.init(jax.random.key(0), x)["params"]["layer"]["bias"]
        np.testing.assert_allclose(jnp.abs(bias).max(), largest, atol=0.005)
