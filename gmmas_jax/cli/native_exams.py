"""Native exams through preprocessing, prediction, and back to the grid of every sequence."""

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np

from gmmas_jax.cases.case import Case
from gmmas_jax.cases.manifest import Row, read_manifest, write_manifest
from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.cli.case_results import (
    SEGMENTATION,
    check_apart,
    check_convention,
    check_rows,
    failure,
    predict_case,
    predict_rows,
    write_results,
)
from gmmas_jax.cli.preprocess import check_engine, preprocess_manifest
from gmmas_jax.errors import UserError
from gmmas_jax.inference.predictor import Prediction, Predictor

PREPROCESSED = "preprocessed"
MANIFEST = "cohort.csv"
NATIVE = "native"
_LIST = "exam.csv"


def predict_native_folder(
    folder: Path,
    predictor: Predictor,
    out: Path,
    arguments: argparse.Namespace,
    *,
    channel_order: list[str] | None = None,
    probs: bool = False,
    label_convention: str | None = None,
    experimental: bool = False,
) -> Path:
    """Preprocesses the exam in a folder, predicts it, and brings the mask back.

    Args:
        folder: As for `data_pipelines.readers.read_folder`; sequences on grids of their own.
        predictor: The network.
        out: Receives the usual results (on the atlas grid), `native/<sequence>_seg.nii.gz`, and
            the preprocessed exam in `preprocessed`.
        arguments: With the options of `preprocess.add_preprocessing_options`.
        channel_order: As for `read_folder`.
        probs: See `case_results.predict_case`.
        label_convention: See `case_results.predict_case`.
        experimental: See `case_results.predict_case`.

    Returns:
        The folder of the results.

    Raises:
        UserError: Without SimpleITK, or if the exam cannot be read, preprocessed or written.
    """
    check_engine()
    check_convention(predictor, label_convention)
    from data_pipelines.case_files import find_files

    files = find_files(folder, channel_order=channel_order)
    check_apart(files.seg, out)
    images: dict[str, Any] = {name: os.path.abspath(path) for name, path in files.images.items()}
    row = Row(case_id=files.case_id, patient_id=files.case_id, **images)
    preprocessed = out / PREPROCESSED
    write_manifest(preprocessed / _LIST, [row])
    manifest = preprocess_manifest(preprocessed / _LIST, preprocessed, arguments, workers=1)
    (row,) = read_manifest(manifest)
    exam = _read(row, preprocessed)
    predict_case(
        exam,
        predictor,
        out,
        probs=probs,
        label_convention=label_convention,
        experimental=experimental,
    )
    write_native(out, preprocessed / row.case_id)
    return out


def predict_native_cohort(
    cohort: Path,
    predictor: Predictor,
    out: Path,
    arguments: argparse.Namespace,
    *,
    probs: bool = False,
    label_convention: str | None = None,
    experimental: bool = False,
) -> list[Path]:
    """Does the same for every case of a manifest, each into a folder of its name.

    Returns:
        The folders of the results.

    Raises:
        UserError: As `predict_native_folder`; for what is wrong with a case, when all others are
            done.
    """
    check_engine()
    check_convention(predictor, label_convention)
    preprocessed = out / PREPROCESSED
    manifest = preprocessed / MANIFEST
    if cohort.resolve() == manifest.resolve():
        raise UserError(
            f"{cohort}: lists what was preprocessed already; expected the manifest of the native "
            "exams. Give that one, or leave out --preprocess."
        )
    check_rows(cohort, read_manifest(cohort), out)
    # What an earlier call preprocessed must not pass for this one's if all cases fail.
    manifest.unlink(missing_ok=True)
    wrong: list[str] = []
    try:
        preprocess_manifest(cohort, preprocessed, arguments)
    except UserError as error:
        if not manifest.is_file():
            raise
        wrong.append(str(error))

    def write(row: Row, case: Case, prediction: Prediction) -> None:
        folder = out / row.case_id
        write_results(
            case,
            prediction,
            folder,
            identity=predictor.identity,
            probs=probs,
            label_convention=label_convention,
            experimental=experimental,
        )
        write_native(folder, preprocessed / row.case_id)

    rows = read_manifest(manifest)
    failed = predict_rows(rows, predictor, lambda row: _read(row, preprocessed), write)
    if failed:
        wrong.append(failure(manifest, rows, failed, out))
    if wrong:
        raise UserError(" ".join(wrong))
    return [out / row.case_id for row in rows]


def write_native(out: Path, case: Path) -> list[Path]:
    """Writes the mask of a predicted case on the grid of every native sequence.

    Args:
        out: Folder with the mask, which gets the folder `native`.
        case: Folder of the preprocessed case.

    Returns:
        The files, each with exactly the shape and affine of its sequence's file.

    Raises:
        UserError: If a native file is gone or is another one now.
    """
    from data_pipelines.nifti import read_grid, read_mask, write_volume
    from data_pipelines.preprocess.native import read_record, to_native

    record = read_record(case)
    masks = to_native(read_mask(out / SEGMENTATION)[0], case)
    written = []
    for name in (name for name in SEQUENCES if name in masks):
        source = Path(record["sequences"][name]["source"])
        grid = read_grid(source)
        if grid.shape != masks[name].shape:
            raise UserError(
                f"{source}: {grid.shape} voxels; expected {masks[name].shape}, as when it was "
                "preprocessed. Preprocess the exam again."
            )
        written.append(out / NATIVE / f"{name}_seg.nii.gz")
        write_volume(written[-1], masks[name], grid, dtype=np.uint8)
    return written


def _read(row: Row, root: Path) -> Case:
    """Reads a preprocessed exam, with what preprocessing has to say in the report."""
    from data_pipelines.preprocess.native import read_record
    from data_pipelines.readers import read_row

    exam = read_row(row, root, with_label=False)
    record = read_record(root / row.case_id)
    exam.warnings.extend(f"preprocessing: {fault}" for fault in record["faults"])
    exam.warnings.extend(f"preprocessing: {note}" for note in record["notes"])
    scale = record["volume_scale"]
    if abs(scale - 1) > 0.01:
        exam.warnings.append(
            f"preprocessing: the brain was fitted to the atlas's size; volumes in mL are those on "
            f"the atlas, the patient's are {scale:.2f} times as large"
        )
    return exam
