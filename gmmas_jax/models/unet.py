"""U-Net on slices, and MU-Net: the same with its skips fused instead of concatenated.

Sources: U-Net, Ronneberger et al. 2015, MICCAI; MU-Net, Zhang and Chen, "Brain Glioma Segmentation
Model based on Multi-scale Information Fusion". A slice knows nothing of its neighbours: a volume is
a batch of slices, so that training, prediction and export handle both kinds of network alike.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.errors import UserError
from gmmas_jax.models.conv import Conv
from gmmas_jax.models.fusion import MultiScaleFusion
from gmmas_jax.models.layers import (
    bias_initializer,
    dense,
    kernel_initializer,
    normalize,
    over_voxels,
)
from gmmas_jax.models.options import LayerOptions, check_choice, make_section
from gmmas_jax.models.resize import depth_to_space, double_linear

AXIAL = 3
"""Axis of a batch [b x y z s] of volumes along which its axial slices lie."""


class ConvPair(nn.Module):
    """Twice a 3x3 convolution, norm, ReLU.

    Attributes:
        width: Channels of the result.
        options: How layers are built.
    """

    width: int
    options: LayerOptions

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [b h w c] to [b h w width]."""
        for index in range(2):
            x = Conv(
                self.width,
                kernel_size=(3, 3),
                use_bias=False,  # The norm has one.
                dtype=self.options.compute_dtype,
                kernel_init=kernel_initializer(self.options, fan_in=9 * x.shape[-1]),
                name=f"conv_{index}",
            )(x)
            x = normalize(x, options=self.options, train=train, name=f"norm_{index}")
            x = nn.relu(x)
        return x


class Widen(nn.Module):
    """Doubles the resolution, as a rule at half the width: a transposed 2x2 convolution.

    Attributes:
        width: Channels of the result.
        options: How layers are built; `upsample` 'resize' interpolates, then maps the channels.
    """

    width: int
    options: LayerOptions

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [b h w c] to [b 2h 2w width]."""
        width = self.width
        if self.options.upsample == "resize":
            return double_linear(dense(x, width, options=self.options, name="narrow"))
        fan_in = 4 * width  # PyTorch counts a transposed kernel's outputs
        init = kernel_initializer(self.options, fan_in=fan_in, gain=4.0)
        kernel = self.param("kernel", init, (2, 2, x.shape[-1], width), jnp.float32)
        init = bias_initializer(self.options, fan_in=fan_in)
        bias = self.param("bias", init, (width,), jnp.float32)
        matrix = kernel.transpose(2, 0, 1, 3).reshape(x.shape[-1], 4 * width).astype(x.dtype)
        return depth_to_space(x @ matrix, 2) + over_voxels(bias[None], rank=2).astype(x.dtype)


class SliceUNet(nn.Module):
    """The U-Net of images.

    Attributes:
        num_classes: Labels, background included.
        widths: Channels of each level, finest first.
        fusion: 'concat' as in U-Net, or 'msf', which makes it MU-Net.
        options: How layers are built.
    """

    num_classes: int
    widths: tuple[int, ...]
    fusion: str
    options: LayerOptions

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [b h w s] to logits [b h w k] f32."""
        x = x.astype(self.options.compute_dtype)
        skips = []
        for level, width in enumerate(self.widths):
            if level > 0:
                x = nn.max_pool(x, (2, 2), strides=(2, 2))
            x = _pair(width, self.options, f"down_{level}")(x, train)
            skips.append(x)
        for level in range(len(self.widths) - 2, -1, -1):
            x = Widen(self.widths[level], self.options, name=f"widen_{level}")(x)
            if self.fusion == "msf":
                x = MultiScaleFusion(self.options, name=f"fusion_{level}")(skips[level], x)
            else:
                x = jnp.concatenate([skips[level], x], axis=-1)
            x = _pair(self.widths[level], self.options, f"up_{level}")(x, train)
        return dense(x, self.num_classes, options=self.options, name="head", dtype=jnp.float32)


def _pair(width: int, options: LayerOptions, name: str) -> ConvPair:
    kind = nn.remat(ConvPair, static_argnums=(2,)) if options.remat == "all" else ConvPair
    return kind(width, options, name=name)


