"""Layers that every part of the networks is made of.

The functions create their Linen submodule in the compact method they are called from.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from gmmas_jax.errors import UserError
from gmmas_jax.models.conv import Conv, conv3d
from gmmas_jax.models.options import LayerOptions

# Both initialisers draw a flat array and reshape it: on a CPU, XLA takes eight times as long to
# compile the generator for five axes, and a network has 200 parameters to draw.
Initializer = Callable[..., jax.Array]

LEAKY_SLOPE = 0.01
NORM_EPSILON = 1e-5


def uniform_initializer(fan_in: int) -> Initializer:
    """Uniform within ±1/sqrt(fan in): PyTorch's default for kernels and biases."""
    bound = fan_in**-0.5

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        flat = jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound)
        return flat.reshape(shape)

    return init


def normal_initializer(deviation: float) -> Initializer:
    """Normal with mean 0 and the given standard deviation."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        flat = jax.random.normal(key, (math.prod(shape),), dtype)
        return deviation * flat.reshape(shape)

    return init


def kernel_initializer(options: LayerOptions, *, fan_in: int, gain: float = 2.0) -> Initializer:
    """Returns the initialiser of a kernel.

    Args:
        options: 'torch' or 'he' in `initializer`.
        fan_in: Inputs of one output; given because some kernels here are stacked.
        gain: Variance of the weights times fan in, under 'he': 2 before a rectifier, 1 else.
    """
    if options.initializer == "torch":
        return uniform_initializer(fan_in)
    return normal_initializer((gain / fan_in) ** 0.5)


def bias_initializer(options: LayerOptions, *, fan_in: int) -> Initializer:
    """Returns the initialiser of a bias: uniform under 'torch', zeros under 'he'."""
    if options.initializer == "torch":
        return uniform_initializer(fan_in)
    return nn.initializers.zeros


def convolution(
    x: jax.Array, features: int, *, options: LayerOptions, name: str, padding: str = "same"
) -> jax.Array:
    """A 3x3x3 convolution with bias.

    Args:
        x: [b d h w c] features.
        features: Channels of the result.
        options: Dtype and initialiser.
        name: Name of the submodule.
        padding: 'same' or 'valid' (each axis shrinks by 2).

    Returns:
        [b d h w features] in the compute dtype.
    """
    fan_in = 27 * x.shape[-1]
    return Conv(
        features,
        kernel_size=(3, 3, 3),
        padding=((1, 1),) * 3 if padding == "same" else ((0, 0),) * 3,
        dtype=options.compute_dtype,
        kernel_init=kernel_initializer(options, fan_in=fan_in),
        bias_init=bias_initializer(options, fan_in=fan_in),
        name=name,
    )(x)


def convolve(x: jax.Array, kernel: jax.Array, *, stride: int = 1) -> jax.Array:
    """Convolves with a given 3x3x3 kernel, without bias, in the dtype of `x`.

    Padding is (1, 1) on every axis for every stride, as in PyTorch; 'SAME' with stride 2 would
    pad (0, 1) and shift the result by one voxel.

    Args:
        x: [b d h w c] features.
        kernel: [3 3 3 c features] f32.
        stride: Step along every axis.

    Returns:
        [b d h w features].
    """
    return conv3d(x, kernel.astype(x.dtype), strides=(stride,) * 3, padding=((1, 1),) * 3)


def dense(
    x: jax.Array,
    features: int,
    *,
    options: LayerOptions,
    name: str,
    use_bias: bool = True,
    dtype: Any = None,
) -> jax.Array:
    """A matrix product over the last axis: a linear layer, or a 1x1x1 convolution.

    Args:
        x: [... c] features.
        features: Channels of the result.
        options: Compute dtype and initialiser.
        name: Name of the submodule.
        use_bias: Whether a bias is added.
        dtype: Compute dtype instead of that of the options.

    Returns:
        [... features] in the compute dtype.
    """
    fan_in = x.shape[-1]
    return nn.Dense(
        features,
        use_bias=use_bias,
        dtype=dtype or options.compute_dtype,
        kernel_init=kernel_initializer(options, fan_in=fan_in, gain=1.0),
        bias_init=bias_initializer(options, fan_in=fan_in),
        name=name,
    )(x)


class GroupNorm(nn.Module):
    """Group normalisation (Wu & He 2018) from per-channel sums.

    Summing over space first and over the channels of a group last needs one pass over the
    volume and twice as little time on a CPU as `flax.linen.GroupNorm`, with the same result.

    Attributes:
        group_size: Channels in a group; one group where there are fewer channels.
        dtype: Type of the result. Statistics and affine parameters are float32.
    """

    group_size: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises [b ... c] over space and the channels of each group."""
        batch, channels, rank = x.shape[0], x.shape[-1], x.ndim - 2
        space = tuple(range(1, 1 + rank))
        size = min(self.group_size, channels)
        if channels % size:
            raise UserError(
                f"model.layers.group_size is {size}, but a layer has {channels} channels; "
                "choose widths that are multiples of the group size, or a smaller group size."
            )
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)

        def over_group(per_channel: jax.Array) -> jax.Array:
            groups = per_channel.reshape(batch, channels // size, size)
            return jnp.repeat(groups.mean(axis=-1), size, axis=-1)

        values = x.astype(jnp.float32)
        mean = over_group(values.mean(axis=space))
        square = over_group(jnp.square(values).mean(axis=space))
        variance = jnp.maximum(square - jnp.square(mean), 0.0)
        factor = lax.rsqrt(variance + NORM_EPSILON) * scale[None]
        offset = bias[None] - mean * factor
        factor, offset = over_voxels(factor, rank=rank), over_voxels(offset, rank=rank)
        return (values * factor + offset).astype(self.dtype)


def over_voxels(per_channel: jax.Array, *, rank: int = 3) -> jax.Array:
    """Reshapes [b c] to [b 1 1 1 c], to be broadcast over a volume; at rank 2 over an image."""
    return per_channel.reshape(per_channel.shape[0], *[1] * rank, per_channel.shape[-1])


def normalize(x: jax.Array, *, options: LayerOptions, train: bool, name: str) -> jax.Array:
    """The norm that the options choose.

    Args:
        x: [b ... c] features.
        options: Kind of norm and dtype.
        train: With batch norm, use (and update) the statistics of this batch.
        name: Name of the norm.

    Returns:
        [b ... c] in the compute dtype.
    """
    if options.norm == "batch":
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            epsilon=NORM_EPSILON,
            dtype=options.compute_dtype,
            name=name,
        )(x)
    return GroupNorm(group_size=options.group_size, dtype=options.compute_dtype, name=name)(x)


