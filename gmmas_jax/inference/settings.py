"""The config's `inference` section."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from gmmas_jax.clinical.abstention import AbstentionRule
from gmmas_jax.errors import UserError


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
        min_island_ml: Separate pieces of tumour below this size are dropped; 0 keeps all.
        min_tumour_ml: A window with less tumour than this says nothing about the tasks.
    """

    window: tuple[int, int, int]
    overlap: float
    flips: bool
    batch_size: int = 1
    samples: int = 32
    seed: int = 0
    min_island_ml: float = 0.0
    min_tumour_ml: float = AbstentionRule.min_tumour_ml

    def __post_init__(self) -> None:
        checks = {
            "window": (len(self.window) == 3 and min(self.window) > 0, "three lengths above 0"),
            "overlap": (0 <= self.overlap < 1, "a number from 0 to below 1"),
            "batch_size": (self.batch_size > 0, "at least 1"),
            "samples": (self.samples >= 0, "0 or more"),
            "min_island_ml": (self.min_island_ml >= 0, "0 or more"),
        }
        for name, (fits, expected) in checks.items():
            if not fits:
                raise UserError(f"inference.{name} is {getattr(self, name)}; expected {expected}.")

    @classmethod
    def from_config(cls, section: Mapping[str, Any]) -> "InferenceSettings":
        """Builds the settings from the config's section, lists allowed.

        Raises:
            UserError: If a field is missing, unknown or has an impossible value.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(section) - set(known))
        missing = [name for name in ("window", "overlap", "flips") if name not in section]
        if unknown or missing:
            raise UserError(
                f"inference has unknown fields {unknown} and lacks {missing}; expected some of "
                f"{', '.join(known)}."
            )
        return cls(**{**section, "window": tuple(section["window"])})
