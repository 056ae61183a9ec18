"""What one case's evaluation yields, and its summary over a cohort: metrics.json and cases.csv."""

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from gmmas_jax.cases.sequences import SUBSETS
from gmmas_jax.metrics import calibration
from gmmas_jax.metrics.bootstrap import REPEATS, mean_interval, stream
from gmmas_jax.metrics.classification import labelled, score_classification
from gmmas_jax.metrics.segmentation import PROTOCOL, TOLERANCE_MM

SCORES = ("dice", "hd95", "nsd")


@dataclass(frozen=True)
class CaseResult:
    """The evaluation record of one case. What is not known is left out of the dictionaries.

    Attributes:
        case_id: name of the case.
        dice: by region; empty when the case has no reference mask.
        hd95: by region, mm.
        nsd: by region.
        volumes_ml: predicted volume by region.
        reference_volumes_ml: volume of the reference mask by region.
        task_probabilities: by task, [k] float in the order of the task's classes.
        task_truth: by task the class index, None where the label is missing.
        task_uncertainty: by task, the spread of the Monte-Carlo passes.
        task_abstained: by task, whether the prediction was withheld.
        present: the sequences the prediction was made from.
    """

    case_id: str
    dice: Mapping[str, float] = field(default_factory=dict)
    hd95: Mapping[str, float] = field(default_factory=dict)
    nsd: Mapping[str, float] = field(default_factory=dict)
    volumes_ml: Mapping[str, float] = field(default_factory=dict)
    reference_volumes_ml: Mapping[str, float] = field(default_factory=dict)
    task_probabilities: Mapping[str, Sequence[float] | np.ndarray] = field(default_factory=dict)
    task_truth: Mapping[str, int | None] = field(default_factory=dict)
    task_uncertainty: Mapping[str, float] = field(default_factory=dict)
    task_abstained: Mapping[str, bool] = field(default_factory=dict)
    present: tuple[str, ...] = ()


def summarise(
    results: Sequence[CaseResult],
    *,
    tasks: Mapping[str, Sequence[str]],
    seed: int,
    subset_dice: Mapping[tuple[str, ...], Sequence[Mapping[str, float]]] | None = None,
    tolerance_mm: float = TOLERANCE_MM,
    repeats: int = REPEATS,
) -> dict[str, Any]:
    """Summarises a cohort as the content of metrics.json.

    Args:
        results: one record per case.
        tasks: class names by task, the tasks to report.
        seed: seed of the bootstrap.
        subset_dice: per subset of the sequences the Dice by region of each case predicted from that
            subset alone; None or missing subsets when it was not measured.
        tolerance_mm: the NSD tolerance the records were made with.
        repeats: bootstrap replicates.

    Returns:
        A dictionary that `json.dumps(..., allow_nan=False)` accepts; what is not defined is None.
    """
    return _finite(
        {
            "protocol": PROTOCOL,
            "nsd_tolerance_mm": tolerance_mm,
            "bootstrap": {"level": 0.95, "repeats": repeats, "seed": seed},
            "n": len(results),
            "regions": {
                region: _summarise_region(results, region, seed=seed, repeats=repeats)
                for region in _regions_of(results)
            },
            "tasks": {
                task: _summarise_task(results, task, classes, seed=seed, repeats=repeats)
                for task, classes in tasks.items()
            },
            "subsets": _summarise_subsets(subset_dice or {}),
        }
    )


