"""GMMAS: tumour segmentation and molecular typing from one to four sequences.

Source: arXiv 2501.17758 (paper) and the published network's layer list. A patch network (CNN,
transformer, decoder, classifier) is guided by a small U-Net that sees the whole brain: channel
attention fuses the global features into the patch's at the bottleneck and at every coarser level
of the decoder. `configs/gmmas_paper.py` is the published network, `configs/gmmas.py` ours; they
differ in the options only.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from gmmas_jax.errors import UserError
from gmmas_jax.models.decoders import Decoder
from gmmas_jax.models.encoders import BackboneEncoder, PyramidEncoder
from gmmas_jax.models.heads import Classifier, Tasks
from gmmas_jax.models.layers import convolution, normalize_activate, over_voxels
from gmmas_jax.models.options import (
    ClassifierOptions,
    EncoderOptions,
    GlobalOptions,
    LayerOptions,
    TransformerOptions,
    check_choice,
    make_section,
)
from gmmas_jax.models.resize import crop_resample

Outputs = dict[str, Any]
"""What the network returns: see `GMMAS.__call__`."""


class GlobalUNet(nn.Module):
    """The U-Net over the whole brain.

    Attributes:
        unet: Widths, numbers of blocks, channels of the bottleneck.
        num_classes: Labels, background included.
        skip_fusion: Of its decoder.
        options: How layers are built.
    """

    unet: GlobalOptions
    num_classes: int
    skip_fusion: str
    options: LayerOptions

    @nn.compact
    def __call__(self, whole: jax.Array, present: jax.Array, train: bool) -> dict[str, Any]:
        """Segments the whole brain at low resolution and gives its features.

        Args:
            whole: [b D H W s] f32, the brain's box resized to a fixed grid.
            present: [b s] f32, 1 where the case has the sequence.
            train: Whether dropout and batch statistics are active.

        Returns:
            middle: [b D/r H/r W/r c] bottleneck; levels: the decoder's features but the finest,
            coarsest first; segmentation_whole: [b D H W k] f32 logits.
        """
        skips = PyramidEncoder(self.unet, self.options, name="pyramid")(whole, present, train)
        x = normalize_activate(skips[-1], options=self.options, train=train, name="norm_middle")
        for index, width in enumerate(self.unet.middle):
            x = convolution(x, width, options=self.options, name=f"conv_middle_{index}")
        stride = self.unet.stem_stride
        decoder = Decoder(
            self.num_classes, stride, 0, self.skip_fusion, self.options, name="decoder"
        )
        levels, logits, _ = decoder(x, skips, (), train)
        return {"middle": x, "levels": levels, "segmentation_whole": logits}


class GMMAS(nn.Module):
    """The multi-task network; `make_gmmas` builds it from a configuration.

    Attributes:
        tasks: Tasks and their numbers of classes, sorted by name; may be empty.
        num_classes: Labels, background included.
        options: How layers are built.
        encoder_options: The patch network's convolutional encoder.
        transformer_options: The transformer at its bottleneck.
        global_options: The global U-Net.
        classifier_options: The classifier.
        global_alignment: 'crop' samples the global features where the patch lies; 'none' gives
            every patch those of the whole brain, as published.
        deep_supervision: Coarser levels of the decoder that give logits too.
        detail_width: Of the decoder's `DetailHead`; 0 for the published linear head.
        detail_convolutions: Of the same.
        skip_fusion: How both decoders join the encoder's features: 'concat', as published, or
            'msf', the fusion of MU-Net.
    """

    tasks: Tasks
    num_classes: int
    options: LayerOptions
    encoder_options: EncoderOptions
    transformer_options: TransformerOptions
    global_options: GlobalOptions
    classifier_options: ClassifierOptions
    global_alignment: str
    deep_supervision: int
    detail_width: int
    detail_convolutions: int
    skip_fusion: str

    def setup(self) -> None:
        """Names the parts, and so the parameters."""
        self.encoder = BackboneEncoder(self.encoder_options, self.transformer_options, self.options)
        self.decoder = Decoder(
            self.num_classes,
            self.encoder_options.stem_stride,
            self.deep_supervision,
            self.skip_fusion,
            self.options,
            self.detail_width,
            self.detail_convolutions,
        )
        self.global_unet = GlobalUNet(
            self.global_options, self.num_classes, self.skip_fusion, self.options
        )
        if self.tasks:
            self.classifier = Classifier(self.tasks, self.classifier_options, self.options)

    def __call__(
        self,
        image: jax.Array,
        present: jax.Array,
        whole: jax.Array,
        box: jax.Array,
        *,
        train: bool = False,
    ) -> Outputs:
        """Runs the whole network on one patch per case.

        Args:
            image: [b d h w s] f32 patch, z-scored sequences in the order of `SEQUENCES`.
            present: [b s] f32, 1 where the case has the sequence. Voxels of absent sequences,
                in the patch and in the whole volume, change no output bit.
            whole: [b D H W s] f32, the brain's box resized to a fixed grid.
            box: [b 2 3] f32, lower and upper corner of the patch in fractions of the extent of
                the whole volume.
            train: Whether dropout and batch statistics are active.

        Returns:
            segmentation: [b d h w k] f32 logits.
            segmentation_deep: tuple of f32 logits at coarser levels, finest first.
            segmentation_whole: [b D H W k] f32 logits of the global U-Net.
            pooled: {task: [b c] f32} features the heads read.
            tasks: {task: [b classes] f32} logits.

        Raises:
            UserError: If a size is not divisible by the network's strides.
        """
        features = self.global_features(whole, present, train=train)
        outputs = self.patch(image, present, features, box, train=train)
        return {**outputs, "segmentation_whole": features["segmentation_whole"]}

    def global_features(
        self, whole: jax.Array, present: jax.Array, train: bool = False
    ) -> dict[str, Any]:
        """Runs the global U-Net, once per case; arguments as in `__call__`.

        Returns:
            The dictionary of `GlobalUNet.__call__`, to be given to `patch`.
        """
        _check_divisible(whole, self.global_options.reduction, "data.whole")
        return self.global_unet(whole, present, train)

    def patch(
        self,
        image: jax.Array,
        present: jax.Array,
        features: Mapping[str, Any],
        box: jax.Array,
        train: bool = False,
    ) -> Outputs:
        """Runs the patch network; arguments as in `__call__`.

        Args:
            image: [b d h w s] f32.
            present: [b s] f32.
            features: What `global_features` returned, for b cases or for one case whose b
                patches these are.
            box: [b 2 3] f32.
            train: Whether dropout and batch statistics are active.

        Returns:
            The outputs of `__call__` without segmentation_whole.
        """
        reduction = self.encoder_options.reduction
        _check_divisible(image, reduction, "the patch (data.patch, inference.window)")
        grid = tuple(size // reduction for size in image.shape[1:4])
        middle = self._align(features["middle"], box, grid)
        aligned = tuple(
            self._align(level, box, tuple(size * 2**index for size in grid))
            for index, level in enumerate(features["levels"])
        )
        image = jnp.where(over_voxels(present) > 0, image, 0.0)
        levels, bottleneck = self.encoder(image, present, middle, train)
        _, logits, deep = self.decoder(bottleneck, levels, aligned, train, image)
        pooled = {}
        if self.tasks:
            pooled = self.classifier.pool(levels[-1], bottleneck, logits, image)
        return {
            "segmentation": logits,
            "segmentation_deep": deep,
            "pooled": pooled,
            "tasks": self.classify(pooled, train=train),
        }

    def classify(
        self, pooled: Mapping[str, jax.Array], train: bool = False
    ) -> dict[str, jax.Array]:
        """Maps pooled features {task: [b c]} to logits {task: [b classes]} f32.

        With `train` and a 'dropout' key, each call is one Monte-Carlo sample of the heads.
        """
        return self.classifier.classify(pooled, train) if self.tasks else {}

    def _align(self, features: jax.Array, box: jax.Array, grid: tuple[int, ...]) -> jax.Array:
        """Brings global features [b or 1, ..] to a level of the patch: [b *grid c]."""
        batch = box.shape[0]
        features = jnp.broadcast_to(features, (batch, *features.shape[1:]))
        if self.global_alignment == "none":
            if features.shape[1:4] == grid:
                return features
            box = jnp.broadcast_to(jnp.array([[0.0] * 3, [1.0] * 3], jnp.float32), box.shape)
        return crop_resample(features, box, (grid[0], grid[1], grid[2]))


def _check_divisible(x: jax.Array, reduction: int, what: str) -> None:
    size = x.shape[1:4]
    if any(length % reduction for length in size):
        raise UserError(
            f"{what} measures {size} voxels; expected multiples of {reduction} on every axis, the "
            "product of the network's strides."
        )


def make_gmmas(
    *,
    tasks: Mapping[str, int],
    num_classes: int,
    layers: Mapping[str, Any],
    encoder: Mapping[str, Any],
    transformer: Mapping[str, Any],
    global_unet: Mapping[str, Any],
    classifier: Mapping[str, Any],
    global_alignment: str,
    deep_supervision: int,
    detail_width: int,
    detail_convolutions: int,
    skip_fusion: str = "concat",
) -> GMMAS:
    """Builds the network from `config.model`, or from the same section of `config.json`.

    Args:
        tasks: Classes of every task of the classifier; empty for segmentation alone.
        num_classes: Labels, background included.
        layers: Fields of `LayerOptions`.
        encoder: Fields of `EncoderOptions`.
        transformer: Fields of `TransformerOptions`.
        global_unet: Fields of `GlobalOptions`.
        classifier: Fields of `ClassifierOptions`.
        global_alignment: 'crop' or 'none'.
        deep_supervision: Coarser levels of the decoder that give logits too.
        detail_width: Channels per voxel of the head that reads intensities beside features; 0 for
            the published linear head.
        detail_convolutions: Convolutions of that head at the resolution of the image.
        skip_fusion: 'concat' or 'msf'; weights of early versions do not state theirs.

    Returns:
        The network, without parameters.

    Raises:
        UserError: If a field is missing, unknown or impossible.
    """
    encoder_options = make_section(EncoderOptions, field="model.encoder", values=encoder)
    coarser = len(encoder_options.widths) - 1
    if not 0 <= deep_supervision <= coarser:
        raise UserError(
            f"model.deep_supervision is {deep_supervision}; expected 0 to {coarser}, the levels of "
            "model.encoder.widths but the finest."
        )
    global_options = make_section(GlobalOptions, field="model.global_unet", values=global_unet)
    if len(global_options.widths) != coarser + 1:
        raise UserError(
            f"model.global_unet.widths has {len(global_options.widths)} levels and "
            f"model.encoder.widths {coarser + 1}; expected the same number, level by level fused."
        )
    check_choice("global_alignment", global_alignment)
    check_choice("skip_fusion", skip_fusion)
    return GMMAS(
        tasks=tuple(sorted((name, int(classes)) for name, classes in tasks.items())),
        num_classes=num_classes,
        options=make_section(LayerOptions, field="model.layers", values=layers),
        encoder_options=encoder_options,
        transformer_options=make_section(
            TransformerOptions, field="model.transformer", values=transformer
        ),
        global_options=global_options,
        classifier_options=make_section(
            ClassifierOptions, field="model.classifier", values=classifier
        ),
        global_alignment=global_alignment,
        deep_supervision=deep_supervision,
        detail_width=detail_width,
        detail_convolutions=detail_convolutions,
        skip_fusion=skip_fusion,
    )
