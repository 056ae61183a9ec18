"""The segmentation decoder, of the patch network and of the global U-Net alike."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from gmmas_jax.models.fusion import ChannelAttentionFusion, MultiScaleFusion
from gmmas_jax.models.layers import (
    LEAKY_SLOPE,
    bias_initializer,
    convolution,
    dense,
    kernel_initializer,
    normalize_activate,
    over_voxels,
    residual_block,
)
from gmmas_jax.models.options import LayerOptions
from gmmas_jax.models.resize import depth_to_space, double_linear


class Upsample(nn.Module):
    """Doubles the resolution at equal width.

    A transposed convolution with a 2x2x2 kernel and stride 2 has no overlaps: it is one matrix
    product and a rearrangement, and is computed so (XLA's gradient of transposed 3D
    convolutions is slow).

    Attributes:
        options: 'transpose' or 'resize' in `upsample`.
    """

    options: LayerOptions

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [b d h w c] to [b 2d 2h 2w c]."""
        if self.options.upsample == "resize":
            return double_linear(x)
        width = x.shape[-1]
        fan_in = 8 * width  # PyTorch counts a transposed kernel's outputs
        init = kernel_initializer(self.options, fan_in=fan_in, gain=8.0)
        kernel = self.param("kernel", init, (2, 2, 2, width, width), jnp.float32)
        init = bias_initializer(self.options, fan_in=fan_in)
        bias = self.param("bias", init, (width,), jnp.float32)
        matrix = kernel.transpose(3, 0, 1, 2, 4).reshape(width, 8 * width).astype(x.dtype)
        return depth_to_space(x @ matrix, 2) + over_voxels(bias[None]).astype(x.dtype)


class MergeSkip(nn.Module):
    """Narrows and doubles the coarser features, joins them with the encoder's (DeUp).

    Attributes:
        fusion: 'concat', narrowed again by one matrix, as published, or 'msf'.
        options: How layers are built.
    """

    fusion: str
    options: LayerOptions

    @nn.compact
    def __call__(self, x: jax.Array, skip: jax.Array) -> jax.Array:
        """Maps [b d h w c] and [b 2d 2h 2w c'] to [b 2d 2h 2w c']."""
        width = skip.shape[-1]
        x = dense(x, width, options=self.options, name="narrow")
        x = Upsample(self.options, name="up")(x)
        if self.fusion == "msf":
            return MultiScaleFusion(self.options, name="merge")(skip, x)
        return dense(jnp.concatenate([skip, x], axis=-1), width, options=self.options, name="merge")


