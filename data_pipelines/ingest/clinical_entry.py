"""One row of a clinical table, and how its cells are read."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from data_pipelines.ingest.clinical_cns5 import Diagnosis, Integrated, read_diagnosis
from data_pipelines.ingest.clinical_values import (
    Survival,
    UnknownSpelling,
    is_missing,
    read_number,
    read_survival,
    read_word,
)
from data_pipelines.ingest.tables import Table
from gmmas_jax.errors import UserError

Value = TypeVar("Value")

VALUE_COLUMNS = (
    *("timepoint", "idh", "codel_1p19q", "histology", "grade", "mgmt", "outcome"),
    *("age", "sex", "survival_days", "survival_event", "site", "split"),
)
"""Columns of the manifest that a clinical table can fill."""

EXAM_COLUMNS = ("timepoint", "outcome", "age", "survival_days", "survival_event")
"""Those that belong to one exam, and not to the patient for good."""


@dataclass(frozen=True)
class Entry:
    """One row of a clinical table, in the words of the manifest.

    Attributes:
        case_id: The id as written, for messages and for a manifest made of the table alone.
        patient_id: Whose exam it is; None where the table has no other name than the exam's.
        case_names: All names of the exam, as written.
        patient_names: All names of the patient, as written.
        values: Column of the manifest to value; what is not known has no entry.
        line: Line of the file.
        of_exam: Whether the row speaks of one exam of possibly several.
    """

    case_id: str
    patient_id: str | None
    case_names: tuple[str, ...]
    patient_names: tuple[str, ...]
    values: dict[str, str | float | int]
    line: int
    of_exam: bool = False


@dataclass(frozen=True)
class ClinicalTable:
    """A clinical table in the words of the manifest.

    Attributes:
        path: The file.
        kind: What table it is.
        entries: Its rows; several may be of one exam or patient.
        notes: What was noticed and accepted, one line each.
        renames: Whether its patient ids replace those of a manifest.
    """

    path: Path
    kind: str
    entries: list[Entry]
    notes: list[str]
    renames: bool = False


@dataclass
class Notes:
    """What was noticed while a table was read; equal remarks are told once.

    Attributes:
        lines: Remarks about the file or one line of it.
        counted: Remarks about many rows, with how many.
        by_id: Remarks about patients, with their ids.
    """

    lines: list[str] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)
    by_id: dict[str, list[str]] = field(default_factory=dict)

    def of(self, name: str, remark: str) -> None:
        """Notes a remark about one patient."""
        self.by_id.setdefault(remark, []).append(name)

    def all(self) -> list[str]:
        """Returns one line for each remark."""
        return [
            *self.lines,
            *(f"{text} ({count} rows)" for text, count in self.counted.items()),
            *(f"{remark}: {', '.join(names)}" for remark, names in self.by_id.items()),
        ]


def make_entry(
    cells: "Cells",
    case_id: str,
    patient_id: str | None,
    values: dict[str, Any],
    *,
    case_names: tuple[str, ...] = (),
    patient_names: tuple[str, ...] = (),
    of_exam: bool = False,
) -> Entry:
    """Returns an entry; names that are not given are the ids themselves."""
    return Entry(
        case_id=case_id,
        patient_id=patient_id,
        case_names=case_names or (case_id,),
        patient_names=patient_names or (patient_id or case_id,),
        values={column: value for column, value in values.items() if value is not None},
        line=cells.line,
        of_exam=of_exam,
    )


def column_key(name: str) -> str:
    """Returns a column's name for comparison: small letters and digits alone."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def id_key(name: str) -> str:
    """Returns an id for comparison.

    Letters' case, separators, zeros in front of numbers, `sub-`, `ses-` and a `_nifti` at the end
    do not matter; everything else does: a part of an id is never enough.
    """
    parts = re.findall(r"[a-z0-9]+", name.casefold().replace("sub-", "").replace("ses-", ""))
    if len(parts) > 1 and parts[-1] == "nifti":
        parts.pop()
    return "-".join(part.lstrip("0") or "0" if part.isdigit() else part for part in parts)


