"""What can be chosen, and what is read of a case before any work."""

from dataclasses import asdict, dataclass
from typing import Any

from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.errors import UserError

METHODS = ("auto", "atlas", "hd-bet", "synthstrip", "none")
FITS = ("rigid", "affine")
NORMALISATIONS = ("none", "zscore", "percentile")
ORDER = ("t1c", "t1n", "t2f", "t2w")
"""Which sequence the others are brought to, the first that is there."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How cases are preprocessed.

    Attributes:
        reference: The sequence that others are brought to where it is there; then `ORDER`.
        brain_extraction: A name of `METHODS`.
        fit: `rigid` keeps the patient's size, as BraTS does; `affine` gives the brain the atlas's.
        spacing_mm: Of the results.
        n4_output: Whether results are divided by their bias field.
        normalise: A name of `NORMALISATIONS`, inside the brain.
    """

    reference: str = "t1c"
    brain_extraction: str = "auto"
    fit: str = "rigid"
    spacing_mm: float = 1.0
    n4_output: bool = False
    normalise: str = "none"

    def __post_init__(self) -> None:
        """Refuses what is no choice."""
        choices = {
            "reference": SEQUENCES,
            "brain_extraction": METHODS,
            "fit": FITS,
            "normalise": NORMALISATIONS,
        }
        for field, allowed in choices.items():
            if getattr(self, field) not in allowed:
                raise UserError(
                    f"{field} is {getattr(self, field)!r}; expected one of {', '.join(allowed)}."
                )
        if not 0.5 <= self.spacing_mm <= 5.0:
            raise UserError(f"spacing is {self.spacing_mm:g} mm; expected 0.5 to 5.")

    def record(self) -> dict[str, Any]:
        """Returns the settings for JSON."""
        return asdict(self)

    def pick_reference(self, present: list[str]) -> str:
        """Returns the sequence that the others are brought to."""
        return next(name for name in (self.reference, *ORDER) if name in present)
