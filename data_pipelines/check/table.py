"""The manifest's answers: classes per split, types that exclude each other, ages."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from data_pipelines.check.findings import Finding
from gmmas_jax.cases.manifest import SPLITS, Row
from gmmas_jax.cases.tasks import TASKS

_AGES = (1.0, 110.0)
_EXCLUDED: tuple[tuple[dict[str, str], str], ...] = (
    (
        {"codel_1p19q": "codeleted", "idh": "wildtype"},
        "1p/19q is codeleted only in IDH-mutant tumours",
    ),
    (
        {"histology": "oligodendroglioma", "idh": "wildtype"},
        "an oligodendroglioma is IDH-mutant",
    ),
    (
        {"histology": "oligodendroglioma", "codel_1p19q": "intact"},
        "an oligodendroglioma is 1p/19q-codeleted",
    ),
    ({"histology": "oligodendroglioma", "grade": "4"}, "an oligodendroglioma has grade 2 or 3"),
    (
        {"histology": "astrocytoma", "idh": "wildtype"},
        "an astrocytoma of the adult type is IDH-mutant",
    ),
    ({"histology": "astrocytoma", "codel_1p19q": "codeleted"}, "an astrocytoma is 1p/19q-intact"),
    ({"histology": "glioblastoma", "idh": "mutant"}, "a glioblastoma is IDH-wildtype"),
    ({"histology": "glioblastoma", "codel_1p19q": "codeleted"}, "a glioblastoma is 1p/19q-intact"),
    *(
        ({"histology": "glioblastoma", "grade": grade}, "a glioblastoma has grade 4")
        for grade in ("2", "3")
    ),
)
"""Pairs that WHO CNS5 (2021) excludes, and why."""

Counts = dict[str, dict[str, dict[str, int]]]


def table_findings(rows: Sequence[Row]) -> Iterator[Finding]:
    """Yields what is odd in the manifest's columns."""
    for row in rows:
        for pair, why in _EXCLUDED:
            if all(row.tasks.get(task) == value for task, value in pair.items()):
                found = " and ".join(f"{task} {value}" for task, value in pair.items())
                yield Finding(
                    "table.impossible_types", found, case_id=row.case_id, expected=f"{why} (CNS5)"
                )
        low, high = _AGES
        if row.age is not None and not low <= row.age <= high:
            expected = f"{low:g} to {high:g} years"
            found = f"age is {row.age:g}"
            yield Finding("table.age", found, case_id=row.case_id, expected=expected)
    yield from _absent_classes(class_counts(rows))


def class_counts(rows: Sequence[Row]) -> Counts:
    """Returns task to split to class to number of patients' cases; unknown answers are left out."""
    counts: Counts = {task: {} for task in TASKS}
    splits = [split for split in SPLITS if any(row.split == split for row in rows)]
    if any(row.split is None for row in rows):
        splits.append("none")
    for task, classes in TASKS.items():
        known = Counter((row.split or "none", row.tasks[task]) for row in rows if task in row.tasks)
        if known:
            counts[task] = {
                split: {name: known[split, name] for name in classes} for split in splits
            }
    return {task: of_task for task, of_task in counts.items() if of_task}


def split_sizes(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Returns split to number of cases and of patients."""
    cases: dict[str, int] = Counter(row.split or "none" for row in rows)
    patients: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        patients[row.split or "none"].add(row.patient_id)
    return {
        split: {"cases": count, "patients": len(patients[split])}
        for split, count in sorted(cases.items())
    }


def _absent_classes(counts: Counts) -> Iterator[Finding]:
    for task, of_split in counts.items():
        for split, of_class in of_split.items():
            if split == "none" and len(of_split) > 1:
                continue
            where = "in the cohort" if split == "none" else f"in split {split}"
            absent = [name for name, count in of_class.items() if count == 0]
            if len(absent) == len(of_class):
                found = f"no case with a known {task} {where}"
            elif absent:
                listed = ", ".join(f"{name} {count}" for name, count in of_class.items())
                found = f"no case of {task} {' or '.join(absent)} {where} ({listed})"
            else:
                continue
            yield Finding("cohort.class_absent", found)
