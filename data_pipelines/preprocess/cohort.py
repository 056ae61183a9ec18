"""Many cases: resumed, in worker processes, with a manifest of what came of them."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from data_pipelines.preprocess.atlas import Atlas, load_atlas
from data_pipelines.preprocess.brain import installed
from data_pipelines.preprocess.case import FORMAT, preprocess_case
from data_pipelines.preprocess.native import RECORD, read_record
from data_pipelines.preprocess.settings import Settings
from data_pipelines.workers import Task, run_cases
from gmmas_jax.cases.files import output_folder
from gmmas_jax.cases.manifest import Row, check_folder_name, write_manifest
from gmmas_jax.errors import UserError

MANIFEST = "cohort.csv"
BYTES_EACH = 1_800_000_000
"""What one worker takes at most, 1.45 GB measured on an exam of 512 x 512 x 68 voxels."""


class Job(NamedTuple):
    """One case, as it is sent to a worker.

    Attributes:
        row: Of the manifest.
        root: Folder that its paths are relative to.
        out: Folder of the results of all cases.
        atlas: Path of the template, or None.
        atlas_mask: Path of its brain, or None.
        settings: How.
    """

    row: Row
    root: Path
    out: Path
    atlas: Path | None
    atlas_mask: Path | None
    settings: Settings


def preprocess_cohort(
    rows: Sequence[Row],
    root: Path,
    out: Path,
    *,
    settings: Settings,
    atlas: Path | None = None,
    atlas_mask: Path | None = None,
    workers: int = 1,
    on_case: Callable[[int, str], None] | None = None,
) -> tuple[list[Row], dict[str, list[str]], dict[str, UserError]]:
    """Preprocesses the cases of a manifest and writes the manifest of the results.

    An interrupted call goes on where it stopped: a case whose files and settings did not change
    is kept as it is.

    Args:
        rows: Of the manifest.
        root: Folder that their paths are relative to.
        out: Receives a folder per case, and cohort.csv.
        settings: How.
        atlas: A template; None for MNI152.
        atlas_mask: Its brain; None: what is not 0.
        workers: Processes; one works in this process.
        on_case: Called after each case with (cases done, case id).

    Returns:
        The rows of the new manifest, the faults of the cases whose quality is `fail`, and the
        errors of the cases that could not be done and are in no row.

    Raises:
        UserError: If the atlas cannot be read, an id is no name of a folder, or the results cannot
            be written.
    """
    for row in rows:
        check_folder_name(row.case_id, "")
    out = output_folder(out)
    _atlas(atlas, atlas_mask, settings.spacing_mm)
    tasks = [Task(row.case_id, Job(row, root, out, atlas, atlas_mask, settings)) for row in rows]
    if workers == 1:
        results = _here(tasks, on_case)
    else:
        results = run_cases(run_job, tasks, workers=workers, on_case=on_case)
    made, failed, errors = [], {}, {}
    for row, result in zip(rows, results, strict=True):
        if isinstance(result, UserError):
            errors[row.case_id] = result
            continue
        made.append(_result_row(row, result))
        if result:
            failed[row.case_id] = result
    if made:
        write_manifest(out / MANIFEST, made)
    return made, failed, errors


def run_job(job: Job) -> list[str]:
    """Preprocesses one case unless that was done already; returns its faults.

    Raises:
        UserError: As `preprocess_case`.
    """
    row, folder = job.row, job.out / job.row.case_id
    atlas = _atlas(job.atlas, job.atlas_mask, job.settings.spacing_mm)
    images = {name: job.root / path for name, path in row.images.items()}
    if not images:
        raise UserError(f"{row.case_id}: no sequence in its row; expected at least one.")
    seg = job.root / row.seg if row.seg is not None else None
    fingerprint = _fingerprint(images, seg, row.label_convention, atlas, job.settings)
    done = _done(folder, fingerprint, row)
    if done is not None:
        return done
    # Without a record a half-written case is never taken for a whole one.
    (folder / RECORD).unlink(missing_ok=True)
    record = preprocess_case(
        row.case_id,
        images,
        folder,
        atlas,
        job.settings,
        seg=seg,
        label_convention=row.label_convention,
        fingerprint=fingerprint,
    )
    faults: list[str] = record["faults"]
    return faults


def _here(
    tasks: Sequence[Task[Job]], on_case: Callable[[int, str], None] | None
) -> list[list[str] | UserError]:
    results: list[list[str] | UserError] = []
    for count, task in enumerate(tasks, 1):
        try:
            results.append(run_job(task.item))
        except UserError as error:
            results.append(error)
        if on_case is not None:
            on_case(count, task.case_id)
    return results


@lru_cache(maxsize=1)
def _atlas(path: Path | None, mask: Path | None, spacing_mm: float) -> Atlas:
    return load_atlas(path, mask=mask, spacing_mm=spacing_mm)


def _fingerprint(
    images: dict[str, Path],
    seg: Path | None,
    convention: str | None,
    atlas: Atlas,
    settings: Settings,
) -> str:
    """Returns a hash of all that the results depend on."""
    files = dict(images) | ({"seg": seg} if seg is not None else {})
    digests = {}
    for name, path in files.items():
        try:
            with path.open("rb") as file:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UserError(
                f"{path}: cannot be read ({error.strerror}); expected a NIfTI file. Correct the "
                "path in the manifest."
            ) from error
    extractor = settings.brain_extraction
    if extractor == "auto":
        extractor = installed()
    made_by = settings.record() | {"brain_extraction": extractor}
    everything = [FORMAT, digests, convention, atlas.sha256, made_by]
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def _done(folder: Path, fingerprint: str, row: Row) -> list[str] | None:
    """Returns the faults of a case that is there already, whole and of the same inputs."""
    if not (folder / RECORD).is_file():
        return None
    record = read_record(folder)
    names = [*row.images, *(["seg"] if row.seg else [])]
    there = all((folder / f"{row.case_id}-{name}.nii.gz").is_file() for name in names)
    if record.get("fingerprint") != fingerprint or not there:
        return None
    faults: list[str] = record["faults"]
    return faults


def _result_row(row: Row, faults: list[str]) -> Row:
    names = [*row.images, *(["seg"] if row.seg else [])]
    paths: dict[str, Any] = {name: f"{row.case_id}/{row.case_id}-{name}.nii.gz" for name in names}
    return replace(row, **paths, quality="fail" if faults else "pass")
