"""The config's `inference` section."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.clinical.abstention import AbstentionRule
from gmmas_jax.errors import UserError
from gmmas_jax.inference.postprocessing import Cleaning


@dataclass(frozen=True, kw_only=True)
class InferenceSettings:
    """How a case is predicted.

    Attributes:
        window: d, h, w of the sliding window in voxels; what the network is compiled for.
        overlap: Fraction of a window's length that neighbours share.
        flips: Also predict the case mirrored from left to right, and average. No other axis:
            brains upside down do not occur.
        batch_size: Windows at a time.
        samples: Monte-Carlo dropout passes through the heads; 0 estimates no uncertainty.
        seed: Of the dropout.
        min_tumour_ml: A window with less tumour than this says nothing about the tasks.
        substitutes: What is shown in the place of a missing sequence to networks that cannot do
            without, such as "t2f:t2w" for T2 as FLAIR. See `substitutes_of`.
        cleaning: Repairs of the outline; its settings are fields of the section like the others.
    """

    window: tuple[int, int, int]
    overlap: float
    flips: bool
    batch_size: int = 1
    samples: int = 32
    seed: int = 0
    min_tumour_ml: float = AbstentionRule.min_tumour_ml
    substitutes: tuple[str, ...] = ()
    cleaning: Cleaning = field(default_factory=Cleaning)

    def __post_init__(self) -> None:
        checks = {
            "window": (len(self.window) == 3 and min(self.window) > 0, "three lengths above 0"),
            "overlap": (0 <= self.overlap < 1, "a number from 0 to below 1"),
            "batch_size": (self.batch_size > 0, "at least 1"),
            "samples": (self.samples >= 0, "0 or more"),
        }
        substitutes_of(self.substitutes)
        for name, (fits, expected) in checks.items():
            if not fits:
                raise UserError(f"inference.{name} is {getattr(self, name)}; expected {expected}.")

    @classmethod
    def from_config(cls, section: Mapping[str, Any]) -> "InferenceSettings":
        """Builds the settings from the config's section, lists allowed.

        Raises:
            UserError: If a field is missing, unknown or has an impossible value.
        """
        own = [own.name for own in fields(cls) if own.name != "cleaning"]
        known = [*own, *Cleaning.names()]
        unknown = sorted(set(section) - set(known))
        missing = [name for name in ("window", "overlap", "flips") if name not in section]
        if unknown or missing:
            raise UserError(
                f"inference has unknown fields {unknown} and lacks {missing}; expected some of "
                f"{', '.join(known)}."
            )
        values = {name: section[name] for name in own if name in section}
        values |= {"window": tuple(section["window"]), "cleaning": Cleaning.of(section)}
        values["substitutes"] = tuple(section.get("substitutes", ()))
        return cls(**values)


def substitutes_of(texts: Sequence[str]) -> dict[str, str]:
    """Returns the sequence that is needed to the one shown where it is missing.

    Args:
        texts: Each "needed:shown", names of `SEQUENCES`.

    Raises:
        UserError: If one is none.
    """
    found = {}
    for text in texts:
        needed, _, shown = text.partition(":")
        if not {needed, shown} <= set(SEQUENCES) or needed == shown:
            raise UserError(
                f"inference.substitutes has {text!r}; expected two of {', '.join(SEQUENCES)} with "
                "a colon between, such as t2f:t2w."
            )
        found[needed] = shown
    return found
