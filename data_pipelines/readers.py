"""From files to a `Case` in memory."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_pipelines.case_files import find_files
from data_pipelines.exam_files import ExamFiles
from gmmas_jax.cases.case import Case
from gmmas_jax.cases.manifest import Row
from gmmas_jax.cases.tasks import TASKS, task_index


def read_case(
    images: Mapping[str, str | os.PathLike[str]],
    *,
    case_id: str,
    seg: str | os.PathLike[str] | None = None,
    label_convention: str | None = None,
    tasks: Mapping[str, str] | None = None,
) -> Case:
    """Reads the sequences of one case, and its label.

    Args:
        images: Sequence (or an alias of it) to path; one to four.
        case_id: Name of the case.
        seg: The label file.
        label_convention: Name of `labels.CONVENTIONS`; None infers it where the values leave no
            doubt, and notes that in the warnings.
        tasks: Task name to class name.

    Raises:
        UserError: If a file is bad (`nifti.read_volume`), sequences and label are not on one
            grid, one file is given as two sequences, there is no sequence, the label's values
            are unknown or ambiguous, or a task value is unknown.
    """
    exam = ExamFiles(images, case_id=case_id)
    volumes = {name: exam.read(name) for name in exam.paths}
    label = None if seg is None else exam.label(seg, label_convention)
    assert exam.source_grid is not None  # There is an image.
    return Case(
        case_id=case_id,
        images=volumes,
        label=label,
        grid=exam.grid,
        source_grid=exam.source_grid,
        tasks=_checked_tasks(case_id, tasks or {}),
        warnings=exam.warnings,
        label_convention=exam.label_convention,
    )


def read_folder(
    folder: str | os.PathLike[str],
    *,
    channel_order: Sequence[str] | None = None,
    label_convention: str | None = None,
    with_label: bool = True,
) -> Case:
    """Reads the case in a folder: `find_files`, then `read_case`.

    Args:
        folder: As for `find_files`.
        channel_order: As for `find_files`.
        label_convention: As for `read_case`.
        with_label: Whether to read a mask that lies there. Without it, a mask of unknown
            convention is no obstacle.

    Raises:
        UserError: As both.
    """
    files = find_files(folder, channel_order=channel_order)
    return read_case(
        files.images,
        case_id=files.case_id,
        seg=files.seg if with_label else None,
        label_convention=label_convention,
    )


def read_row(row: Row, root: str | os.PathLike[str], *, with_label: bool = True) -> Case:
    """Reads the case of a manifest's row.

    Args:
        row: From `manifest.read_manifest`.
        root: The folder of the manifest.
        with_label: Whether to read the mask.

    Raises:
        UserError: As `read_case`.
    """
    root = Path(root)
    return read_case(
        {name: root / path for name, path in row.images.items()},
        case_id=row.case_id,
        seg=root / row.seg if with_label and row.seg is not None else None,
        label_convention=row.label_convention,
        tasks=row.tasks,
    )


def _checked_tasks(case_id: str, tasks: Mapping[str, str]) -> dict[str, str]:
    checked = {}
    for task, value in tasks.items():
        index = task_index(task, value, source=case_id)
        if index is not None:
            checked[task] = TASKS[task][index]
    return checked
