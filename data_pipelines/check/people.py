"""Who is who: ids of public sets that name one person, and persons in two splits."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from data_pipelines.check.findings import Finding
from gmmas_jax.cases.manifest import Row

_PUBLIC: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(rf"(?<![A-Za-z0-9]){pattern}(?![A-Za-z0-9])", re.IGNORECASE))
    for name, pattern in (
        # BraTS-GLI (2023 on) goes on with the numbers of BraTS 2021.
        ("BraTS-GLI", r"BraTS(?:20)?21[-_](?:Training[-_]|Validation[-_])?(\d{1,5})"),
        ("BraTS-GLI", r"BraTS-GLI-(\d{1,5})(?:-\d{3})?"),
        # BraTS 2017 to 2019 have the same names but for the year.
        ("BraTS-TCIA", r"BraTS1[789]_((?:TCIA\d+|CBICA|2013|TMC|UAB|WashU)_[A-Za-z0-9]+)(?:_1)?"),
        ("TCGA", r"TCGA-([A-Za-z0-9]{2}-[A-Za-z0-9]{4})"),
        # Three digits in the metadata, four in the archive; a suffix is a later exam.
        ("UCSF-PDGM", r"UCSF-PDGM-(\d{1,5})(?:_[A-Za-z0-9]+)*"),
        ("UPENN-GBM", r"UPENN-GBM-(\d{1,5})(?:_\d+)?"),
    )
)


def public_ids(row: Row) -> set[str]:
    """Returns the public persons that a row's case id and patient id name, one spelling each."""
    found = set()
    for text in (row.case_id, row.patient_id):
        for name, pattern in _PUBLIC:
            match = pattern.search(text)
            if match is not None:
                number = (match[1].lstrip("0") or "0") if match[1].isdigit() else match[1].upper()
                found.add(f"{name} {number}")
    return found


def persons(rows: Sequence[Row]) -> list[int]:
    """Returns a number per row; rows of one person, by patient id or public id, share it.

    A row with two public ids (a UCSF-PDGM exam whose patient id is that of BraTS 2021) joins both.
    """
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        root = name
        while leader.setdefault(root, root) != root:
            root = leader[root]
        while leader[name] != root:
            leader[name], name = root, leader[name]
        return root

    for row in rows:
        own = find(f"patient:{row.patient_id}")
        for name in public_ids(row):
            leader[find(name)] = own
    numbers: dict[str, int] = {}
    return [numbers.setdefault(find(f"patient:{row.patient_id}"), len(numbers)) for row in rows]


def people_findings(rows: Sequence[Row]) -> Iterator[Finding]:
    """Yields persons in more than one split, and persons under two patient ids."""
    of_person: dict[int, list[Row]] = defaultdict(list)
    for row, number in zip(rows, persons(rows), strict=True):
        of_person[number].append(row)
    for group in of_person.values():
        splits = sorted({row.split for row in group if row.split is not None})
        patients = sorted({row.patient_id for row in group})
        if len(splits) > 1:
            one = len(patients) == 1
            code = "leakage.patient_in_splits" if one else "leakage.person_in_splits"
        elif len(patients) > 1:
            code = "duplicate.person"
        else:
            continue
        places = ", ".join(f"{row.case_id} ({row.split or 'no split'})" for row in group[:6])
        more = f" and {len(group) - 6} more" if len(group) > 6 else ""
        found = f"{_named(patients)}: {places}{more}"
        yield Finding(code, found, case_id=group[0].case_id)


def overlap_of_ids(rows: Sequence[Row], others: Iterable[Row], other: str) -> Iterator[Finding]:
    """Yields the persons and patient ids that are also in another manifest.

    Args:
        rows: Of the cohort.
        others: Of the other manifest.
        other: Its name, for the messages.
    """
    by_public: dict[str, str] = {}
    by_patient: dict[str, str] = {}
    for row in others:
        by_patient.setdefault(row.patient_id, row.case_id)
        for name in public_ids(row):
            by_public.setdefault(name, row.case_id)
    for row in rows:
        shared = sorted(public_ids(row) & by_public.keys())
        if shared:
            found = f"{shared[0]} is also {by_public[shared[0]]} of {other}"
            yield Finding("overlap.person", found, case_id=row.case_id)
        elif row.patient_id in by_patient:
            found = f"patient {row.patient_id} is also in {other} ({by_patient[row.patient_id]})"
            yield Finding("overlap.patient_id", found, case_id=row.case_id)


def _named(patients: list[str]) -> str:
    if len(patients) == 1:
        return f"patient {patients[0]}"
    return f"one person as {', '.join(patients[:4])}"
