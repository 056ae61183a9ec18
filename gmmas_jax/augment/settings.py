"""The config's `augment` section as checked settings."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from gmmas_jax.errors import UserError

MAX_DISPLACEMENT = 0.4
"""Of an elastic node, in node distances. Below 1 / 2.48 a cubic B-spline cannot fold (Choi and Lee,
"Injectivity conditions of 2D and 3D uniform cubic B-spline functions", 2000)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turn:
    """Rotation: probability per example; each of three angles is within ± `degrees`."""

    probability: float
    degrees: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shear:
    """Shear: probability per example; each of three terms is within ± `strength`."""

    probability: float
    strength: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Elastic:
    """Elastic deformation.

    Attributes:
        probability: Per example.
        displacement: Largest shift of a node along an axis, in node distances; up to 0.4.
        nodes: Along each axis of the brain box, its borders included.
    """

    probability: float
    displacement: float
    nodes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bias:
    """Bias field.

    Attributes:
        probability: Per example.
        strength: Largest standard deviation of the logarithm of the field at its nodes.
        nodes: Along each axis of the brain box, its borders included.
    """

    probability: float
    strength: float
    nodes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noise:
    """Noise: probability per example; standard deviation, per sequence, up to `highest`."""

    probability: float
    highest: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Range:
    """A number between two others, with a probability per example."""

    probability: float
    lowest: float
    highest: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceRange(Range):
    """As `Range`; in a chosen example each sequence is changed with `sequence_probability`."""

    sequence_probability: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stages:
    """What is drawn per example. See `patch.make_augmentation` and docs/reference/augmentation.md.

    Lengths (`blur`, `low_resolution`, `thick_slices`) are in voxels of the patch.
    """

    sequence_dropout: float
    rotation: Turn
    scaling: Range
    shear: Shear
    elastic: Elastic
    bias: Bias
    blur: SequenceRange
    low_resolution: SequenceRange
    thick_slices: SequenceRange
    gaussian_noise: Noise
    rician_noise: Noise
    brightness: Range
    contrast: Range
    inverted_gamma: Range
    natural_gamma: Range

    @property
    def any(self) -> bool:
        """Whether anything is on."""
        return self.sequence_dropout > 0 or any(
            is_on(getattr(self, field.name)) for field in dataclasses.fields(self)[1:]
        )


def is_on(stage: Any) -> bool:
    """Whether a stage can be drawn and then does something."""
    strengths = [getattr(stage, name, 1.0) for name in ("degrees", "strength", "displacement")]
    if isinstance(stage, Noise):
        strengths.append(stage.highest)
    if isinstance(stage, SequenceRange):
        strengths.append(stage.sequence_probability)
    return stage.probability > 0 and all(strengths)


def make_stages(*, sequence_dropout: float, **sections: Mapping[str, Any]) -> Stages:
    """Checks the part of a config's `augment` section that is drawn per example.

    Args:
        sequence_dropout: Probability of hiding each sequence; below 1.
        **sections: Those of `Stages`, each a mapping of its fields.

    Raises:
        UserError: If a number is impossible.
        TypeError: On a name that does not exist.
    """
    if not 0 <= sequence_dropout < 1:
        raise _wrong("sequence_dropout", sequence_dropout, "a share from 0 to below 1")
    kinds = {field.name: field.type for field in dataclasses.fields(Stages)[1:]}
    stages: dict[str, Any] = {}
    for name, values in sections.items():
        if name not in kinds:
            raise TypeError(f"augment has no section {name!r}")
        stages[name] = kinds[name](**values)  # type: ignore[operator]
        _check(name, stages[name])
    return Stages(sequence_dropout=sequence_dropout, **stages)


def _check(name: str, stage: Any) -> None:
    """Checks one section."""
    for field in ("probability", "sequence_probability"):
        if not 0 <= getattr(stage, field, 0) <= 1:
            raise _wrong(f"{name}.{field}", getattr(stage, field), "a share between 0 and 1")
    if isinstance(stage, Turn) and not 0 <= stage.degrees <= 180:
        raise _wrong(f"{name}.degrees", stage.degrees, "an angle from 0 to 180")
    if isinstance(stage, (Shear, Bias)) and not 0 <= stage.strength <= 1:
        raise _wrong(f"{name}.strength", stage.strength, "a number between 0 and 1")
    if isinstance(stage, (Elastic, Bias)) and not 2 <= stage.nodes <= 32:
        raise _wrong(f"{name}.nodes", stage.nodes, "a number from 2 to 32")
    if isinstance(stage, Elastic) and not 0 <= stage.displacement <= MAX_DISPLACEMENT:
        raise _wrong(
            f"{name}.displacement",
            stage.displacement,
            f"a number between 0 and {MAX_DISPLACEMENT}, beyond which space may fold",
        )
    if isinstance(stage, Noise) and not 0 <= stage.highest <= 1:
        raise _wrong(f"{name}.highest", stage.highest, "a number between 0 and 1")
    if isinstance(stage, Range):
        least, most = _LIMITS[name]
        if not least <= stage.lowest <= stage.highest <= most:
            raise _wrong(
                name, (stage.lowest, stage.highest), f"lowest ≤ highest, from {least} to {most}"
            )


_LIMITS = {
    "scaling": (0.25, 4.0),
    "blur": (0.0, 5.0),
    "low_resolution": (1.0, 8.0),
    "thick_slices": (1.0, 16.0),
    "brightness": (0.1, 10.0),
    "contrast": (0.1, 10.0),
    "inverted_gamma": (0.1, 10.0),
    "natural_gamma": (0.1, 10.0),
}


def _wrong(name: str, found: Any, expected: str) -> UserError:
    return UserError(f"augment.{name} is {found}; expected {expected}.")
