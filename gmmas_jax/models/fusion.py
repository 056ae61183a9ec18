"""Fusion: of sequences that may be absent, of a patch with the whole, of a decoder's scales."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from gmmas_jax.models.conv import Conv, Padding
from gmmas_jax.models.layers import (
    bias_initializer,
    convolve,
    dense,
    kernel_initializer,
    over_voxels,
)
from gmmas_jax.models.options import LayerOptions
from gmmas_jax.models.resize import space_to_depth

_REACH = 3
"""Of spatial attention: a kernel of 7 along each axis."""


def fusion_shares(strength: jax.Array, present: jax.Array) -> jax.Array:
    """Share of every sequence in the fused features (GMMAS, modality fusion).

    A sequence weighs exp(v - 1), an absent one nothing, and the weights are normalised over the
    sequences that are there.

    Args:
        strength: [s] f32 learned scalars v, 1 at the start.
        present: [b s] 1 where a case has the sequence.

    Returns:
        [b s] f32, rows summing to 1 (to 0 where a case has no sequence at all).
    """
    weight = jnp.where(present > 0, jnp.exp(strength - 1.0)[None], 0.0)
    return weight / jnp.maximum(weight.sum(axis=-1, keepdims=True), 1e-6)


class SequenceFusion(nn.Module):
    """One convolution per sequence, and their mean weighted by `fusion_shares` (GMMAS stem).

    Everything here is linear in the image, so that outside of stem dropout the weighted mean of
    the convolutions is computed as a single convolution of the weighted sequences.

    Attributes:
        features: Channels of the result.
        stride: Side of the voxel cubes folded into channels before the convolution.
        dropout: Rate at which channels of single sequences are dropped in training.
        options: How layers are built.
    """

    features: int
    stride: int
    dropout: float
    options: LayerOptions

    @nn.compact
    def __call__(self, image: jax.Array, present: jax.Array, train: bool) -> jax.Array:
        """Fuses the sequences of every case.

        Args:
            image: [b d h w s] f32, z-scored. Voxels of absent sequences are never read: NaN
                there changes nothing.
            present: [b s] f32, 1 where the case has the sequence.
            train: Whether stem dropout is active.

        Returns:
            [b d/stride h/stride w/stride features] in the compute dtype.
        """
        sequences, cube = image.shape[-1], self.stride**3
        image = jnp.where(over_voxels(present) > 0, image, 0.0)
        if self.stride > 1:
            image = space_to_depth(image, self.stride)
        kernel = self.param(
            "kernel",
            kernel_initializer(self.options, fan_in=27 * cube),
            (3, 3, 3, sequences * cube, self.features),
            jnp.float32,
        )
        bias = self.param(
            "bias",
            bias_initializer(self.options, fan_in=27 * cube),
            (sequences, self.features),
            jnp.float32,
        )
        strength = self.param("strength", nn.initializers.ones, (sequences,), jnp.float32)
        share = fusion_shares(strength, present)
        dtype = self.options.compute_dtype
        if train and self.dropout > 0:
            # Dropped channels differ between sequences: each needs its own convolution.
            ones = jnp.ones((image.shape[0], sequences, self.features), jnp.float32)
            kept = nn.Dropout(self.dropout, deterministic=False)(ones) * share[:, :, None]
            image = image.astype(dtype)
            fused = jnp.zeros((), dtype)
            for s in range(sequences):
                part = slice(s * cube, (s + 1) * cube)
                own = convolve(image[..., part], kernel[:, :, :, part])
                own = own + over_voxels(bias[s : s + 1]).astype(dtype)
                fused = fused + own * over_voxels(kept[:, s]).astype(dtype)
            return fused
        weighted = image * over_voxels(jnp.repeat(share, cube, axis=-1))
        return convolve(weighted.astype(dtype), kernel) + over_voxels(share @ bias).astype(dtype)


class ChannelAttentionFusion(nn.Module):
    """Channel attention from global average and maximum over two feature maps (GMMAS).

    With z = [x, y] of C channels: a = fc(mean z), m = fc(max z) by one shared bottleneck fc of
    C/8 channels; s = sigmoid(W [a, m]); result = P (s·z) + x. No bias anywhere and no final
    rectifier, as published. s and P are combined into one kernel per case, so that neither
    z nor s·z is ever stored.

    Attributes:
        options: How layers are built.
    """

    options: LayerOptions

    @nn.compact
    def __call__(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """Fuses [b d h w c] with [b d h w c'] into [b d h w c] in the compute dtype."""
        width = x.shape[-1]
        channels = width + y.shape[-1]
        hidden = max(1, channels // 8)

        def kernel(name: str, inputs: int, outputs: int, gain: float) -> jax.Array:
            init = kernel_initializer(self.options, fan_in=inputs, gain=gain)
            return self.param(name, init, (inputs, outputs), jnp.float32)

        squeeze = kernel("squeeze", channels, hidden, 2.0)
        expand = kernel("expand", hidden, channels, 1.0)
        gate = kernel("gate", 2 * channels, channels, 1.0)
        project = kernel("project", channels, width, 1.0)

        pooled = [
            nn.relu(jnp.concatenate(parts, axis=-1) @ squeeze) @ expand
            for parts in ((average_pool(x), average_pool(y)), (max_pool(x), max_pool(y)))
        ]
        scale = nn.sigmoid(jnp.concatenate(pooled, axis=-1) @ gate)
        scaled = (scale[:, :, None] * project[None]).astype(x.dtype)
        own = jnp.einsum("bdhwc,bce->bdhwe", x, scaled[:, :width])
        other = jnp.einsum("bdhwc,bce->bdhwe", y.astype(x.dtype), scaled[:, width:])
        return x + own + other


class MultiScaleFusion(nn.Module):
    """Multi-scale information fusion (MSF) of an encoder's and a decoder's features (MU-Net).

    Zhang and Chen, "Brain Glioma Segmentation Model based on Multi-scale Information Fusion",
    equations 1 and 2: with learned scalars p, Info = p1·x + p2·y + p3; with channel attention CA
    and spatial attention SA, both without a sigmoid of their own, W = sigmoid(CA + SA); the result
    is Info + W·x + (1 - W)·y. What the paper leaves open (reflected borders, bottleneck of C/8) is
    as in DEA-Net, whose fusion it simplifies. Images and volumes alike.

    W is kept in the collection "intermediates" under "weight", for those who want to see it.

    Attributes:
        options: How layers are built.
    """

    options: LayerOptions

    @nn.compact
    def __call__(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """Fuses the encoder's x [b ... c] and the decoder's y [b ... c] into [b ... c]."""
        width, rank = x.shape[-1], x.ndim - 2
        space = tuple(range(1, 1 + rank))
        mix = self.param("mix", lambda _: jnp.array([1.0, 1.0, 0.0], jnp.float32)).astype(x.dtype)
        info = mix[0] * x + mix[1] * y + mix[2]
        mean = info.astype(jnp.float32).mean(axis=space)
        hidden = dense(mean, max(1, width // 8), options=self.options, name="squeeze")
        channels = dense(nn.relu(hidden), width, options=self.options, name="expand")
        places = jnp.stack([info.mean(axis=-1), channel_max(info)], axis=-1)
        edges = [(0, 0), *[(_REACH, _REACH)] * rank, (0, 0)]
        size = 2 * _REACH + 1
        no_padding: Padding = ((0, 0),) * rank
        places = Conv(
            1,
            kernel_size=(size,) * rank,
            padding=no_padding,
            dtype=self.options.compute_dtype,
            kernel_init=kernel_initializer(self.options, fan_in=2 * size**rank, gain=1.0),
            bias_init=bias_initializer(self.options, fan_in=2 * size**rank),
            name="places",
        )(jnp.pad(places, edges, mode="reflect"))
        weight = nn.sigmoid(over_voxels(channels, rank=rank) + places)
        self.sow("intermediates", "weight", weight)
        return info + weight * x + (1.0 - weight) * y


@jax.custom_vjp
def channel_max(x: jax.Array) -> jax.Array:
    """Maximum over the channels: [b ... c] to [b ...].

    The gradient goes to the first channel that reached it, kept as a number. JAX's own compares
    the channels with the maximum once more, and XLA may compute them a second time, rounded
    otherwise: the gradient of most pixels then is lost (5 to 10 % of that of whole networks on
    CPUs).
    """
    return x.max(axis=-1)


def _channel_max_forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return channel_max(x), (jnp.argmax(x, axis=-1), jnp.zeros(x.shape[-1:], x.dtype))


def _channel_max_backward(
    kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array]:
    reached, channel = kept
    chosen = jax.nn.one_hot(reached, channel.size, dtype=channel.dtype)
    return (chosen * gradient[..., None],)


channel_max.defvjp(_channel_max_forward, _channel_max_backward)


def average_pool(x: jax.Array) -> jax.Array:
    """Mean over the volume, summed in float32: [b d h w c] to [b c] f32."""
    return x.astype(jnp.float32).mean(axis=(1, 2, 3))


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """Maximum over the volume: [b d h w c] to [b c] f32.

    The gradient goes to every voxel that equals the maximum up to the rounding of its dtype.
    JAX's own compares exactly, and divides by the number of voxels found: none, if XLA fuses
    the computation of `x` into the comparison and rounds it differently there. Gradients then
    are infinite (seen on CPUs).
    """
    return x.max(axis=(1, 2, 3)).astype(jnp.float32)


def _max_pool_forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    maximum = x.max(axis=(1, 2, 3))
    return maximum.astype(jnp.float32), (x, maximum)


def _max_pool_backward(kept: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array]:
    x, maximum = kept
    threshold = maximum - jnp.finfo(x.dtype).eps * jnp.abs(maximum)
    reached = x >= over_voxels(threshold)
    count = jnp.maximum(reached.sum(axis=(1, 2, 3)), 1)
    return (jnp.where(reached, over_voxels(gradient / count), 0.0).astype(x.dtype),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)
