"""What the record of an exam holds, made sequence by sequence.

At most one sequence is in memory at its full size, beside the record's own arrays (float16, of the
brain's box) and masks. So each file is read twice: all of them say where the brain is, and only
then can the first be cropped and standardised.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.exam_files import ExamFiles
from data_pipelines.store.record import PROGRAM
from gmmas_jax.cases.case import Grid
from gmmas_jax.cases.labels import LABELS
from gmmas_jax.cases.prepare import (
    BrainFrame,
    add_tissue,
    brain_frame,
    prepare_label,
    prepare_sequence,
    whole_label,
    whole_volume,
)
from gmmas_jax.cases.sequences import SEQUENCES, presence
from gmmas_jax.cases.tasks import TASKS, task_index

Record = tuple[dict[str, Any], dict[str, np.ndarray]]
"""Meta and arrays, as `record.write_record` takes them."""


def exam_record(
    exam: ExamFiles,
    *,
    seg: Path | None = None,
    label_convention: str | None = None,
    spacing_mm: float,
    whole: Sequence[int],
    patient_id: str,
    tasks: Mapping[str, str],
    key: str = "",
    inputs: Mapping[str, str] | None = None,
) -> Record:
    """Reads and prepares an exam.

    Args:
        exam: Its files, not yet read.
        seg: The mask's file.
        label_convention: As for `ExamFiles.label`.
        spacing_mm: Isotropic spacing of the image.
        whole: D, H, W of the whole volume.
        patient_id: As in the manifest.
        tasks: Task name to class name, where known.
        key: Hash of all that the arrays depend on.
        inputs: Sequence or "seg" to sha256 of its file, for the provenance.

    Returns:
        Meta and arrays of the record; `data_pipelines.prepared` says what they are.

    Raises:
        UserError: If a file is bad, the files do not belong together, or there is no brain.
    """
    frame = _frame(exam, spacing_mm)
    # The mask before the sequences: what is wrong with it is told before half of the work.
    label = None if seg is None else exam.label(seg, label_convention)[frame.box].copy()
    labels, counts = _label_arrays(label, frame, whole)
    del label
    meta = {
        "case_id": exam.case_id,
        "patient_id": patient_id,
        "tasks": dict(tasks),
        "key": key,
        "sequences": list(exam.paths),
        "foreground": counts,
        "spacing_mm": spacing_mm,
        "whole": list(whole),
        "provenance": {
            "gmmas": PROGRAM,
            "inputs": dict(inputs or {}),
            "label_convention": exam.label_convention,
            "source": _described(exam.source_grid),
            "canonical": _described(exam.grid),
            # Voxels of the canonical grid that the image covers.
            "brain_box": [[side.start, side.stop] for side in frame.box],
            "warnings": exam.warnings,
        },
    }
    return meta, _image_arrays(exam, frame, whole) | labels


def case_features(meta: Mapping[str, Any]) -> dict[str, bytes | list[int]]:
    """Returns the small features of a record; see `store.tfds_builder.features`."""
    answers: dict[str, bytes | list[int]] = {}
    for task in TASKS:
        index = task_index(task, meta["tasks"].get(task))
        answers[task] = [-1 if index is None else index]
    return answers | {
        "case_id": meta["case_id"].encode(),
        "patient_id": meta["patient_id"].encode(),
        "present": presence(meta["sequences"]).astype("<f4").tobytes(),
        "has_label": [int(meta["foreground"] is not None)],
    }


def _frame(exam: ExamFiles, spacing_mm: float) -> BrainFrame:
    """Reads all sequences, one at a time, for where the brain lies."""
    tissue: np.ndarray | None = None
    for name in exam.paths:
        image = exam.read(name)
        if tissue is None:
            tissue = np.zeros(image.shape, bool)
        add_tissue(tissue, image)
        del image
    assert tissue is not None  # There is a sequence.
    return brain_frame(tissue, exam.grid, spacing_mm=spacing_mm, case_id=exam.case_id)


def _image_arrays(
    exam: ExamFiles, frame: BrainFrame, whole: Sequence[int]
) -> dict[str, np.ndarray]:
    channels = len(SEQUENCES)
    image = np.zeros((*frame.brain.shape, channels), np.float16)
    small = np.zeros((*whole, channels), np.float16)
    for channel, name in enumerate(SEQUENCES):
        if name in exam.paths:
            scores = prepare_sequence(np.ascontiguousarray(exam.again(name)[frame.box]), frame)
            image[..., channel] = scores
            small[..., channel] = whole_volume(scores, whole)
            del scores
    return {"image": image, "whole": small}


def _label_arrays(
    label: np.ndarray | None, frame: BrainFrame, whole: Sequence[int]
) -> tuple[dict[str, np.ndarray], list[int] | None]:
    """Returns the arrays of the mask, and its number of voxels per label code from 1 on."""
    if label is None:
        # Not of no voxel: `tfds.data_source` cannot read a tensor of fewer bytes than axes.
        none: np.ndarray = np.zeros((2, 2, 2), np.uint8)
        empty = np.zeros(0, np.int32)
        return {"label": none, "whole_label": none, "foreground": empty}, None
    prepared = prepare_label(label, frame)
    codes = prepared.ravel()
    foreground = np.flatnonzero(codes)
    foreground = foreground[np.argsort(codes[foreground], kind="stable")].astype(np.int32)
    counts: list[int] = np.bincount(codes, minlength=len(LABELS))[1:].tolist()
    arrays = {
        "label": prepared,
        "whole_label": whole_label(prepared, whole),
        "foreground": foreground,
    }
    return arrays, counts


def _described(grid: Grid | None) -> dict[str, Any]:
    assert grid is not None  # The images were read.
    return {"shape": list(grid.shape), "affine": grid.affine.tolist()}
