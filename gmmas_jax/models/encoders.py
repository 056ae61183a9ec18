"""Convolutional encoders: the pyramid shared by both networks, and GMMAS's backbone."""

import flax.linen as nn
import jax

from gmmas_jax.models.fusion import ChannelAttentionFusion, SequenceFusion
from gmmas_jax.models.layers import Downsample, residual_block
from gmmas_jax.models.options import EncoderOptions, LayerOptions, TransformerOptions
from gmmas_jax.models.transformer import VolumeTransformer


class PyramidEncoder(nn.Module):
    """Fused sequences, then levels of residual blocks, each half as fine as the one before.

    Attributes:
        encoder: Widths and numbers of blocks.
        options: How layers are built.
    """

    encoder: EncoderOptions
    options: LayerOptions

    @nn.compact
    def __call__(self, image: jax.Array, present: jax.Array, train: bool) -> tuple[jax.Array, ...]:
        """Encodes a volume.

        Args:
            image: [b d h w s] f32, z-scored sequences.
            present: [b s] f32, 1 where the case has the sequence.
            train: Whether dropout and batch statistics are active.

        Returns:
            Features [b .. widths[i]] of every level, finest first, in the compute dtype.
        """
        encoder = self.encoder
        x = SequenceFusion(
            features=encoder.widths[0],
            stride=encoder.stem_stride,
            dropout=encoder.stem_dropout,
            options=self.options,
            name="stem",
        )(image, present, train)
        levels = []
        for level, (width, blocks) in enumerate(zip(encoder.widths, encoder.blocks, strict=True)):
            if level > 0:
                x = Downsample(
                    width, encoder.downsample_branches, self.options, name=f"down_{level}"
                )(x)
            for block in range(blocks):
                name = f"level_{level}_block_{block}"
                x = residual_block(x, options=self.options, train=train, name=name)
            levels.append(x)
        return tuple(levels)


class BackboneEncoder(nn.Module):
    """GMMAS's patch encoder: pyramid, transformer, fusion with the global bottleneck.

    Attributes:
        encoder: The convolutional pyramid.
        transformer: The transformer on its last level.
        options: How layers are built.
    """

    encoder: EncoderOptions
    transformer: TransformerOptions
    options: LayerOptions

    @nn.compact
    def __call__(
        self, image: jax.Array, present: jax.Array, middle: jax.Array, train: bool
    ) -> tuple[tuple[jax.Array, ...], jax.Array]:
        """Encodes a patch.

        Args:
            image: [b d h w s] f32, z-scored sequences.
            present: [b s] f32, 1 where the case has the sequence.
            middle: [b d/r h/r w/r c] bottleneck of the global U-Net where the patch lies, r
                being `encoder.reduction`.
            train: Whether dropout and batch statistics are active.

        Returns:
            The features of every level of the pyramid, finest first, and the fused bottleneck
            [b d/r h/r w/r dim].
        """
        pyramid = PyramidEncoder(self.encoder, self.options, name="pyramid")
        levels = pyramid(image, present, train)
        tokens = VolumeTransformer(self.transformer, self.options, name="transformer")(
            levels[-1], train
        )
        fused = ChannelAttentionFusion(self.options, name="fusion")(tokens, middle)
        return levels, fused
