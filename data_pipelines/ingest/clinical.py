"""Clinical tables as collections publish them, in the words of the manifest."""

import os
import re
from collections.abc import Mapping
from typing import Any

from data_pipelines.ingest.clinical_cns5 import Integrated, contradictions, integrate
from data_pipelines.ingest.clinical_collections import KINDS, Kind, fitting_kinds
from data_pipelines.ingest.clinical_entry import (
    VALUE_COLUMNS,
    Cells,
    ClinicalTable,
    Entry,
    Notes,
    column_key,
    make_entry,
)
from data_pipelines.ingest.clinical_join import JoinReport, disagreements, join, rows_of
from data_pipelines.ingest.clinical_values import UnknownSpelling, is_missing, spelled
from data_pipelines.ingest.tables import Table, read_table
from gmmas_jax.cases.manifest import SPLITS
from gmmas_jax.cases.tasks import TASKS
from gmmas_jax.errors import UserError

__all__ = ["CLINICAL_KINDS", "ClinicalTable", "JoinReport", "join", "read_clinical", "rows_of"]

CLINICAL_KINDS = (*KINDS, "generic")
"""What a clinical table may be; `generic` has columns named as in the manifest, or declared."""

_ID_ALIASES = {
    "case_id": ("caseid", "case", "subjectid", "participantid", "subject", "id"),
    "patient_id": ("patientid", "patient"),
}
_DECLARABLE = ("case_id", "patient_id", "diagnosis", *VALUE_COLUMNS)
_SAYS_ONE = re.compile(r"(?<!un)methylated|mutat|mutant|codel")
_SAYS_ZERO = re.compile(r"noncodel|wildtype|intact")


def read_clinical(
    path: str | os.PathLike[str],
    kind: str | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    lenient: bool = False,
) -> ClinicalTable:
    """Reads a clinical table.

    Args:
        path: A table that `tables.read_table` reads.
        kind: One of `CLINICAL_KINDS`; None recognises it by the header.
        columns: For `generic`: a column of the manifest, or `diagnosis`, to the name that it has in
            the table. What is not declared is found by the manifest's own names.
        lenient: Whether a spelling that the written table of values does not have is read as
            missing, with a note, instead of refused.

    Returns:
        Its rows in the words of the manifest; rows that are equal in every cell count once.

    Raises:
        UserError: If the file cannot be read, its kind cannot be told, a column is missing, an id
            is empty, or a cell holds an unknown spelling.
    """
    table = read_table(path)
    if columns is not None and kind is None:
        kind = "generic"
    kind = kind or _recognised(table)
    if kind not in CLINICAL_KINDS:
        raise UserError(
            f"kind of clinical table: {kind!r}; expected one of {', '.join(CLINICAL_KINDS)}."
        )
    if columns is not None and kind != "generic":
        raise UserError(
            f"{table.path}: columns are declared for the kind {kind}, which knows its own; "
            "expected them with the kind generic alone. Leave one of the two out."
        )
    notes = Notes(list(table.notes))
    if kind == "generic":
        names = _generic_columns(table, columns or {})
        unused = [name for name in table.columns if name not in names.values()]
        if unused:
            notes.lines.append(f"{table.path.name}: columns not used: {', '.join(unused)}.")
        how = Kind(lambda header: True, _generic, "")
    else:
        if kind not in fitting_kinds(table.columns):
            raise UserError(
                f"{table.path}: no table of the kind {kind} by its header "
                f"({', '.join(table.columns)}); expected {KINDS[kind].expected}. Name another "
                "kind, or declare the columns of a generic table."
            )
        names = {column_key(column): column for column in table.columns}
        how = KINDS[kind]
    entries = []
    seen: dict[tuple[str, ...], int] = {}
    for index, row in enumerate(table.rows):
        cells = tuple(row.values())
        if cells in seen:
            notes.lines.append(
                f"{table.path.name}, line {table.lines[index]}: the same as line {seen[cells]}, "
                "counted once."
            )
            continue
        seen[cells] = table.lines[index]
        entries.append(how.read(Cells(table, index, names, lenient=lenient, notes=notes)))
    notes.lines += disagreements(entries)
    return ClinicalTable(table.path, kind, entries, notes.all(), how.renames)


def _recognised(table: Table) -> str:
    fitting = fitting_kinds(table.columns)
    if len(fitting) == 1:
        return fitting[0]
    if not fitting and any(key in _ID_KEYS for key in map(column_key, table.columns)):
        return "generic"
    found = f"fits {' and '.join(fitting)}" if fitting else "fits none that is known"
    raise UserError(
        f"{table.path}: its header ({', '.join(table.columns)}) {found}; expected the columns of "
        f"one of {', '.join(KINDS)}, or an id (case_id or patient_id) and columns of the manifest. "
        "Name the kind (--clinical-kind), or declare the columns (--clinical-column)."
    )


