"""What `gmmas predict` writes for a case."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gmmas_jax.cases.case import Case
from gmmas_jax.cases.files import output_folder, write_bytes, write_json, write_text
from gmmas_jax.cases.geometry import from_canonical
from gmmas_jax.cases.labels import LABELS, UNDIVIDED, convert_back
from gmmas_jax.cases.manifest import Row, check_folder_name, read_manifest
from gmmas_jax.cli.progress import CaseProgress
from gmmas_jax.clinical.abstention import AbstentionRule, evidence_of
from gmmas_jax.clinical.findings import build_findings
from gmmas_jax.clinical.overlay import draw_panels, overlay_png
from gmmas_jax.clinical.report import case_report, millilitres
from gmmas_jax.clinical.wording import TASK_TITLES, class_title, percent
from gmmas_jax.errors import UserError
from gmmas_jax.inference.predictor import Prediction, Predictor

SEGMENTATION = "seg.nii.gz"
FINDINGS = "findings.json"
REPORT = "report.html"
OVERLAY = "overlay.png"
PROBABILITIES = "probabilities.nii.gz"
PROBABILITY_NAMES = "probabilities.json"


def predict_folder(
    folder: str | os.PathLike[str],
    predictor: Predictor,
    out: str | os.PathLike[str],
    *,
    channel_order: Sequence[str] | None = None,
    probs: bool = False,
    label_convention: str | None = None,
    experimental: bool = False,
) -> Path:
    """Predicts the case in a folder; a mask that lies there is not read.

    Args:
        folder: As for `data_pipelines.readers.read_folder`.
        predictor: The network.
        out: Receives the results.
        channel_order: As for `read_folder`.
        probs: See `predict_case`.
        label_convention: See `predict_case`.
        experimental: See `predict_case`.

    Returns:
        The folder of the results.

    Raises:
        UserError: If the case cannot be read or the results not written.
    """
    # Of the data side, which importing the library must not load.
    from data_pipelines.case_files import find_files
    from data_pipelines.readers import read_folder

    check_convention(predictor, label_convention)
    check_apart(find_files(folder, channel_order=channel_order).seg, Path(out))
    out = output_folder(out)
    case = read_folder(folder, channel_order=channel_order, with_label=False)
    predict_case(
        case,
        predictor,
        out,
        probs=probs,
        label_convention=label_convention,
        experimental=experimental,
    )
    return out


def predict_cohort(
    manifest: str | os.PathLike[str],
    predictor: Predictor,
    out: str | os.PathLike[str],
    *,
    probs: bool = False,
    label_convention: str | None = None,
    experimental: bool = False,
) -> list[Path]:
    """Predicts every case of a manifest, each into a folder of its name.

    A case that cannot be read is told on the error stream and does not stop the others.

    Returns:
        The folders of the results.

    Raises:
        UserError: If the manifest cannot be read, the results cannot be written, or, when all
            others are done, a case failed.
    """
    from data_pipelines.readers import read_row

    check_convention(predictor, label_convention)
    rows = read_manifest(manifest)
    check_rows(manifest, rows, Path(out))
    out = output_folder(out)

    def write(row: Row, case: Case, prediction: Prediction) -> None:
        write_results(
            case,
            prediction,
            out / row.case_id,
            identity=predictor.identity,
            probs=probs,
            label_convention=label_convention,
            experimental=experimental,
        )

    def read(row: Row) -> Case:
        case = read_row(row, Path(manifest).parent, with_label=False)
        if row.quality == "fail":
            case.warnings.append("preprocessing failed for this case (quality in the manifest)")
        return case

    failed = predict_rows(rows, predictor, read, write)
    if failed:
        raise UserError(failure(manifest, rows, failed, out))
    return [out / row.case_id for row in rows]


def predict_rows(
    rows: Sequence[Row],
    predictor: Predictor,
    read: Callable[[Row], Case],
    write: Callable[[Row, Case, Prediction], None],
) -> list[str]:
    """Predicts one case after the other; what is wrong with a case does not stop the others.

    Args:
        rows: The cases.
        predictor: The network.
        read: Row to case.
        write: Is given each row, its case and what was predicted. Its errors do stop the others:
            results that cannot be written are hours of work for nothing.

    Returns:
        The ids of the cases that failed, the reasons of which are told on the error stream.
    """
    failed: list[str] = []
    with CaseProgress("predict", len(rows)) as progress:
        for count, row in enumerate(rows, 1):
            try:
                case = read(row)
                prediction = predictor.predict(case)
            except UserError as error:
                print(f"{row.case_id}: {error}", file=sys.stderr)
                failed.append(row.case_id)
            else:
                write(row, case, prediction)
            progress.done(count, row.case_id)
    return failed


def failure(
    manifest: str | os.PathLike[str], rows: Sequence[Row], failed: Sequence[str], out: Path
) -> str:
    """Returns the message that names the cases that could not be predicted or measured."""
    return (
        f"{manifest}: {len(failed)} of {len(rows)} cases could not be predicted, for the reasons "
        f"above: {', '.join(failed)}. Correct them; the others are in {out}."
    )


def predict_case(
    case: Case,
    predictor: Predictor,
    out: str | os.PathLike[str],
    *,
    probs: bool = False,
    label_convention: str | None = None,
    experimental: bool = False,
) -> dict[str, Any]:
    """Predicts a case and writes seg.nii.gz, findings.json, report.html and overlay.png.

    Args:
        case: The case.
        predictor: The network.
        out: Folder that receives the results.
        probs: Also write probabilities.nii.gz, and probabilities.json with the names of its
            volumes.
        label_convention: Name of `labels.CONVENTIONS` whose codes the mask gets; None for ours, or
            where the network outlines the tumour as a whole "lesion".
        experimental: Show answers that are no evidence, marked as such (`clinical.abstention`).

    Returns:
        The findings.

    Raises:
        UserError: If the case has no brain, the results cannot be written, or the convention
            cannot express a label.
    """
    check_convention(predictor, label_convention)
    out = output_folder(out)
    return write_results(
        case,
        predictor.predict(case),
        out,
        identity=predictor.identity,
        probs=probs,
        label_convention=label_convention,
        experimental=experimental,
    )


def write_results(
    case: Case,
    prediction: Prediction,
    out: Path,
    *,
    identity: Mapping[str, str],
    probs: bool = False,
    label_convention: str | None = None,
    experimental: bool = False,
) -> dict[str, Any]:
    """Writes what `predict_case` says; `identity` is `Predictor.identity`. The report last."""
    from data_pipelines.nifti import write_volume

    rule = AbstentionRule()
    evidence = evidence_of(
        prediction.tasks, trained_on=identity["trained_on"], experimental=experimental
    )
    findings = build_findings(
        case_id=case.case_id,
        model=identity,
        present=prediction.present,
        warnings=prediction.warnings,
        volumes_ml=prediction.volumes_ml,
        probabilities=prediction.tasks,
        uncertainty=prediction.uncertainty,
        calibrated=(),
        rule=rule,
        evidence=evidence,
    )
    label = prediction.label
    if label_convention is None and prediction.labels == UNDIVIDED:
        label_convention = "lesion"  # One outline, so one code: 1.
    codes = label if label_convention is None else convert_back(label, label_convention)
    grid = case.source_grid
    write_volume(out / SEGMENTATION, from_canonical(codes, grid), grid, dtype=np.uint8)
    if probs:
        # Rounded to half precision, which is plenty and halves the compressed file.
        rounded = from_canonical(prediction.probabilities, grid).astype(np.float16)
        write_volume(out / PROBABILITIES, rounded, grid, dtype=np.float32)
        write_json(out / PROBABILITY_NAMES, {"volumes": list(prediction.labels)})
    spacing = case.grid.spacing
    write_bytes(out / OVERLAY, overlay_png(case.images, label, spacing=spacing, title=case.case_id))
    panels = draw_panels(case.images, label, spacing=spacing)
    write_json(out / FINDINGS, findings)
    write_text(out / REPORT, case_report(findings, panels, rule=rule))
    return findings


def findings_table(path: Path) -> str:
    """Returns what findings.json says in a few lines for a terminal."""
    findings = json.loads(path.read_text(encoding="utf-8"))
    regions = findings["volumes_ml"]["regions"]
    lines = ["  " + ", ".join(f"{name} {millilitres(ml)}" for name, ml in regions.items())]
    for name, task in findings["tasks"].items():
        answer = f"withheld: {task['reason']}"
        if not task["abstained"]:
            answer = (
                f"{class_title(name, task['prediction'])} {percent(max(task['probabilities']))}"
            )
        mark = "  (experimental: no evidence)" if task["experimental"] else ""
        lines.append(f"  {TASK_TITLES[name]}: {answer}{mark}")
    withheld = findings["tasks_withheld"]
    if withheld["tasks"]:
        titles = ", ".join(TASK_TITLES[name] for name in withheld["tasks"])
        lines.append(f"  withheld (--experimental shows them): {titles}; {withheld['reason']}")
    return "\n".join(lines)


def check_convention(predictor: Predictor, name: str | None) -> None:
    """Refuses a convention before long work that could not be written."""
    if name is not None:
        convert_back(np.array([LABELS.index(label) for label in predictor.labels]), name)


def check_rows(manifest: str | os.PathLike[str], rows: Sequence[Row], out: Path) -> None:
    """Refuses rows whose results would lie outside of a folder, or where their own mask is.

    Raises:
        UserError: Naming the row.
    """
    for row in rows:
        check_folder_name(row.case_id, f"{manifest}: ")
        seg = None if row.seg is None else Path(manifest).parent / row.seg
        check_apart(seg, out / row.case_id)


def check_apart(seg: Path | None, out: Path) -> None:
    """Refuses to write the results of a case over its mask, which may be an expert's work.

    Raises:
        UserError: If it would.
    """
    if seg is not None and seg.resolve() == (out / SEGMENTATION).resolve():
        raise UserError(
            f"{seg}: the case's own mask, which the prediction would overwrite; expected results "
            "in another folder. Give another --out."
        )