class UNet(nn.Module):
    """A `SliceUNet` over the axial slices of a volume, with the face of `models.gmmas.GMMAS`.

    Attributes:
        sequences: Names of the sequences that it sees, in the order of `SEQUENCES`.
        num_classes: Labels, background included.
        widths: Of the `SliceUNet`, as the next.
        fusion: See there.
        options: How layers are built.
    """

    sequences: tuple[str, ...]
    num_classes: int
    widths: tuple[int, ...]
    fusion: str
    options: LayerOptions

    def setup(self) -> None:
        """Names the parts, and so the parameters."""
        self.unet = SliceUNet(self.num_classes, self.widths, self.fusion, self.options)

    def __call__(
        self,
        image: jax.Array,
        present: jax.Array,
        whole: jax.Array,
        box: jax.Array,
        *,
        train: bool = False,
    ) -> dict[str, Any]:
        """Segments every axial slice by itself.

        Args:
            image: [b x y z s] f32, z-scored sequences in the order of `SEQUENCES`.
            present: [b s] f32, 1 where the case has the sequence.
            whole: Not looked at, as `box`.
            box: Not looked at.
            train: Whether batch statistics are active.

        Returns:
            segmentation: [b x y z k] f32 logits; the other outputs of GMMAS, empty.

        Raises:
            UserError: If a slice's size is not divisible by the network's strides.
        """
        return self.patch(image, present, {}, box, train=train)

    def global_features(
        self, whole: jax.Array, present: jax.Array, train: bool = False
    ) -> dict[str, Any]:
        """Returns nothing: no slice looks beyond itself."""
        return {}

    def patch(
        self,
        image: jax.Array,
        present: jax.Array,
        features: Mapping[str, Any],
        box: jax.Array,
        train: bool = False,
    ) -> dict[str, Any]:
        """As `__call__`."""
        stride = 2 ** (len(self.widths) - 1)
        if any(length % stride for length in image.shape[1:AXIAL]):
            raise UserError(
                f"the slices (data.patch, inference.window) measure {image.shape[1:AXIAL]} pixels; "
                f"expected multiples of {stride} on both axes, the product of the strides."
            )
        image = jnp.where(over_voxels(present) > 0, image, 0.0)
        own = image[..., np.array([SEQUENCES.index(name) for name in self.sequences])]
        slices = jnp.moveaxis(own, AXIAL, 1)
        logits = self.unet(slices.reshape(-1, *slices.shape[2:]), train)
        logits = logits.reshape(*slices.shape[:-1], self.num_classes)
        return {
            "segmentation": jnp.moveaxis(logits, 1, AXIAL),
            "segmentation_deep": (),
            "pooled": {},
            "tasks": {},
        }

    def classify(self, pooled: Mapping[str, jax.Array], train: bool = False) -> dict[str, Any]:
        """Returns nothing: it has no task."""
        return {}


def make_unet(
    *,
    sequences: Sequence[str],
    num_classes: int,
    widths: Sequence[int],
    fusion: str,
    layers: Mapping[str, Any],
) -> UNet:
    """Builds the network from `config.model`, or from the same section of `config.json`.

    Args:
        sequences: Names of `SEQUENCES`, one or more; they are read in that order.
        num_classes: Labels, background included.
        widths: Channels of each level, finest first; 64 to 1024 as published.
        fusion: 'concat' or 'msf'.
        layers: Fields of `LayerOptions`.

    Raises:
        UserError: If a field is missing, unknown or impossible.
    """
    unknown = sorted(set(sequences) - set(SEQUENCES))
    if unknown or not sequences:
        raise UserError(
            f"model.sequences is {tuple(sequences)}; expected one or more of "
            f"{', '.join(SEQUENCES)}."
        )
    if len(widths) < 2 or min(widths) < 1:
        raise UserError(
            f"model.widths is {tuple(widths)}; expected two or more levels of 1 or more."
        )
    check_choice("fusion", fusion)
    return UNet(
        sequences=tuple(name for name in SEQUENCES if name in sequences),
        num_classes=num_classes,
        widths=tuple(widths),
        fusion=fusion,
        options=make_section(LayerOptions, field="model.layers", values=layers),
    )