class Cells:
    """The cells of one row, read by the written table of values.

    Args:
        table: The table.
        index: The row.
        columns: Comparison key to the name of the column in the file.
        lenient: Whether an unknown spelling becomes a missing value with a note.
        notes: Receives what was noticed.
    """

    def __init__(
        self, table: Table, index: int, columns: dict[str, str], *, lenient: bool, notes: Notes
    ) -> None:
        self.line = table.lines[index]
        self.notes = notes
        self._path = table.path
        self._row = table.rows[index]
        self._columns = columns
        self._lenient = lenient

    def has(self, key: str) -> bool:
        """Returns whether the table has a column, by its comparison key."""
        return key in self._columns

    def text(self, *keys: str) -> str:
        """Returns the cell of the first of these columns that is there; "" without any."""
        for key in keys:
            if key in self._columns:
                return self._row[self._columns[key]]
        return ""

    def known(self, *keys: str) -> str:
        """As `text`, with "" where the cell spells that the value is not known."""
        text = self.text(*keys)
        return "" if is_missing(text) else text

    def required(self, *keys: str) -> str:
        """Returns an id.

        Raises:
            UserError: If the cell is empty or spells that the value is not known.
        """
        text = self.known(*keys)
        if not text:
            raise UserError(
                f"{self._where(*keys)}: {self.text(*keys)!r}; expected an id. Fill it in, or "
                "remove the row."
            )
        return text

    def word(self, column: str, *keys: str, flag: bool = False) -> str | None:
        """Returns a class of the manifest's column; see `read_word`."""
        return self._read(lambda text: read_word(column, text, flag=flag), *keys)

    def number(self, column: str, *keys: str) -> float | None:
        """Returns a number for the manifest's column; see `read_number`."""
        return self._read(lambda text: read_number(column, text), *keys)

    def event(self, *keys: str) -> int | None:
        """Returns 1 for a death, 0 for a patient last seen alive."""
        word = self.word("survival_event", *keys)
        return None if word is None else int(word)

    def survival(self, *keys: str) -> Survival:
        """Returns days, and the event where the cell itself says it."""
        return self._read(read_survival, *keys) or Survival(None, None)

    def diagnosis(self, *keys: str) -> Diagnosis | None:
        """Returns what a diagnosis says; see `read_diagnosis`."""
        return self._read(read_diagnosis, *keys)

    def parsed(self, read: Callable[[str], Value], *keys: str) -> Value | None:
        """Returns a cell read by a function that raises `UnknownSpelling`."""
        return self._read(read, *keys)

    def told(self, name: str, integrated: Integrated) -> dict[str, str | None]:
        """Notes what was decided about a diagnosis and returns its columns."""
        for note in integrated.notes:
            self.notes.of(name, note)
        return {"histology": integrated.histology, "grade": integrated.grade}

    def _read(self, read: Callable[[str], Value], *keys: str) -> Value | None:
        text = self.text(*keys)
        try:
            value = read(text)
        except UnknownSpelling as error:
            message = f"{self._where(*keys)}: {text!r}; expected {error}."
            if not self._lenient:
                raise UserError(
                    f"{message} Correct it, leave it empty, or have unknown spellings read as "
                    "missing (--clinical-lenient)."
                ) from error
            self.notes.lines.append(f"{message} Read as missing.")
            return None
        if text and is_missing(text):
            self.notes.counted[f"column {self.name(*keys)!r}: {text!r} is read as missing"] += 1
        return value

    def name(self, *keys: str) -> str:
        """Returns the file's name of the first of these columns that is there."""
        return next((self._columns[key] for key in keys if key in self._columns), keys[0])

    def _where(self, *keys: str) -> str:
        return f"{self._path}, line {self.line}, column {self.name(*keys)!r}"