class SegmentationHead(nn.Module):
    """Logits of every voxel in float32.

    Attributes:
        classes: Labels, background included.
        stride: Voxels of the result along an axis for one voxel of the features.
        options: How layers are built.
    """

    classes: int
    stride: int
    options: LayerOptions

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [b d h w c] to [b d·stride h·stride w·stride classes] f32."""
        width, outputs = x.shape[-1], self.classes * self.stride**3
        init = kernel_initializer(self.options, fan_in=width, gain=1.0)
        kernel = self.param("kernel", init, (width, outputs), jnp.float32)
        init = bias_initializer(self.options, fan_in=width)
        bias = self.param("bias", init, (outputs,), jnp.float32)
        logits = jnp.matmul(x, kernel.astype(x.dtype), preferred_element_type=jnp.float32)
        logits = logits + over_voxels(bias[None])
        return depth_to_space(logits, self.stride) if self.stride > 1 else logits


class DetailHead(nn.Module):
    """Logits from features and, voxel by voxel, the intensities themselves.

    A stem that folds voxels into channels leaves little of the single voxel in the features. Here
    every voxel has its own small perceptron on unfolded features and its intensities, which sees a
    thin enhancing ring directly and costs a tenth of one convolution at that resolution.

    Attributes:
        classes: Labels, background included.
        stride: Voxels of the result along an axis for one voxel of the features.
        width: Channels unfolded for a voxel, and half of the hidden units.
        convolutions: How many follow at this resolution, each seen beside its input: without one,
            neighbours that come of one voxel of the features may alternate.
        options: How layers are built.
    """

    classes: int
    stride: int
    width: int
    convolutions: int
    options: LayerOptions

    @nn.compact
    def __call__(self, x: jax.Array, image: jax.Array) -> jax.Array:
        """Maps [b d h w c] and [b d·stride .. s] to [b d·stride .. classes] f32."""
        x = dense(x, self.width * self.stride**3, options=self.options, name="unfold")
        x = depth_to_space(x, self.stride) if self.stride > 1 else x
        x = jnp.concatenate([x, image.astype(x.dtype)], axis=-1)
        x = dense(x, 2 * self.width, options=self.options, name="hidden")
        x = nn.leaky_relu(x, LEAKY_SLOPE)
        for index in range(self.convolutions):
            narrow = dense(x, self.width, options=self.options, name=f"narrow_{index}")
            near = convolution(narrow, self.width, options=self.options, name=f"conv_{index}")
            x = jnp.concatenate([x, nn.leaky_relu(near, LEAKY_SLOPE)], axis=-1)
        return SegmentationHead(self.classes, 1, self.options, name="logits")(x)


class Decoder(nn.Module):
    """From the bottleneck back to voxels, with skips and, if given, global features.

    Attributes:
        classes: Labels, background included.
        stride: Stride of the encoder's stem, undone by the head.
        deep_supervision: Coarser levels that give logits too.
        skip_fusion: Of every `MergeSkip`.
        options: How layers are built.
        detail_width: Of the `DetailHead`; 0 for a linear head on the features alone, as published.
        detail_convolutions: Of the `DetailHead`.
    """

    classes: int
    stride: int
    deep_supervision: int
    skip_fusion: str
    options: LayerOptions
    detail_width: int = 0
    detail_convolutions: int = 0

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        skips: Sequence[jax.Array],
        global_features: Sequence[jax.Array],
        train: bool,
        image: jax.Array | None = None,
    ) -> tuple[tuple[jax.Array, ...], jax.Array, tuple[jax.Array, ...]]:
        """Decodes the bottleneck.

        Args:
            x: [b d' h' w' c] bottleneck, on the grid of the last skip.
            skips: Features of every level of the encoder, finest first.
            global_features: Features to fuse after each level but the finest, coarsest first, on
                the level's grid; empty for a decoder that fuses none.
            train: Whether batch statistics are active.
            image: [b d h w s], absent sequences 0; needed for a `DetailHead`.

        Returns:
            The features of every level but the finest, coarsest first; the logits
            [b d h w classes] f32; and the logits of `deep_supervision` coarser levels, finest
            first, each half as fine as the one before.
        """
        width, last = skips[-1].shape[-1], len(skips) - 1
        for step in range(2):
            x = normalize_activate(x, options=self.options, train=train, name=f"norm_{step}")
            x = convolution(x, width, options=self.options, name=f"conv_{step}")
        levels = []
        for level in range(last, -1, -1):
            if level < last:
                x = MergeSkip(self.skip_fusion, self.options, name=f"up_{level}")(x, skips[level])
            x = residual_block(x, options=self.options, train=train, name=f"block_{level}")
            if level > 0:
                if global_features:
                    fusion = ChannelAttentionFusion(self.options, name=f"fusion_{level}")
                    x = fusion(x, global_features[last - level])
                levels.append(x)
        if self.detail_width and image is not None:
            head = DetailHead(
                self.classes,
                self.stride,
                self.detail_width,
                self.detail_convolutions,
                self.options,
                name="head",
            )
            logits = head(x, image)
        else:
            logits = SegmentationHead(self.classes, self.stride, self.options, name="head")(x)
        deep = tuple(
            SegmentationHead(self.classes, 1, self.options, name=f"head_{level}")(
                levels[last - level]
            )
            for level in range(1, self.deep_supervision + 1)
        )
        return tuple(levels), logits, deep
