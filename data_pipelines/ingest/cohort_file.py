"""From a source to `cohort.csv`, and a record of what was found beside it."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_pipelines.ingest.clinical import JoinReport, join, read_clinical, rows_of
from data_pipelines.ingest.found import Found
from data_pipelines.ingest.gather import Options
from data_pipelines.ingest.layouts import AUTO, find_cases
from data_pipelines.ingest.recognise import recognise
from gmmas_jax.cases.files import write_json
from gmmas_jax.cases.manifest import SPLITS, Row, write_manifest
from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.cases.tasks import TASKS
from gmmas_jax.errors import UserError

RECORD = 1
"""Version of the record."""

CLINICAL = "clinical"
"""The layout of a source that is a clinical table alone."""

_PATHS = (*SEQUENCES, "seg")
_TOLD = 10


@dataclass(frozen=True, kw_only=True)
class Clinical:
    """Clinical tables to join.

    Attributes:
        tables: The files, joined in this order; what is already known is kept.
        kind: Of all of them; None recognises each by its header.
        columns: Of a generic table: our column to the table's.
        lenient: Whether unknown spellings are missing values, not errors.
    """

    tables: Sequence[Path] = ()
    kind: str | None = None
    columns: Mapping[str, str] | None = None
    lenient: bool = False


@dataclass
class Ingested:
    """What an ingest did.

    Attributes:
        source: What was read.
        cohort: The manifest that was written.
        rows: Its rows.
        notes: What was noticed and does no harm.
        refused: What could not become a case.
        joins: Of the clinical tables.
    """

    source: Path
    cohort: Path
    rows: list[Row]
    notes: list[str]
    refused: list[str]
    joins: list[JoinReport] = field(default_factory=list)

    @property
    def record(self) -> Path:
        """The record beside the manifest."""
        return self.cohort.with_suffix(".ingest.json")

    def counts(self) -> dict[str, Any]:
        """Returns the number of cases and patients, and of cases per file, label, task, split."""
        tasks = {
            task: {
                name: count
                for name in classes
                if (count := sum(getattr(row, task) == name for row in self.rows))
            }
            for task, classes in TASKS.items()
        }
        conventions = sorted({str(row.label_convention) for row in self.rows if row.seg})
        return {
            "cases": len(self.rows),
            "patients": len({row.patient_id for row in self.rows}),
            "files": {
                name: sum(getattr(row, name) is not None for row in self.rows) for name in _PATHS
            },
            "label_conventions": {
                name: sum(
                    row.seg is not None and str(row.label_convention) == name for row in self.rows
                )
                for name in conventions
            },
            "tasks": {task: classes for task, classes in tasks.items() if classes},
            "splits": {
                split: count
                for split in SPLITS
                if (count := sum(row.split == split for row in self.rows))
            },
        }


def ingest(
    source: Path,
    *,
    layout: str,
    out: Path,
    options: Options,
    clinical: Clinical | None = None,
    strict: bool = False,
) -> Ingested:
    """Finds the cases of a source, joins clinical tables, and writes `cohort.csv` and its record.

    Args:
        source: A folder, a list or a clinical table.
        layout: A name of `layouts.LAYOUTS`, `auto`, or `clinical`.
        out: The manifest to write; paths below its folder are written relative to it.
        options: What the user declared about the source.
        clinical: Tables to join.
        strict: Whether a case that has to be refused is an error, and nothing is written.

    Raises:
        UserError: If the source cannot be read, holds no case, or (strict) a bad one, or a table or
            the output is bad.
    """
    clinical = clinical or Clinical()
    if out.suffix.lower() != ".csv":
        raise UserError(f"--out is {out}; expected the name of a manifest, such as cohort.csv.")
    tables = [_read_table(path, clinical) for path in clinical.tables]
    found = _found(source, layout, options, clinical)
    if strict and found.refused:
        raise UserError(_listing(f"{source}: {len(found.refused)} refused", found.refused))
    if not found.rows:
        what = f"{source}: no case found by layout {layout}"
        if found.refused:
            raise UserError(_listing(f"{what}; {len(found.refused)} refused", found.refused))
        raise UserError(
            f"{what}; expected at least one. Check the path, or name another layout with --layout."
        )
    rows, joins = found.rows, []
    # First those that tell under which name other tables know a patient.
    for table in sorted(tables, key=lambda table: not table.renames):
        rows, report = join(rows, table)
        joins.append(report)
    folder = os.path.abspath(out.parent)
    rows = [_relative(row, folder) for row in rows]
    done = Ingested(source, out, rows, found.notes, found.refused, joins)
    write_json(done.record, _document(done, layout))
    write_manifest(out, rows)
    return done


def _found(source: Path, layout: str, options: Options, clinical: Clinical) -> Found:
    if layout == AUTO and source.is_file():
        layout = recognise(source)[0]
    if layout != CLINICAL:
        return find_cases(source, layout, options=options)
    table = _read_table(source, clinical)
    return Found(rows_of(table), [f"{source.name}: a table of kind {table.kind}", *table.notes])


def _read_table(path: Path, clinical: Clinical) -> Any:
    return read_clinical(path, clinical.kind, columns=clinical.columns, lenient=clinical.lenient)


def _relative(row: Row, folder: str) -> Row:
    """Returns the row with paths relative to the folder where they lie under it."""
    changed: dict[str, Any] = {}
    for name in _PATHS:
        path = getattr(row, name)
        if path is not None and path.startswith(folder.rstrip(os.sep) + os.sep):
            inside = os.path.relpath(path, folder).replace(os.sep, "/")
            # A manifest strips the spaces around a cell.
            changed[name] = f"./{inside}" if inside[0].isspace() else inside
    return dataclasses.replace(row, **changed)


def _document(done: Ingested, layout: str) -> dict[str, Any]:
    return {
        "format": RECORD,
        "source": os.path.abspath(done.source),
        "layout": layout,
        "cohort": done.cohort.name,
        "rows": len(done.rows),
        "counts": done.counts(),
        "notes": done.notes,
        "refused": done.refused,
        "clinical": [report.as_json() for report in done.joins],
    }


def _listing(what: str, lines: Sequence[str]) -> str:
    more = f"\n... and {len(lines) - _TOLD} more" if len(lines) > _TOLD else ""
    shown = "\n".join(lines[:_TOLD])
    return f"{what}:\n{shown}{more}\nMend them, or take them out of the source."