_ID_KEYS = {key for keys in _ID_ALIASES.values() for key in keys}


def _generic_columns(table: Table, declared: Mapping[str, str]) -> dict[str, str]:
    """Returns the manifest's column (or `diagnosis`) to the table's, for those that are there."""
    for name, column in declared.items():
        if name not in _DECLARABLE:
            raise UserError(
                f"declared column {name!r}; expected one of {', '.join(_DECLARABLE)}, each with "
                "the name that it has in the table."
            )
        if column not in table.columns:
            raise UserError(
                f"{table.path}: no column {column!r}, which was declared for {name}; there are "
                f"{', '.join(table.columns)}. Correct the name."
            )
    by_key: dict[str, str] = {}
    for column in table.columns:
        by_key.setdefault(column_key(column), column)
    names = dict(declared)
    for name in _DECLARABLE:
        keys = _ID_ALIASES.get(name, (column_key(name),))
        found = next((by_key[key] for key in keys if key in by_key), None)
        if name not in names and found is not None and found not in names.values():
            names[name] = found
    if not {"case_id", "patient_id"} & set(names):
        raise UserError(
            f"{table.path}: no column of ids in its header ({', '.join(table.columns)}); expected "
            "case_id or patient_id. Rename a column, or declare which one it is."
        )
    if not set(names) - {"case_id", "patient_id"}:
        raise UserError(
            f"{table.path}: no column but ids that is known ({', '.join(table.columns)}); expected "
            f"some of {', '.join(_DECLARABLE[2:])}. Rename columns, or declare them."
        )
    return names


def _generic(cells: Cells) -> Entry:
    """A table with the columns of the manifest, under their names."""
    patient = cells.known("patient_id")
    case_id = cells.required("case_id") if cells.has("case_id") else cells.required("patient_id")
    values: dict[str, Any] = {
        task: cells.word(task, task, flag=_says_one(cells, task))
        for task in ("idh", "codel_1p19q", "mgmt")
    }
    values |= {name: cells.word(name, name) for name in ("grade", "outcome", "sex")}
    survival = cells.survival("survival_days")
    values |= {
        "age": cells.number("age", "age"),
        "survival_days": survival.days,
        "survival_event": cells.event("survival_event"),
        "site": cells.known("site") or None,
        "timepoint": cells.known("timepoint") or None,
        "split": cells.parsed(_split, "split"),
    }
    if values["survival_event"] is None:
        values["survival_event"] = survival.event
    values |= _generic_histology(cells, case_id, values)
    return make_entry(
        cells,
        case_id,
        patient or None,
        values,
        of_exam=bool(patient) and cells.has("case_id") and case_id != patient,
    )


def _split(text: str) -> str | None:
    if is_missing(text):
        return None
    word = spelled(text)
    if word not in SPLITS:
        raise UnknownSpelling(f"one of {', '.join(SPLITS)}")
    return word


def _generic_histology(cells: Cells, case_id: str, values: dict[str, Any]) -> dict[str, str | None]:
    """Returns histology and grade; the manifest's own words stand, older ones are translated."""
    idh, codel = values["idh"], values["codel_1p19q"]
    word = spelled(cells.text("histology"))
    if word in TASKS["histology"]:
        told = tuple(contradictions(word, idh=idh, codel=codel))
        return cells.told(case_id, Integrated(word, values["grade"], told))
    diagnosis = cells.diagnosis("histology") or cells.diagnosis("diagnosis")
    if diagnosis is None:
        told = tuple(contradictions(None, idh=idh, codel=codel))
        return cells.told(case_id, Integrated(None, values["grade"], told))
    result = integrate(diagnosis, idh=idh, codel=codel, grade=values["grade"])
    told_columns = cells.told(case_id, result)
    # What the words say about a marker counts where the table has no column for it.
    if not cells.has("idh"):
        values["idh"] = diagnosis.idh
    if not cells.has("codel_1p19q"):
        values["codel_1p19q"] = diagnosis.codel
    return told_columns


def _says_one(cells: Cells, task: str) -> bool:
    """Returns whether the column's name says what 1 means, as in IDH_mutated."""
    key = column_key(cells.name(task))
    return bool(_SAYS_ONE.search(key)) and not _SAYS_ZERO.search(key)
