"""The report of an evaluation, report.html: tables with intervals, figures, and honest notes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import colormaps, colors

from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.clinical import figures
from gmmas_jax.clinical.comparison import Example
from gmmas_jax.clinical.pages import data_uri, render
from gmmas_jax.clinical.wording import (
    REGION_TITLES,
    SEQUENCE_TITLES,
    TASK_TITLES,
    class_title,
    percent,
)
from gmmas_jax.metrics.evaluation import CaseResult

_FEW_CASES = 50
_UNDEFINED = "not defined"


def evaluation_report(
    metrics: Mapping[str, Any],
    results: Sequence[CaseResult],
    *,
    tasks: Mapping[str, Sequence[str]],
    title: str,
    synthetic: bool,
    learned_rules: bool = False,
    curves: Sequence[Mapping[str, float | str]] = (),
    examples: Sequence[Example] = (),
    details: Mapping[str, str] | None = None,
) -> str:
    """Renders the page.

    Args:
        metrics: what `metrics.evaluation.summarise` returned for these results.
        results: one record per case.
        tasks: class names by task.
        title: what was evaluated, e.g. the configuration and the cohort.
        synthetic: whether the cases were generated; decides the notes.
        learned_rules: whether the network saw generated patients alone; a note on its tasks.
        curves: the training log, {"step": int, name: value, ...} a line.
        examples: the cases to show.
        details: name to value for the foot of the page, e.g. the weights' sha256.

    Returns:
        HTML with the figures inside.
    """
    regions = list(metrics["regions"])
    pictures = {
        "boxes": figures.score_boxes(results, regions),
        "reliability": figures.reliability_diagrams(results, tasks),
        "roc": figures.roc_curves(results, tasks),
        "curves": figures.training_curves(curves),
    }
    return render(
        "evaluation_report.html.j2",
        title=title,
        metrics=metrics,
        notes=_notes(metrics, synthetic=synthetic, learned_rules=learned_rules),
        regions=[_region_row(name, row) for name, row in metrics["regions"].items()],
        tasks=[
            _task_row(name, row, tasks[name], synthetic=synthetic)
            for name, row in metrics["tasks"].items()
        ],
        sequences=[SEQUENCE_TITLES[s] for s in SEQUENCES],
        region_titles=[REGION_TITLES[r] for r in regions],
        subsets=_subset_rows(metrics["subsets"], regions),
        costs=_dropping_costs(metrics["subsets"], regions),
        figures={n: None if p is None else data_uri(p) for n, p in pictures.items()},
        examples=[
            {
                "rank": example.rank,
                "case": example.case_id,
                "dice": ", ".join(
                    f"{REGION_TITLES[r]} {value:.2f}" for r, value in example.dice.items()
                ),
                "source": data_uri(example.image),
            }
            for example in examples
        ],
        details=dict(details or {}),
    )


def _number(value: float | None, digits: int = 3) -> str:
    return _UNDEFINED if value is None else f"{value:.{digits}f}"


def _with_interval(value: float | None, interval: Sequence[float] | None, digits: int) -> str:
    if value is None or interval is None:
        return _number(value, digits)
    return f"{value:.{digits}f} [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


def _region_row(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    def cell(score: str, digits: int) -> dict[str, str]:
        return {
            "mean": _with_interval(row[score]["mean"], row[score]["ci95"], digits),
            "median": _number(row[score]["median"], digits),
        }

    return {
        "title": REGION_TITLES[name],
        "n": row["n"],
        "empty": row["n_reference_empty"],
        "dice": cell("dice", 3),
        "hd95": cell("hd95", 1),
        "nsd": cell("nsd", 3),
    }


def _task_row(
    name: str, row: Mapping[str, Any], classes: Sequence[str], *, synthetic: bool
) -> dict[str, Any]:
    better = None
    if row["accuracy"] is not None:
        better = row["accuracy"] > row["majority_accuracy"]
    return {
        "title": TASK_TITLES[name],
        "n": row["n"],
        "per_class": ", ".join(
            f"{class_title(name, label)} {row['n_per_class'][label]}" for label in classes
        ),
        "auc": _with_interval(row["auc"], row["auc_ci95"], 2),
        "accuracy": _number(row["accuracy"]),
        "majority": _number(row["majority_accuracy"]),
        "better": better,
        "balanced": _number(row["balanced_accuracy"]),
        "sensitivity": _number(row["sensitivity"]),
        "specificity": _number(row["specificity"]),
        "ece": _number(row["ece"]),
        "brier": _number(row["brier"]),
        "nll": _number(row["nll"]),
        "answered": _answered(row["answered"]),
        "note": _mgmt_note(row) if name == "mgmt" and synthetic else "",
    }


def _answered(answered: Mapping[str, Any]) -> str:
    if answered["share"] is None:
        return "–"
    right = "" if answered["accuracy"] is None else f", {answered['accuracy']:.2f} right"
    return f"{answered['n']} ({percent(answered['share'])}){right}"


def _mgmt_note(row: Mapping[str, Any]) -> str:
    """Returns what an MGMT result on synthetic patients means."""
    note = (
        "On synthetic patients MGMT leaves no trace in the images, by construction. An AUC "
        "interval that contains 0.5 is the correct answer."
    )
    if row["auc_ci95"] is None:
        return note
    low, high = row["auc_ci95"]
    if low <= 0.5 <= high:
        return f"{note} It does."
    return (
        f"{note} It does not: one interval in twenty misses by chance, otherwise something leaks "
        "the label."
    )


def _notes(metrics: Mapping[str, Any], *, synthetic: bool, learned_rules: bool) -> list[str]:
    notes = []
    if synthetic:
        notes.append(
            f"Synthetic patients are not patients. All {metrics['n']} cases were generated: "
            "computer-made tumours in one average brain. These numbers show that the program works "
            "from end to end; they do not show how well it does on real scans."
        )
    else:
        notes.append(
            "These numbers hold for scanners, hospitals and patients like those of this cohort. "
            "On others expect less, and probabilities that are too sure."
        )
    if learned_rules and metrics["tasks"]:
        notes.append(
            "The network learned the tumour's type from generated patients alone, by rules that "
            "the program's authors wrote. What is measured of it here decides nothing about a "
            "patient: gmmas predict withholds these answers."
        )
    if metrics["n"] < _FEW_CASES:
        notes.append(
            f"With {metrics['n']} cases the intervals are wide, and still too narrow where every "
            "case was right."
        )
    beaten = [
        TASK_TITLES[name]
        for name, row in metrics["tasks"].items()
        if row["accuracy"] is not None and row["accuracy"] <= row["majority_accuracy"]
    ]
    if beaten:
        notes.append(f"No better than always naming the most frequent class: {', '.join(beaten)}.")
    return notes


def _subset_rows(
    subsets: Mapping[str, Mapping[str, Any]], regions: Sequence[str]
) -> list[dict[str, Any]]:
    """Returns the subsets with colours for their Dice."""
    return [
        {
            "n": row["n"],
            "name": " + ".join(SEQUENCE_TITLES[s] for s in row["sequences"]),
            "given": [s in row["sequences"] for s in SEQUENCES],
            "cells": [_heat(row["dice"].get(region)) for region in regions],
        }
        for row in subsets.values()
    ]


def _heat(value: float | None) -> dict[str, str]:
    """Returns a Dice value with a background from 0 (pale) to 1 (dark) and ink that can be read."""
    if value is None:
        return {"text": "–", "background": "#ffffff", "ink": "#566273"}
    red, green, blue, _ = colormaps["YlGnBu"](0.05 + 0.75 * min(max(value, 0.0), 1.0) ** 2)
    # Relative luminance by ITU-R BT.709, near enough to choose between black and white.
    light = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return {
        "text": f"{value:.2f}",
        "background": colors.to_hex((red, green, blue)),
        "ink": "#1b2430" if light > 0.5 else "#ffffff",
    }


def _dropping_costs(
    subsets: Mapping[str, Mapping[str, Any]], regions: Sequence[str]
) -> list[dict[str, Any]]:
    """Returns the change of mean Dice when one sequence is left out of all four.

    Only of the same cases: where some lack the sequence, the means cannot be compared. So too a
    region that is outlined in none of their masks.
    """
    by_members = {frozenset(row["sequences"]): row for row in subsets.values()}
    whole = by_members.get(frozenset(SEQUENCES))
    if whole is None:
        return []
    changes = {
        dropped: [
            rest["dice"][r] - whole["dice"][r] if r in whole["dice"] else math.nan for r in regions
        ]
        for dropped in SEQUENCES
        if (rest := by_members.get(frozenset(SEQUENCES) - {dropped})) is not None
        and rest["n"] == whole["n"]
    }
    dearest = [min(column) for column in zip(*changes.values(), strict=True)]  # All NaN or none.
    return [
        {
            "title": SEQUENCE_TITLES[dropped],
            "cells": [
                {"text": _points(change), "most": change == lowest and change < 0}
                for change, lowest in zip(row, dearest, strict=True)
            ],
        }
        for dropped, row in changes.items()
    ]


def _points(change: float) -> str:
    """Returns a change of Dice in points of 100, with a true minus sign and no signed zero."""
    if math.isnan(change):
        return "–"
    text = f"{100 * change:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")
