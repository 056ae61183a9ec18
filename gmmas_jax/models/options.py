"""The hyper-parameters of a GMMAS network, as frozen dataclasses that are checked when built.

Every section of `config.model` becomes one of these classes. No field has a default: a
configuration says everything, and a stored `config.json` rebuilds the very same network.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import jax.numpy as jnp

from gmmas_jax.errors import UserError

Section = TypeVar("Section")

_CHOICES: dict[str, tuple[str, ...]] = {
    "dtype": ("float32", "bfloat16"),
    "norm": ("batch", "group"),
    "initializer": ("torch", "he"),
    "remat": ("none", "transformer", "all"),
    "upsample": ("transpose", "resize"),
    "positions": ("learned", "sincos"),
    "attention": ("xla", "cudnn"),
    "activation": ("none", "relu", "gelu"),
    "padding": ("valid", "same"),
    "global_alignment": ("none", "crop"),
    "fusion": ("concat", "msf"),
    "skip_fusion": ("concat", "msf"),
}


def _require(condition: bool, field: str, value: Any, expected: str) -> None:
    if not condition:
        raise UserError(f"{field} is {value!r}; expected {expected}.")


def check_choice(field: str, value: str) -> None:
    """Raises a UserError if `value` is not among the words known for the field."""
    _require(value in _CHOICES[field], field, value, f"one of {', '.join(_CHOICES[field])}")


@dataclasses.dataclass(frozen=True)
class LayerOptions:
    """How every layer of the network is built.

    Attributes:
        dtype: Type in which convolutions and matrix products are computed. Parameters, the
            statistics of norms, softmax and logits are float32 whatever is chosen.
        norm: 'batch' (statistics over the global batch) or 'group' (independent of the batch).
        group_size: Channels in a group of the group norm; narrower layers have one group.
        initializer: 'torch' (PyTorch's default: kernel and bias uniform within 1/sqrt(fan in))
            or 'he' (normal kernels, zero biases).
        remat: What is computed again in the backward pass instead of kept in memory: 'none',
            'transformer' or 'all' (residual blocks of the CNNs too).
        upsample: 'transpose' (learned 2x2x2 kernels) or 'resize' (trilinear, no parameters).
    """

    dtype: str
    norm: str
    group_size: int
    initializer: str
    remat: str
    upsample: str

    def __post_init__(self) -> None:
        for name in ("dtype", "norm", "initializer", "remat", "upsample"):
            check_choice(name, getattr(self, name))
        _require(self.group_size > 0, "group_size", self.group_size, "at least 1")

    @property
    def compute_dtype(self) -> Any:
        """The dtype of activations."""
        return jnp.dtype(self.dtype)


@dataclasses.dataclass(frozen=True)
class EncoderOptions:
    """The convolutional encoder of the backbone or of the global U-Net.

    Attributes:
        widths: Channels of each level, finest first.
        blocks: Residual blocks of each level.
        downsample_branches: Convolutions averaged at each down-sampling. They are linear in the
            same input, so that 4 (as published) and 1 are the same function; the steps of an
            optimizer differ.
        stem_stride: Side of the voxel cubes that the stem folds into channels; 1 keeps them.
        stem_dropout: Rate at which whole channels of a sequence's stem are dropped in training.
    """

    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    downsample_branches: int
    stem_stride: int
    stem_dropout: float

    def __post_init__(self) -> None:
        _require(len(self.widths) >= 2, "widths", self.widths, "two or more levels")
        expected = f"one number per level of widths ({len(self.widths)})"
        _require(len(self.blocks) == len(self.widths), "blocks", self.blocks, expected)
        for name in ("downsample_branches", "stem_stride"):
            value = getattr(self, name)
            _require(value >= 1, name, value, "at least 1")

    @property
    def reduction(self) -> int:
        """Voxels along an axis for one token: the product of all strides."""
        return int(self.stem_stride * 2 ** (len(self.widths) - 1))


@dataclasses.dataclass(frozen=True)
class GlobalOptions(EncoderOptions):
    """The global U-Net: an encoder, the channels of its bottleneck, and its decoder.

    Attributes:
        middle: Channels after each of the two convolutions at the bottleneck.
    """

    middle: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class TransformerOptions:
    """The transformer at the bottleneck of the backbone.

    Attributes:
        dim: Channels of a token.
        layers: Transformer blocks.
        heads: Attention heads.
        mlp_dim: Width of the hidden layer of the feed-forward part.
        positions: 'learned' (zeros at first; fixes the token grid) or 'sincos' (any grid).
        attention: Implementation given to `jax.nn.dot_product_attention`: 'xla' anywhere, or
            'cudnn' (flash attention) on NVIDIA GPUs in bfloat16.
        dropout: Rate on embeddings, branches and feed-forward activations.
        attention_dropout: Rate on attention weights. Above 0, training computes the weights
            explicitly, which the fused implementations avoid.
    """

    dim: int
    layers: int
    heads: int
    mlp_dim: int
    positions: str
    attention: Literal["xla", "cudnn"]
    dropout: float
    attention_dropout: float

    def __post_init__(self) -> None:
        for name in ("positions", "attention"):
            check_choice(name, getattr(self, name))
        expected = f"a multiple of heads ({self.heads})"
        _require(self.dim % self.heads == 0, "dim", self.dim, expected)


@dataclasses.dataclass(frozen=True)
class ClassifierOptions:
    """The cross-task classifier.

    Attributes:
        local_width: Channels that each task takes from the last convolutional level.
        deep_width: Channels that each task takes from the fused bottleneck.
        mixed_width: Channels of each task after mixing the features of all tasks.
        hidden: Widths of the hidden layers of each task's head.
        activation: Non-linearity between the layers of the head: 'none' (as published, an
            affine map in the end), 'relu' or 'gelu'.
        padding: 'valid' (as published) or 'same', of the two spatial convolutions.
        dropout: Rate on the pooled features.
        evidence: Whether the heads also read `heads.tumour_evidence`: what the network itself
            segmented, measured (not in the published network).
        normalize: Whether the pooled features pass a layer norm before the head (not published):
            maxima of a residual stream are large at first, and so would be the tasks' gradients.
    """

    local_width: int
    deep_width: int
    mixed_width: int
    hidden: tuple[int, ...]
    activation: str
    padding: str
    dropout: float
    evidence: bool
    normalize: bool

    def __post_init__(self) -> None:
        for name in ("activation", "padding"):
            check_choice(name, getattr(self, name))


def make_section(kind: type[Section], *, field: str, values: Mapping[str, Any]) -> Section:
    """Builds one section of options from a plain mapping.

    Args:
        kind: One of the dataclasses of this module.
        field: What messages call the section, such as 'model.transformer'.
        values: The section as it stands in a configuration or in `config.json` (lists allowed).

    Raises:
        UserError: If a field is missing, unknown or has an impossible value.
    """
    known = [item.name for item in dataclasses.fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known))
    missing = [name for name in known if name not in values]
    if unknown or missing:
        raise UserError(
            f"{field} has unknown fields {unknown} and lacks {missing}; "
            f"expected exactly: {', '.join(known)}."
        )
    try:
        return kind(**{name: freeze(values[name]) for name in known})
    except UserError as error:
        raise UserError(f"{field}.{error}") from None


def freeze(value: Any) -> Any:
    """Turns the lists of JSON into tuples, which modules can hash; leaves the rest alone."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(freeze(item) for item in value)
    return value
