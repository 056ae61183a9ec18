"""What an export will write, decided before anything is written."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gmmas_jax.cases.manifest import Row
from gmmas_jax.cases.sequences import SEQUENCES


@dataclass(frozen=True, kw_only=True)
class PlannedCase:
    """Where the files of one case go.

    Attributes:
        row: Of the manifest.
        name: Of the case in the layout.
        images: Sequence to target, relative to the output folder, with `/`.
        filled: Sequences among them that the case does not have: volumes of zeros.
        seg: Target of the mask, or None.
        convention: Of the mask that is written.
    """

    row: Row
    name: str
    images: Mapping[str, str]
    filled: tuple[str, ...] = ()
    seg: str | None = None
    convention: str = "brats2023"

    @property
    def targets(self) -> list[str]:
        """All files of the case."""
        return [*self.images.values(), *([] if self.seg is None else [self.seg])]


@dataclass
class Plan:
    """What goes where, in one layout.

    Attributes:
        cases: In the order of the manifest.
        finish: Called with the output folder and the cases that were written; writes what
            describes them.
        refused: Cases that the layout cannot hold, one line each.
        notes: What the user should know.
    """

    cases: list[PlannedCase]
    finish: Callable[[Path, Sequence[PlannedCase]], None]
    refused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def used_sequences(rows: Iterable[Row]) -> tuple[str, ...]:
    """Returns the sequences that any of the cases has, in our order."""
    present = {name for row in rows for name in row.images}
    return tuple(name for name in SEQUENCES if name in present)


def common_convention(rows: Iterable[Row]) -> str:
    """Returns the convention for all masks: with the cavity only where a case may have one."""
    after_treatment = any(row.seg and row.label_convention == "brats2024" for row in rows)
    return "brats2024" if after_treatment else "brats2023"


def lacking(row: Row, channels: Sequence[str], layout: str) -> str:
    """Returns the refusal of a case that lacks a channel."""
    missing = [name for name in channels if name not in row.images]
    return (
        f"{row.case_id}: has no {', '.join(missing)}; {layout} expects {', '.join(channels)} of "
        "every case. Leave it out, or let --fill-missing write volumes of zeros."
    )


def ending(path: str | Path) -> str:
    """Returns `.nii.gz` or `.nii`."""
    return ".nii.gz" if str(path).lower().endswith(".gz") else ".nii"


class Names:
    """Gives each case a name of its own that file systems and programs take."""

    def __init__(self, allowed: str = r"\w.-", replacement: str = "_"):
        """Prepares.

        Args:
            allowed: Characters that may stay, as in a regular expression's set.
            replacement: For all others.
        """
        self._wrong = re.compile(f"[^{allowed}]+")
        self._replacement = replacement
        self._taken: set[str] = set()

    def of(self, text: str) -> str:
        """Returns a name like the text, not given before (letters' case does not count)."""
        name = self._wrong.sub(self._replacement, text).lstrip("-._") or "case"
        unique, number = name, 2
        while unique.casefold() in self._taken:
            unique = f"{name}x{number}"
            number += 1
        self._taken.add(unique.casefold())
        return unique
