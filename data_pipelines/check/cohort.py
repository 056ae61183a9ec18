"""Checks a cohort: every case in worker processes, then the cases against each other."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.check.cohort_masks import (
    convention_findings,
    mask_statistics,
    summary,
    volume_findings,
)
from data_pipelines.check.copies import copy_findings, overlap_of_images
from data_pipelines.check.exam import Exam, ExamTask, check_exam
from data_pipelines.check.findings import LEVELS, Finding, from_message
from data_pipelines.check.people import overlap_of_ids, people_findings
from data_pipelines.check.rows import read_rows
from data_pipelines.check.table import class_counts, split_sizes, table_findings
from data_pipelines.sampled_grids import sampled_grids
from data_pipelines.workers import Task, run_cases, worker_count
from gmmas_jax.cases.manifest import Row
from gmmas_jax.errors import UserError

VERSION = 1
"""Of check.json; raised when a field changes its meaning or goes."""

_WORKER_BYTES = 2**28
_VOXEL_BYTES = 16
"""A worker's libraries (113 MiB were seen), and what it holds per voxel of the image that it reads:
float32 twice, while it is turned, and masks (11 bytes were seen for 240x240x155)."""

_COMMON = 0.9
_BRAIN_ML = (900.0, 1900.0)
_ATLAS_MEDIAN_ML, _ATLAS_RANGE = (1700.0, 2100.0), (0.6, 1.4)
_FEWEST_BRAINS = 5

OnCase = Callable[[Path, int, int, str], None]


class Report(NamedTuple):
    """What a check found.

    Attributes:
        manifest: As given.
        cases: One entry a case, JSON-able.
        findings: Errors first, then warnings and notes; within these in the order of the codes.
        statistics: Of the cohort, JSON-able.
    """

    manifest: Path
    cases: list[dict[str, Any]]
    findings: list[Finding]
    statistics: dict[str, Any]

    def count(self, level: str) -> int:
        """Returns how many findings have a level."""
        return sum(finding.level == level for finding in self.findings)

    def document(self) -> dict[str, Any]:
        """Returns the content of check.json."""
        return {
            "version": VERSION,
            "manifest": str(self.manifest),
            "cases": self.cases,
            "findings": [finding.document() for finding in self.findings],
            "statistics": self.statistics,
        }


def check_cohort(
    manifest: Path,
    *,
    against: Sequence[Path] = (),
    workers: int | None = None,
    max_memory: int | None = None,
    on_case: OnCase | None = None,
) -> Report:
    """Checks every case of a manifest, and the cases against each other.

    Args:
        manifest: The cohort.
        against: Other manifests with which it should share no person and no image.
        workers: Processes; None takes as many as memory and cores allow.
        max_memory: Bytes for all workers together; None takes 0.8 of what is free.
        on_case: Called after each case with (manifest, cases done, all cases, case id).

    Raises:
        UserError: If a manifest cannot be read.
    """
    rows, findings = read_rows(manifest)
    other_rows: dict[Path, list[Row]] = {}
    for path in against:
        other_rows[path], wrong = read_rows(path)
        findings += [replace(finding, found=f"{path}, {finding.found}") for finding in wrong]
    exams = _exams(rows, manifest, workers, max_memory, on_case, images_only=False)
    for exam in exams:
        findings.extend(exam.findings)
    findings.extend(table_findings(rows))
    findings.extend(people_findings(rows))
    findings.extend(copy_findings(rows, exams))
    findings.extend(convention_findings(exams))
    findings.extend(volume_findings(exams))
    findings.extend(_unlike_grids(exams))
    findings.extend(_brain_volumes(exams))
    for path, others in other_rows.items():
        findings.extend(overlap_of_ids(rows, others, str(path)))
        other_exams = _exams(others, path, workers, max_memory, on_case, images_only=True)
        findings.extend(overlap_of_images(exams, other_exams, str(path)))
    order = {level: rank for rank, level in enumerate(LEVELS)}
    findings.sort(key=lambda finding: (order[finding.level], finding.code))
    return Report(manifest, _cases(rows, exams, findings), findings, _statistics(rows, exams))


def _exams(
    rows: Sequence[Row],
    manifest: Path,
    workers: int | None,
    max_memory: int | None,
    on_case: OnCase | None,
    *,
    images_only: bool,
) -> list[Exam]:
    root = manifest.parent
    tasks = [Task(row.case_id, ExamTask(row, root, images_only)) for row in rows]
    fitting = worker_count(_bytes_each(rows, root), max_memory=max_memory)

    def told(done: int, case_id: str) -> None:
        if on_case is not None:
            on_case(manifest, done, len(rows), case_id)

    results = run_cases(
        check_exam,
        tasks,
        workers=fitting if workers is None else min(workers, fitting),
        on_case=told,
    )
    return [
        Exam(row.case_id, [_lost(row, result)]) if isinstance(result, UserError) else result
        for row, result in zip(rows, results, strict=True)
    ]


def _lost(row: Row, error: UserError) -> Finding:
    message = str(error).removeprefix(f"{row.case_id}: ")
    return from_message("case.lost", message, case_id=row.case_id, source=None)


def _bytes_each(rows: Sequence[Row], root: Path) -> int:
    """Returns what a worker takes, by the largest of some images."""
    voxels = (math.prod(grid.shape) for grid in sampled_grids(rows, root))
    return _WORKER_BYTES + _VOXEL_BYTES * max(voxels, default=0)


def _unlike_grids(exams: Sequence[Exam]) -> Iterator[Finding]:
    """Yields the cases on another grid, where nearly all are on one."""
    grids = {exam.case_id: _grid_words(exam) for exam in exams if exam.images}
    if not grids:
        return
    common, count = Counter(grids.values()).most_common(1)[0]
    if count < _COMMON * len(grids):
        return
    for case_id, grid in grids.items():
        if grid != common:
            found = f"{grid}; {count} of {len(grids)} cases: {common}"
            yield Finding("geometry.unlike_cohort", found, case_id=case_id)


def _brain_volumes(exams: Sequence[Exam]) -> Iterator[Finding]:
    """Yields the cases whose brain is too small or too large.

    900 to 1900 mL hold adult brains at their own size. A brain that was registered to an atlas has
    the size of the atlas, 1.9 L for MNI152: where the cohort's median tells that, the range is 0.6
    to 1.4 times the median.
    """
    volumes = [exam.brain_ml for exam in exams if exam.brain_ml is not None]
    low, high = _BRAIN_ML
    if len(volumes) >= _FEWEST_BRAINS:
        median = float(np.median(volumes))
        least, most = _ATLAS_MEDIAN_ML
        if least < median < most:
            low, high = (factor * median for factor in _ATLAS_RANGE)
    for exam in exams:
        if exam.brain_ml is not None and not low <= exam.brain_ml <= high:
            yield Finding(
                "image.brain_volume",
                f"{exam.brain_ml:.0f} mL of brain",
                case_id=exam.case_id,
                expected=f"{low:.0f} to {high:.0f} mL",
            )


def _grid_words(exam: Exam) -> str:
    """Returns shape and spacing of an exam's first image."""
    image = next(iter(exam.images.values()))
    spacing = "x".join(f"{round(mm, 2):g}" for mm in image.spacing)
    return f"{'x'.join(map(str, image.shape))} voxels of {spacing} mm"


def _cases(
    rows: Sequence[Row], exams: Sequence[Exam], findings: Sequence[Finding]
) -> list[dict[str, Any]]:
    counts = Counter((finding.case_id, finding.level) for finding in findings)
    return [
        {
            "case_id": row.case_id,
            "split": row.split,
            **{f"{level}s": counts[row.case_id, level] for level in LEVELS},
            "brain_ml": None if exam.brain_ml is None else round(exam.brain_ml, 1),
            "volumes_ml": {
                label: round(volume, 3)
                for label, volume in (exam.mask.volumes_ml if exam.mask else {}).items()
            },
        }
        for row, exam in zip(rows, exams, strict=True)
    ]


def _statistics(rows: Sequence[Row], exams: Sequence[Exam]) -> dict[str, Any]:
    grids = Counter(_grid_words(exam) for exam in exams if exam.images)
    return {
        "splits": split_sizes(rows),
        "sequences": dict(Counter("+".join(row.images) or "none" for row in rows)),
        "classes": class_counts(rows),
        "grids": dict(grids.most_common(20)),
        "brain_ml": summary([exam.brain_ml for exam in exams if exam.brain_ml is not None]),
        **mask_statistics(exams),
    }
