"""What `gmmas evaluate` does: predict every case, score it, summarise, report."""

import os
import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gmmas_jax.cases.case import Case
from gmmas_jax.cases.files import output_folder, write_text
from gmmas_jax.cases.labels import LABELS, UNDIVIDED, class_regions
from gmmas_jax.cases.manifest import SPLITS, Row, read_manifest
from gmmas_jax.cases.prepare import Prepared, prepare
from gmmas_jax.cases.sequences import SUBSETS, presence
from gmmas_jax.cases.tasks import task_index
from gmmas_jax.cli.case_results import failure
from gmmas_jax.cli.progress import CaseProgress
from gmmas_jax.clinical.abstention import AbstentionRule
from gmmas_jax.clinical.comparison import Example, comparison_png, pick_examples
from gmmas_jax.clinical.evaluation_report import evaluation_report
from gmmas_jax.clinical.volumes import volumes_ml
from gmmas_jax.errors import UserError
from gmmas_jax.inference.predictor import Prediction, Predictor
from gmmas_jax.metrics.evaluation import CaseResult, cases_csv, metrics_json, summarise
from gmmas_jax.metrics.segmentation import dice_regions, score_regions
from gmmas_jax.train.logging import read_log

METRICS = "metrics.json"
CASES = "cases.csv"
REPORT = "report.html"

SubsetDice = dict[tuple[str, ...], list[Mapping[str, float]]]