def normalize_activate(x: jax.Array, *, options: LayerOptions, train: bool, name: str) -> jax.Array:
    """Norm, then LeakyReLU: what precedes every convolution of a pre-activation block."""
    return nn.leaky_relu(normalize(x, options=options, train=train, name=name), LEAKY_SLOPE)


class ResidualBlock(nn.Module):
    """Pre-activation residual block: twice norm, LeakyReLU, convolution; plus the input.

    Attributes:
        options: How layers are built.
    """

    options: LayerOptions

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [b d h w c] to [b d h w c]."""
        features = x.shape[-1]
        y = normalize_activate(x, options=self.options, train=train, name="norm_0")
        y = convolution(y, features, options=self.options, name="conv_0")
        y = normalize_activate(y, options=self.options, train=train, name="norm_1")
        return x + convolution(y, features, options=self.options, name="conv_1")


def residual_block(x: jax.Array, *, options: LayerOptions, train: bool, name: str) -> jax.Array:
    """Applies a `ResidualBlock`, recomputed in the backward pass if the options say so."""
    block = ResidualBlock
    if options.remat == "all":
        block = nn.remat(ResidualBlock, static_argnums=(2,))
    return block(options, name=name)(x, train)


class Downsample(nn.Module):
    """The mean of `branches` convolutions of stride 2, computed as one.

    The branches share their input and are linear, so the mean of their kernels gives the mean of
    their results, and each branch receives the same gradient as if it were computed apart.

    Attributes:
        features: Channels of the result.
        branches: Number of averaged convolutions.
        options: How layers are built.
    """

    features: int
    branches: int
    options: LayerOptions

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [b d h w c] to [b d/2 h/2 w/2 features]."""
        fan_in = 27 * x.shape[-1]
        kernel = self.param(
            "kernel",
            kernel_initializer(self.options, fan_in=fan_in),
            (self.branches, 3, 3, 3, x.shape[-1], self.features),
            jnp.float32,
        )
        bias = self.param(
            "bias",
            bias_initializer(self.options, fan_in=fan_in),
            (self.branches, self.features),
            jnp.float32,
        )
        y = convolve(x, kernel.mean(axis=0), stride=2)
        return y + over_voxels(bias.mean(axis=0, keepdims=True)).astype(y.dtype)