def collect_task(
    results: Sequence[CaseResult], task: str, *, classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns probabilities [n k] and classes [n] of the cases with a prediction and a label."""
    held = [r for r in results if task in r.task_probabilities]
    return labelled(
        [np.asarray(r.task_probabilities[task]) for r in held],
        [r.task_truth.get(task) for r in held],
        classes=classes,
    )


def metrics_json(summary: Mapping[str, Any]) -> str:
    """Returns the text of metrics.json; NaN and infinity are refused."""
    return json.dumps(summary, indent=2, allow_nan=False) + "\n"


def cases_csv(results: Sequence[CaseResult], *, tasks: Mapping[str, Sequence[str]]) -> str:
    """Returns one row per case: scores, volumes, truths, probabilities. Empty means not known.

    Args:
        results: one record per case.
        tasks: class names by task.
    """
    regions = _regions_of(results)
    rows = [_row(result, regions, tasks) for result in results]
    names = list(rows[0]) if rows else ["case_id"]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def subset_key(subset: Sequence[str]) -> str:
    """Returns the name of a subset in metrics.json, e.g. "t1c+t2f"."""
    return "+".join(subset)


def _regions_of(results: Sequence[CaseResult]) -> list[str]:
    """Returns the regions that occur, in order of first appearance."""
    return list(dict.fromkeys(region for result in results for region in result.dice))


def _summarise_region(
    results: Sequence[CaseResult], region: str, *, seed: int, repeats: int
) -> dict[str, Any]:
    scored = [result for result in results if region in result.dice]
    summary: dict[str, Any] = {
        "n": len(scored),
        "n_reference_empty": sum(r.reference_volumes_ml.get(region) == 0 for r in scored),
    }
    for score in SCORES:
        values = np.array(
            [getattr(r, score)[region] for r in scored if region in getattr(r, score)]
        )
        rng = stream(seed, "region", region, score)
        summary[score] = {
            "mean": float(values.mean()) if values.size else None,
            "median": float(np.median(values)) if values.size else None,
            "ci95": mean_interval(values, rng=rng, repeats=repeats),
        }
    return summary


def _summarise_task(
    results: Sequence[CaseResult], task: str, classes: Sequence[str], *, seed: int, repeats: int
) -> dict[str, Any]:
    probabilities, truth = collect_task(results, task, classes=classes)
    score = score_classification(
        probabilities, truth, classes=classes, rng=stream(seed, "task", task), repeats=repeats
    )
    return {
        **asdict(score),
        "ece": calibration.expected_calibration_error(probabilities, truth),
        "brier": calibration.brier_score(probabilities, truth),
        "nll": calibration.negative_log_likelihood(probabilities, truth),
        "answered": _answered(results, task),
    }


def _answered(results: Sequence[CaseResult], task: str) -> dict[str, Any]:
    """Returns how many labelled cases got an answer, and how many of the answers were right."""
    known = [
        r
        for r in results
        if task in r.task_probabilities
        and task in r.task_abstained
        and r.task_truth.get(task) is not None
    ]
    answered = [r for r in known if not r.task_abstained[task]]
    right = [int(np.argmax(r.task_probabilities[task])) == r.task_truth[task] for r in answered]
    return {
        "n": len(answered),
        "share": len(answered) / len(known) if known else None,
        "accuracy": float(np.mean(right)) if right else None,
    }


def _summarise_subsets(
    subset_dice: Mapping[tuple[str, ...], Sequence[Mapping[str, float]]],
) -> dict[str, Any]:
    """Returns mean Dice per subset, in the order the published tables use."""
    by_members = {frozenset(subset): cases for subset, cases in subset_dice.items()}
    summary: dict[str, Any] = {}
    for subset in SUBSETS:
        if frozenset(subset) not in by_members:
            continue
        cases = by_members[frozenset(subset)]
        regions = dict.fromkeys(region for case in cases for region in case)
        summary[subset_key(subset)] = {
            "sequences": list(subset),
            "n": len(cases),
            "dice": {
                region: float(np.mean([case[region] for case in cases if region in case]))
                for region in regions
            },
        }
    return summary


def _row(
    result: CaseResult, regions: Sequence[str], tasks: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    row: dict[str, Any] = {"case_id": result.case_id, "sequences": "+".join(result.present)}
    for region in regions:
        for score in SCORES:
            row[f"{score}_{region}"] = getattr(result, score).get(region)
        row[f"volume_ml_{region}"] = result.volumes_ml.get(region)
        row[f"reference_volume_ml_{region}"] = result.reference_volumes_ml.get(region)
    for task, classes in tasks.items():
        truth = result.task_truth.get(task)
        probabilities = result.task_probabilities.get(task)
        row[f"{task}_truth"] = None if truth is None else classes[truth]
        row[f"{task}_prediction"] = (
            None if probabilities is None else classes[int(np.argmax(probabilities))]
        )
        for index, name in enumerate(classes):
            row[f"{task}_p_{name}"] = None if probabilities is None else probabilities[index]
        row[f"{task}_uncertainty"] = result.task_uncertainty.get(task)
        row[f"{task}_abstained"] = result.task_abstained.get(task)
    return {name: _cell(value) for name, value in row.items()}


def _cell(value: Any) -> Any:
    """Returns a value as it stands in the CSV: six significant digits, empty for unknown."""
    if value is None:
        return ""
    if isinstance(value, bool | str):
        return value
    return f"{float(value):.6g}" if math.isfinite(float(value)) else ""


def _finite(value: Any) -> Any:
    """Returns a JSON-able copy in which NaN and infinity became None, tuples lists."""
    handlers: list[tuple[type | tuple[type, ...], Callable[[Any], Any]]] = [
        (Mapping, lambda v: {str(k): _finite(item) for k, item in v.items()}),
        ((list, tuple), lambda v: [_finite(item) for item in v]),
        (float, lambda v: float(v) if math.isfinite(v) else None),
    ]
    for kind, convert in handlers:
        if isinstance(value, kind):
            return convert(value)
    return value
