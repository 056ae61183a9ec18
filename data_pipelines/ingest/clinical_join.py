"""Clinical values to the cases of a manifest: by whole ids, and nothing in silence."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_pipelines.ingest.clinical_entry import (
    EXAM_COLUMNS,
    VALUE_COLUMNS,
    ClinicalTable,
    Entry,
    id_key,
)
from gmmas_jax.cases.manifest import Row

_SAME_AGE = 1.0
"""Years by which two ages may differ and count as one: tables round them."""

_FOR_GOOD = ("idh", "codel_1p19q", "sex")
"""What a patient's tumour keeps over time, so that two answers are an error in the table."""


@dataclass
class JoinReport:
    """What a join did and did not do.

    Attributes:
        table: The clinical table's file name.
        kind: Its kind.
        entries: Rows of the table.
        cases: Rows of the manifest.
        by_case: Cases that were found by their own id.
        by_patient: Cases that were found by their patient's id.
        filled: Column to how many cases got a value.
        unmatched_cases: Cases without a row in the table.
        unmatched_entries: Ids of the table without a case.
        ambiguous: Cases or values for which the table says more than one thing; nothing was taken.
        conflicts: Values that the manifest already had and the table contradicts; they were kept.
        withheld: Cases that were found by their patient, and so got nothing that belongs to one
            exam (age, survival), because the row is another exam's, or the patient has several.
        new_patient_ids: Old to new id of those who have another name in other collections.
        notes: The notes of the table.
    """

    table: str
    kind: str
    entries: int = 0
    cases: int = 0
    by_case: int = 0
    by_patient: int = 0
    filled: dict[str, int] = field(default_factory=dict)
    unmatched_cases: list[str] = field(default_factory=list)
    unmatched_entries: list[str] = field(default_factory=list)
    ambiguous: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    withheld: list[str] = field(default_factory=list)
    new_patient_ids: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Returns the report as a JSON document."""
        return dataclasses.asdict(self)

    def lines(self) -> list[str]:
        """Returns the report in a few lines for a terminal; the lists are counted, not given."""
        filled = ", ".join(f"{column} {count}" for column, count in self.filled.items())
        lines = [
            f"{self.table} ({self.kind}): {self.by_case + self.by_patient} of {self.cases} cases "
            f"found among {self.entries} rows, {self.by_patient} of them by patient.",
            f"Filled: {filled or 'nothing'}.",
        ]
        for name, found in (
            ("cases are not in the table", self.unmatched_cases),
            ("rows of the table have no case", self.unmatched_entries),
            ("ambiguities, nothing taken", self.ambiguous),
            ("conflicts, the manifest's value kept", self.conflicts),
            ("cases without age and survival, which are another exam's", self.withheld),
            ("patients have another id now", list(self.new_patient_ids)),
        ):
            if found:
                shown = "; ".join(found[:3]) + ("; …" if len(found) > 3 else "")
                lines.append(f"{len(found)} {name}: {shown}")
        return lines


def rows_of(table: ClinicalTable) -> list[Row]:
    """Returns a manifest made of the table alone: ids and values, no images.

    Rows of one exam become one; values on which they disagree are left empty.
    """
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in table.entries:
        groups[entry.case_id.casefold()].append(entry)
    rows = []
    for entries in groups.values():
        values, _ = _agreed(entries)
        first = entries[0]
        patient_id = first.patient_id or first.patient_names[0]
        rows.append(Row(case_id=first.case_id, patient_id=patient_id, **values))
    return rows


def disagreements(entries: Iterable[Entry]) -> list[str]:
    """Returns where rows of one exam disagree, and exams of one patient on what cannot change."""
    exams: dict[str, list[Entry]] = defaultdict(list)
    patients: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        exams[entry.case_id.casefold()].append(entry)
        patients[(entry.patient_id or entry.patient_names[0]).casefold()].append(entry)
    told = []
    for name, groups, columns, left in (
        ("", exams, VALUE_COLUMNS, "left empty"),
        ("patient ", patients, _FOR_GOOD, "each exam keeps its own"),
    ):
        for group in groups.values():
            _, disputed = _agreed(group)
            if name and len({entry.case_id for entry in group}) == 1:
                continue  # Told above.
            who = (group[0].patient_id or group[0].patient_names[0]) if name else group[0].case_id
            told += [
                f"{name}{who}: {column} is {' and '.join(map(str, said))} in lines "
                f"{', '.join(str(entry.line) for entry in group)}: {left}"
                for column, said in disputed.items()
                if column in columns
            ]
    return told


def join(rows: Sequence[Row], table: ClinicalTable) -> tuple[list[Row], JoinReport]:
    """Fills what a table knows into the rows of a manifest.

    A case is found by its id, else by its patient's; as written, else without letters' case,
    separators and leading zeros; never by a part of an id. What the manifest already has is kept.

    Args:
        rows: Of a manifest.
        table: Of `read_clinical`.

    Returns:
        New rows in the same order, and what was done.
    """
    report = JoinReport(
        table.path.name, table.kind, len(table.entries), len(rows), notes=list(table.notes)
    )
    index = _Index(table.entries, rows)
    exams = Counter(row.patient_id for row in rows)
    filled: Counter[str] = Counter()
    used: set[int] = set()
    joined: list[Row] = []
    people: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        entries, by_patient = index.find(row, report.ambiguous)
        if not entries:
            report.unmatched_cases.append(row.case_id)
            joined.append(row)
            continue
        used.update(entry.line for entry in entries)
        report.by_patient += by_patient
        report.by_case += not by_patient
        values = _taken(row, entries, report)
        if by_patient and (exams[row.patient_id] > 1 or any(entry.of_exam for entry in entries)):
            kept = {name: value for name, value in values.items() if name not in EXAM_COLUMNS}
            if len(kept) < len(values):
                report.withheld.append(row.case_id)
            values = kept
        joined.append(_filled(row, values, filled, report))
        people[row.patient_id] |= {entry.patient_id for entry in entries if entry.patient_id}
    report.unmatched_entries = [e.case_id for e in table.entries if e.line not in used]
    report.filled = {column: filled[column] for column in VALUE_COLUMNS if filled[column]}
    return _renamed(joined, people, table.renames, report), report


class _Index:
    """Finds the entries of a case by whole names."""

    def __init__(self, entries: Iterable[Entry], rows: Sequence[Row]) -> None:
        self._cases = _Names((name, entry) for entry in entries for name in entry.case_names)
        self._patients = _Names((name, entry) for entry in entries for name in entry.patient_names)
        # What only looks alike, as 7 and 007, is two different names where both are in use.
        self._alike: dict[tuple[str, str], set[str]] = defaultdict(set)
        for row in rows:
            self._alike["case", id_key(row.case_id)].add(row.case_id.casefold())
            self._alike["patient", id_key(row.patient_id)].add(row.patient_id.casefold())

    def find(self, row: Row, ambiguous: list[str]) -> tuple[list[Entry], bool]:
        """Returns the entries of a case, and whether they were found by the patient."""
        looked_up = (
            ("case", row.case_id, self._cases, False),
            ("case", row.case_id, self._patients, True),
            ("patient", row.patient_id, self._patients, True),
        )
        for _, name, names, by_patient in looked_up:
            entries = names.exact.get(name.casefold(), [])
            if entries:
                return entries, by_patient
        for role, name, names, by_patient in looked_up:
            key = id_key(name)
            written, alike = names.written.get(key, set()), self._alike[role, key]
            if not written:
                continue
            if len(written) > 1 or len(alike) > 1:
                ambiguous.append(
                    f"{row.case_id}: {name!r} may be {' or '.join(sorted(written))} of the table, "
                    f"and so may {' and '.join(sorted(alike))} of the manifest"
                )
                return [], False
            return names.exact[next(iter(written))], by_patient
        return [], False


class _Names:
    """Names to entries: as written but for letters' case, and as they look alike."""

    def __init__(self, named: Iterable[tuple[str, Entry]]) -> None:
        self.exact: dict[str, list[Entry]] = defaultdict(list)
        self.written: dict[str, set[str]] = defaultdict(set)
        for name, entry in named:
            self.exact[name.casefold()].append(entry)
            self.written[id_key(name)].add(name.casefold())