def evaluate(
    predictor: Predictor,
    cohort: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    split: str | None = "test",
    subset_cases: int | None = None,
    log: str | Path | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Writes metrics.json, cases.csv and report.html.

    Cases are scored on their own grid; the table of the sequence subsets at the network's spacing.

    Args:
        predictor: The network.
        cohort: The manifest.
        out: Receives the results.
        split: Rows to take; None takes all.
        subset_cases: How many cases with a mask, the first ones, are also predicted from each of
            the 15 subsets of their sequences; None for all.
        log: The training's metrics.jsonl, for its curves.
        seed: Of the bootstrap.

    Returns:
        The content of metrics.json.

    Raises:
        UserError: If a file cannot be written, there is no case of the split, or none with a mask
            or a task's label; at the end, if cases could not be read: the others are measured.
    """
    if subset_cases is not None and subset_cases < 0:
        raise UserError(f"--subset-cases is {subset_cases}; expected at least 0.")
    rows = _rows(Path(cohort), split)
    if not any(row.seg or row.tasks.keys() & set(predictor.tasks) for row in rows):
        raise UserError(
            f"{cohort}: none of {len(rows)} cases has a mask or a label of "
            f"{', '.join(predictor.tasks) or 'a task'}; expected some to measure by. Fill the "
            "column seg, or those of the tasks, or use `gmmas predict`."
        )
    curves = () if log is None else _log(Path(log))
    out = output_folder(out)
    root = Path(cohort).parent
    subset_dice: SubsetDice = {subset: [] for subset in SUBSETS}
    results, masks, failed = _predict_all(predictor, rows, root, subset_dice, subset_cases)
    if not results:
        raise UserError(failure(cohort, rows, failed, out))
    metrics = summarise(
        results,
        tasks=predictor.tasks,
        seed=seed,
        subset_dice={subset: dice for subset, dice in subset_dice.items() if dice},
    )
    synthetic = all(row.site == "synthetic" for row in rows)
    subsets = bool(metrics["subsets"])
    metrics |= {
        "subsets_spacing_mm": predictor.spacing_mm if subsets else None,
        "model": predictor.identity,
        "split": split or "all",
        "synthetic": synthetic,
        "failed": failed,
    }
    write_text(out / METRICS, metrics_json(metrics))
    write_text(out / CASES, cases_csv(results, tasks=predictor.tasks))
    page = evaluation_report(
        metrics,
        results,
        tasks=predictor.tasks,
        title=f"{predictor.identity['config']} on {Path(cohort).name}, {_described(split)}",
        synthetic=synthetic,
        learned_rules=predictor.identity["trained_on"] == "generated",
        curves=curves,
        examples=_examples(results, rows, root, masks),
        details=_details(predictor, subsets),
    )
    write_text(out / REPORT, page)
    if failed:
        raise UserError(failure(cohort, rows, failed, out))
    return metrics


def _predict_all(
    predictor: Predictor,
    rows: Sequence[Row],
    root: Path,
    subset_dice: SubsetDice,
    subset_cases: int | None,
) -> tuple[list[CaseResult], dict[str, bytes], list[str]]:
    """Returns a record per case, its compressed mask, and what failed; fills the table of subsets.

    What is wrong with a case is told on the error stream and does not stop the others.
    """
    # Of the data side, which importing the library must not load.
    from data_pipelines.readers import read_row

    results: list[CaseResult] = []
    masks: dict[str, bytes] = {}
    failed: list[str] = []
    left = len(rows) if subset_cases is None else subset_cases
    with CaseProgress("evaluate", len(rows)) as progress:
        for count, row in enumerate(rows, 1):
            try:
                case = read_row(row, root)
                prepared = prepare(case, spacing_mm=predictor.spacing_mm)
                found = predictor.predict_prepared(prepared)
            except UserError as error:
                print(f"{row.case_id}: {error}", file=sys.stderr)
                failed.append(row.case_id)
            else:
                prediction = predictor.finish(case, prepared, found)
                results.append(score_case(case, prediction))
                # Which cases will be shown is known at the end; masks compress to a hundredth.
                masks[case.case_id] = zlib.compress(prediction.label.tobytes(), 1)
                if prepared.label is not None and left > 0:
                    known = {prediction.present: found.label}
                    _add_subsets(predictor, prepared, known, subset_dice)
                    left -= 1
            progress.done(count, row.case_id)
    return results, masks, failed


def score_case(case: Case, prediction: Prediction) -> CaseResult:
    """Compares a prediction with what is known about its case."""
    rule = AbstentionRule()
    regions = list(class_regions(prediction.labels))
    scores, reference = {}, {}
    if case.label is not None:
        regions = _outlined(case.label, regions)
        scores = score_regions(
            prediction.label, case.label, spacing=case.grid.spacing, regions=regions
        )
        reference = volumes_ml(case.label, voxel_ml=case.grid.voxel_ml, known_labels=LABELS[1:])[
            "regions"
        ]
    tumour_found = rule.tumour_found(prediction.volumes_ml["regions"]["WT"])
    return CaseResult(
        case_id=case.case_id,
        dice={region: score.dice for region, score in scores.items()},
        hd95={region: score.hd95 for region, score in scores.items()},
        nsd={region: score.nsd for region, score in scores.items()},
        volumes_ml=prediction.volumes_ml["regions"],
        reference_volumes_ml={r: reference[r] for r in regions if r in reference},
        task_probabilities=prediction.tasks,
        task_truth={task: task_index(task, case.tasks.get(task)) for task in prediction.tasks},
        task_uncertainty=prediction.uncertainty,
        task_abstained={
            task: rule.reason(
                row, uncertainty=prediction.uncertainty.get(task), tumour_found=tumour_found
            )
            is not None
            for task, row in prediction.tasks.items()
        },
        present=prediction.present,
    )


def _outlined(label: np.ndarray, regions: Sequence[str]) -> list[str]:
    """Returns those of the regions that a mask outlines: where its parts were not, the whole."""
    undivided = bool((label == LABELS.index(UNDIVIDED[1])).any())
    return ["WT"] if undivided else list(regions)


def short_table(metrics: Mapping[str, Any]) -> str:
    """Returns the main numbers in a few lines for a terminal."""
    lines = [f"{metrics['n']} cases, protocol {metrics['protocol']}"]
    for region, row in metrics["regions"].items():
        dice, hd95 = row["dice"], row["hd95"]
        lines.append(
            f"  {region:12} Dice {_number(dice['mean'])} {_interval(dice['ci95'])}   "
            f"HD95 {_number(hd95['mean'], 1)} mm"
        )
    for task, row in metrics["tasks"].items():
        lines.append(
            f"  {task:12} AUC  {_number(row['auc'])} {_interval(row['auc_ci95'])}   "
            f"accuracy {_number(row['accuracy'])}, majority class "
            f"{_number(row['majority_accuracy'])}, n {row['n']}"
        )
    return "\n".join(lines)


def _rows(cohort: Path, split: str | None) -> list[Row]:
    rows = read_manifest(cohort)
    failed = [row.case_id for row in rows if row.quality == "fail"]
    if failed:
        print(f"left out, quality=fail in the manifest: {', '.join(failed)}", file=sys.stderr)
        rows = [row for row in rows if row.quality != "fail"]
    if not rows:
        raise UserError(
            f"{cohort}: every case has quality=fail; expected some that can be used. Look at what "
            "`gmmas preprocess` said of them."
        )
    if split is None:
        return rows
    chosen = [row for row in rows if row.split == split]
    if not chosen:
        counts = {name: sum(row.split == name for row in rows) for name in SPLITS}
        found = ", ".join(f"{name} {count}" for name, count in counts.items() if count) or "none"
        raise UserError(
            f"{cohort}: no case has split {split!r}; found: {found}, of {len(rows)} cases. Fill "
            "the column split, or take all cases (--split all)."
        )
    return chosen


def _log(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; expected the metrics.jsonl of a training run. Check the path, "
            "or leave --log out."
        )
    return read_log(path)


def _add_subsets(
    predictor: Predictor,
    prepared: Prepared,
    known: Mapping[tuple[str, ...], np.ndarray],
    subset_dice: SubsetDice,
) -> None:
    """Adds the case's Dice for every subset that it has; `known` are labels already predicted."""
    assert prepared.label is not None  # Only cases with a mask come here.
    regions = _outlined(prepared.label, list(class_regions(predictor.labels)))
    for subset, scores in subset_dice.items():
        mask = presence(subset)
        if (mask > prepared.present).any() or not predictor.can_use(mask):
            continue
        label = known.get(subset)
        if label is None:
            label = predictor.predict_prepared(prepared, mask).label
        scores.append(dice_regions(label, prepared.label, regions=regions))


def _examples(
    results: Sequence[CaseResult], rows: Sequence[Row], root: Path, masks: Mapping[str, bytes]
) -> list[Example]:
    """Reads best, median and worst case once more and draws them."""
    from data_pipelines.readers import read_row

    row_of = {row.case_id: row for row in rows}
    dice_of = {result.case_id: result.dice for result in results}
    examples = []
    for rank, case_id in pick_examples(results).items():
        case = read_row(row_of[case_id], root)
        assert case.label is not None  # Only scored cases are picked.
        label = np.frombuffer(zlib.decompress(masks[case_id]), np.uint8).reshape(case.label.shape)
        image = comparison_png(case.images, label, case.label, spacing=case.grid.spacing)
        examples.append(Example(rank, case_id, dice_of[case_id], image))
    return examples


def _details(predictor: Predictor, subsets: bool) -> dict[str, str]:
    details = {"weights sha256": predictor.identity["weights_sha256"]}
    if subsets:
        details["sequence subsets"] = f"scored at {predictor.spacing_mm:g} mm, all else on the grid"
    return details


def _described(split: str | None) -> str:
    return "all cases" if split is None else f"split {split}"


def _number(value: float | None, digits: int = 3) -> str:
    return "not defined" if value is None else f"{value:.{digits}f}"


def _interval(bounds: Sequence[float] | None) -> str:
    return "" if bounds is None else f"[{bounds[0]:.2f}, {bounds[1]:.2f}]"
