"""The manifest `cohort.csv`: one row a case."""

import csv
import difflib
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from gmmas_jax.cases.files import write_text
from gmmas_jax.cases.labels import CONVENTIONS
from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.cases.tasks import TASKS, task_index
from gmmas_jax.errors import UserError

SPLITS = ("train", "val", "test")
SEXES = ("female", "male")
QUALITIES = ("pass", "fail")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One case; every field but the id may be absent (None).

    Attributes:
        case_id: Unique in the manifest; text, leading zeros kept.
        patient_id: Cases of one patient share it; the case id where the file has none.
        timepoint: Free text.
        t1n, t1c, t2w, t2f, seg: Paths relative to the manifest, or absolute.
        label_convention: A name of `labels.CONVENTIONS`.
        idh, codel_1p19q, histology, grade, mgmt, outcome: Class names of `tasks.TASKS`.
        age: Years.
        sex: One of `SEXES`.
        survival_days: Days from the exam.
        survival_event: 1 died, 0 censored.
        site: Free text.
        split: One of `SPLITS`.
        fold: Of cross-validation, from 0 on; all cases of a patient have the same.
        quality: One of `QUALITIES`, as `gmmas preprocess` judged; a failed case is not used.
    """

    case_id: str
    patient_id: str
    timepoint: str | None = None
    t1n: str | None = None
    t1c: str | None = None
    t2w: str | None = None
    t2f: str | None = None
    seg: str | None = None
    label_convention: str | None = None
    idh: str | None = None
    codel_1p19q: str | None = None
    histology: str | None = None
    grade: str | None = None
    mgmt: str | None = None
    outcome: str | None = None
    age: float | None = None
    sex: str | None = None
    survival_days: float | None = None
    survival_event: int | None = None
    site: str | None = None
    split: str | None = None
    fold: int | None = None
    quality: str | None = None

    @property
    def images(self) -> dict[str, str]:
        """Sequence name to path, for the sequences that are there."""
        return {name: path for name in SEQUENCES if (path := getattr(self, name)) is not None}

    @property
    def tasks(self) -> dict[str, str]:
        """Task name to class name, for the tasks that are known."""
        return {name: value for name in TASKS if (value := getattr(self, name)) is not None}


COLUMNS = tuple(column.name for column in fields(Row))
"""The columns of the file, in order."""


def read_manifest(
    path: str | os.PathLike[str], *, refused: list[UserError] | None = None
) -> list[Row]:
    """Reads a manifest.

    A byte-order mark and Windows line ends are accepted; an empty cell is an absent value; a
    column that is not there is absent in every row.

    Args:
        path: The file.
        refused: Receives what is wrong with single rows, which are then left out.

    Raises:
        UserError: If the file cannot be read or no row can be used, a column is unknown or, without
            `refused`, a case id is missing or given twice, or a cell holds a value that its column
            does not allow.
    """
    path = Path(path)
    table = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(table, [])]
        _check_header(path, header)
        rows: list[Row] = []
        line_of: dict[str, int] = {}
        for cells in table:
            if not any(cell.strip() for cell in cells):
                continue
            try:
                row = _parse(path, table.line_num, header, cells)
                _check_new(path, table.line_num, row.case_id, line_of)
            except UserError as error:
                if refused is None:
                    raise
                refused.append(error)
                continue
            line_of[row.case_id] = table.line_num
            rows.append(row)
    except csv.Error as error:
        raise UserError(
            f"{path}, row {table.line_num}: no valid CSV ({error}); expected comma-separated "
            "values. Save the table as CSV again."
        ) from error
    if not rows and refused:
        raise refused[0]
    if not rows:
        raise UserError(f"{path}: no case in it; expected at least one row below the header.")
    return rows


def write_manifest(path: str | os.PathLike[str], rows: Iterable[Row]) -> None:
    """Writes a manifest with all columns, atomically.

    Raises:
        UserError: If the file cannot be written.
    """
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_cell(getattr(row, column)) for column in COLUMNS])
    write_text(path, buffer.getvalue())


def check_folder_name(case_id: str, source: str) -> None:
    """Refuses an id that cannot be the name of a folder for the case's results.

    Args:
        case_id: The id.
        source: What the message begins with.

    Raises:
        UserError: If it would lead elsewhere.
    """
    if case_id in (".", "..") or any(mark in case_id for mark in "/\\\0"):
        raise UserError(
            f"{source}case_id {case_id!r} cannot be the name of a folder; expected a name without "
            "slashes. Rename the case."
        )


def _cell(value: str | float | int | None) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); expected a manifest (cohort.csv)."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: byte {error.start} is not UTF-8; expected a UTF-8 text file. Save the table "
            "as 'CSV UTF-8'."
        ) from error


def _check_header(path: Path, header: list[str]) -> None:
    if "case_id" not in header:
        hint = " The columns seem to be separated by semicolons." if ";" in "".join(header) else ""
        raise UserError(
            f"{path}: no column case_id in the header {', '.join(header) or '(empty)'}.{hint} "
            f"Expected comma-separated columns: {', '.join(COLUMNS)}."
        )
    for column in header:
        if column not in COLUMNS:
            near = difflib.get_close_matches(column, COLUMNS, n=1)
            hint = f"did you mean {near[0]!r}? Else remove it" if near else "remove it"
            raise UserError(
                f"{path}: unknown column {column!r}; {hint}. Columns: {', '.join(COLUMNS)}."
            )
        if header.count(column) > 1:
            raise UserError(f"{path}: column {column!r} is there twice. Remove one.")


def _check_new(path: Path, line: int, case_id: str, line_of: dict[str, int]) -> None:
    if case_id in line_of:
        raise UserError(
            f"{path}, row {line}: case_id {case_id!r} was already given in row {line_of[case_id]}; "
            "expected each case once. Rename or remove one."
        )


def _parse(path: Path, line: int, header: list[str], cells: list[str]) -> Row:
    if len(cells) != len(header):
        raise UserError(
            f"{path}, row {line}: {len(cells)} cells, the header has {len(header)}. Quote values "
            "that contain a comma."
        )
    given = {column: cell.strip() for column, cell in zip(header, cells, strict=True)}
    present = {column: cell for column, cell in given.items() if cell}
    if "case_id" not in present:
        raise UserError(f"{path}, row {line}, column case_id: empty; expected a unique name.")
    values: dict[str, Any] = {
        column: _value(f"{path}, row {line}, column {column}", column, cell)
        for column, cell in present.items()
    }
    return Row(**{"patient_id": values["case_id"]} | values)


def _value(where: str, column: str, cell: str) -> str | float | int:
    if column in TASKS:
        index = task_index(column, cell, source=where)
        assert index is not None  # The cell is not empty.
        return TASKS[column][index]
    if column in ("age", "survival_days"):
        return _number(where, cell)
    if column == "survival_event":
        return int(_choice(where, cell, ("0", "1")))
    if column == "sex":
        full = {"f": "female", "m": "male"}.get(cell.lower(), cell.lower())
        return _choice(where, full, SEXES)
    if column == "split":
        return _choice(where, cell, SPLITS)
    if column == "fold":
        return _whole_number(where, cell)
    if column == "quality":
        return _choice(where, cell, QUALITIES)
    if column == "label_convention":
        return _choice(where, cell, tuple(CONVENTIONS))
    return cell


def _number(where: str, cell: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = float("nan")
    if not 0 <= number < float("inf"):
        raise UserError(
            f"{where}: {cell!r} is no number from 0 on. Correct it, or leave it empty if unknown."
        )
    return number


def _whole_number(where: str, cell: str) -> int:
    if not (cell.isascii() and cell.isdecimal()):
        raise UserError(
            f"{where}: {cell!r} is no whole number from 0 on. Correct it, or leave it empty."
        )
    return int(cell)


def _choice(where: str, cell: str, choices: tuple[str, ...]) -> str:
    if cell not in choices:
        raise UserError(
            f"{where}: {cell!r}; expected one of {', '.join(choices)}. Leave it empty if it is "
            "not known."
        )
    return cell