def _agreed(entries: Sequence[Entry]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Returns the values on which entries agree, and those on which they do not."""
    said: dict[str, list[Any]] = {}
    for entry in entries:
        for column, value in entry.values.items():
            known = said.setdefault(column, [])
            if value not in known:
                known.append(value)
    agreed = {column: values[0] for column, values in said.items() if len(values) == 1}
    return agreed, {column: values for column, values in said.items() if len(values) > 1}


def _taken(row: Row, entries: Sequence[Entry], report: JoinReport) -> dict[str, Any]:
    values, disputed = _agreed(entries)
    for column, said in disputed.items():
        if column not in EXAM_COLUMNS or not any(entry.of_exam for entry in entries):
            lines = ", ".join(str(entry.line) for entry in entries)
            report.ambiguous.append(
                f"{row.case_id}: {column} is {' and '.join(map(str, said))} in lines {lines}"
            )
    return values


def _filled(row: Row, values: dict[str, Any], filled: Counter[str], report: JoinReport) -> Row:
    new: dict[str, Any] = {}
    for column, value in values.items():
        present = getattr(row, column)
        if present is None:
            new[column] = value
            filled[column] += 1
        elif not _same(column, present, value):
            report.conflicts.append(
                f"{row.case_id}: {column} is {present} in the manifest (kept) and {value} in "
                f"{report.table}"
            )
    return dataclasses.replace(row, **new)


def _same(column: str, one: Any, other: Any) -> bool:
    if column == "age":
        return bool(abs(one - other) < _SAME_AGE)
    return bool(one == other)


def _renamed(
    rows: list[Row], people: dict[str, set[str]], renames: bool, report: JoinReport
) -> list[Row]:
    """Returns the rows with the patient ids of the table, for all cases of a patient alike."""
    own_name = {row.patient_id for row in rows if row.patient_id == row.case_id}
    new: dict[str, str] = {}
    for old, names in people.items():
        others = sorted(name for name in names if id_key(name) != id_key(old))
        if len(others) > 1:
            report.ambiguous.append(f"patient {old}: the table knows {' and '.join(others)}")
        elif others and (renames or old in own_name):
            new[old] = others[0]
        elif others:
            report.conflicts.append(
                f"patient {old} of the manifest (kept) is {others[0]} in {report.table}"
            )
    report.new_patient_ids = new
    return [
        dataclasses.replace(row, patient_id=new.get(row.patient_id, row.patient_id)) for row in rows
    ]
