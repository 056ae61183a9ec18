"""Figures of an evaluation: training curves, score boxes, reliability diagrams, ROC curves."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gmmas_jax.clinical.overlay import png
from gmmas_jax.clinical.wording import REGION_TITLES, TASK_TITLES, class_title
from gmmas_jax.metrics.calibration import reliability
from gmmas_jax.metrics.classification import roc_points
from gmmas_jax.metrics.evaluation import CaseResult, collect_task

_INK, _MUTED, _LINE = "#1b2430", "#566273", "#dfe4ea"
_ACCENT = "#175e73"
# Okabe & Ito, without yellow, which is hard to see on white.
_SERIES = ("#175e73", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7d8894")
_DPI = 150

# Prefix of a logged name, and the title of the panel that shows it.
_CURVE_GROUPS = (
    ("loss", "Training loss"),
    ("loss/", "Loss of each part"),
    ("dice/", "Dice on training patches"),
    ("accuracy/", "Accuracy on training patches"),
)

Task = tuple[str, Sequence[str]]


def training_curves(records: Sequence[Mapping[str, float | str]]) -> bytes | None:
    """Draws the logged metrics against the step.

    Args:
        records: {"step": int, name: value, ...} a logged step, as in the training log; names are
            grouped by what stands before "/".

    Returns:
        PNG bytes, or None where there is nothing to draw.
    """
    names = list(dict.fromkeys(name for record in records for name in record))
    panels = []
    for prefix, title in _CURVE_GROUPS:
        members = [n for n in names if (n.startswith(prefix) if prefix[-1] == "/" else n == prefix)]
        if members:
            panels.append((prefix, title, members))
    if not panels:
        return None
    figure, axes = _grid(len(panels), columns=2, size=(4.6, 2.7))
    for place, (prefix, title, members) in zip(axes, panels, strict=True):
        for index, name in enumerate(members):
            points = [(float(r["step"]), float(r[name])) for r in records if name in r]
            x, y = np.array(points).T
            short = name.removeprefix(prefix)
            label = TASK_TITLES.get(short, REGION_TITLES.get(short, short))
            place.plot(x, y, color=_SERIES[index % len(_SERIES)], linewidth=1.4, label=label)
        _style(place, title, "step")
        if prefix[-1] == "/":
            place.legend(fontsize=7, frameon=False, ncols=2, labelcolor=_MUTED)
        else:
            place.set_ylim(bottom=min(0.0, place.get_ylim()[0]))
    return png(figure, _DPI)


def score_boxes(results: Sequence[CaseResult], regions: Sequence[str]) -> bytes | None:
    """Draws Dice and HD95 of every case, a box and a point each.

    Args:
        results: one record per case.
        regions: regions to show.

    Returns:
        PNG bytes, or None without a scored case.
    """
    if not any(region in r.dice for r in results for region in regions):
        return None
    figure, (left, right) = _grid(2, columns=2, size=(4.6, 3.0))
    for axes, score, title in ((left, "dice", "Dice"), (right, "hd95", "HD95, mm")):
        values = [
            np.array([getattr(r, score)[region] for r in results if region in getattr(r, score)])
            for region in regions
        ]
        axes.boxplot(
            values,
            tick_labels=[REGION_TITLES[region] for region in regions],
            widths=0.5,
            showfliers=False,
            medianprops={"color": _ACCENT, "linewidth": 2},
            boxprops={"color": _MUTED},
            whiskerprops={"color": _MUTED},
            capprops={"color": _MUTED},
        )
        for index, column in enumerate(values):
            # Spread by rank, not at random: the same cases give the same picture.
            offset = (np.argsort(np.argsort(column)) * 0.618 % 1 - 0.5) * 0.3
            axes.plot(index + 1 + offset, column, "o", color=_ACCENT, alpha=0.45, markersize=3.5)
        _style(axes, title, "")
        axes.tick_params(axis="x", labelsize=8.5)
        if score == "dice":
            axes.set_ylim(-0.02, 1.02)
        else:
            axes.set_yscale("symlog", linthresh=10)
            axes.set_ylim(bottom=0)
            axes.set_yticks([0, 5, 10, 50, 100, 400], labels=["0", "5", "10", "50", "100", "400"])
    return png(figure, _DPI)


def reliability_diagrams(
    results: Sequence[CaseResult], tasks: Mapping[str, Sequence[str]]
) -> bytes | None:
    """Draws accuracy against confidence in ten bins, a panel per task with labelled cases.

    Args:
        results: one record per case.
        tasks: class names by task.

    Returns:
        PNG bytes, or None without a labelled case.
    """
    return _per_task(results, tasks, _draw_reliability)


def roc_curves(results: Sequence[CaseResult], tasks: Mapping[str, Sequence[str]]) -> bytes | None:
    """Draws the ROC curve of each task: of the last of two classes, of each class of more.

    Args:
        results: one record per case.
        tasks: class names by task.

    Returns:
        PNG bytes, or None without a labelled case.
    """
    return _per_task(results, tasks, _draw_roc)


def _per_task(
    results: Sequence[CaseResult],
    tasks: Mapping[str, Sequence[str]],
    draw: Callable[[Axes, Task, np.ndarray, np.ndarray], None],
) -> bytes | None:
    """Draws a square panel for each task that has labelled cases."""
    data = [
        (task, *collect_task(results, task, classes=classes)) for task, classes in tasks.items()
    ]
    data = [item for item in data if item[2].size]
    if not data:
        return None
    figure, axes = _grid(len(data), columns=3, size=(3.2, 3.2))
    for place, (task, probabilities, truth) in zip(axes, data, strict=True):
        draw(place, (task, tasks[task]), probabilities, truth)
        place.plot([0, 1], [0, 1], color=_MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
        place.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    return png(figure, _DPI)


def _draw_reliability(axes: Axes, task: Task, probabilities: np.ndarray, truth: np.ndarray) -> None:
    curve = reliability(probabilities, truth)
    filled = curve.count > 0
    centre = (curve.edges[:-1] + curve.edges[1:]) / 2
    axes.bar(
        centre[filled], curve.accuracy[filled], width=0.092, color=_ACCENT, alpha=0.25, zorder=2
    )
    axes.plot(
        curve.confidence[filled], curve.accuracy[filled], "o-", color=_ACCENT, markersize=4,
        linewidth=1.2, zorder=3,
    )  # fmt: skip
    for x, count in zip(centre[filled], curve.count[filled], strict=True):
        axes.text(x, 0.02, str(count), ha="center", fontsize=6.5, color=_MUTED, zorder=4)
    _style(axes, f"{TASK_TITLES[task[0]]} (n = {truth.size})", "confidence")
    axes.set_ylabel("accuracy", fontsize=8, color=_MUTED)


def _draw_roc(axes: Axes, task: Task, probabilities: np.ndarray, truth: np.ndarray) -> None:
    name, classes = task
    shown = range(1, 2) if len(classes) == 2 else range(len(classes))
    drawn = 0
    for index in shown:
        points = roc_points(probabilities[:, index], truth == index)
        if points is not None:
            colour = _SERIES[(index - shown.start) % len(_SERIES)]
            label = class_title(name, classes[index])
            axes.plot(*points, color=colour, linewidth=1.6, label=label, zorder=3)
            drawn += 1
    if drawn:
        axes.legend(fontsize=7, frameon=False, loc="lower right", labelcolor=_MUTED)
    else:
        axes.text(0.5, 0.5, "one class only:\nnot defined", ha="center", va="center", color=_MUTED)
    _style(axes, f"{TASK_TITLES[name]} (n = {truth.size})", "1 − specificity")
    axes.set_ylabel("sensitivity", fontsize=8, color=_MUTED)


def _grid(count: int, *, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """Makes a figure of `count` panels of `size` inches."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(
        figsize=(size[0] * columns, size[1] * rows), layout="constrained", facecolor="white"
    )
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(count)]


def _style(axes: Axes, title: str, xlabel: str) -> None:
    """Gives a panel the page's quiet look."""
    axes.set_title(title, fontsize=9.5, color=_INK, loc="left", fontweight="bold")
    axes.set_xlabel(xlabel, fontsize=8, color=_MUTED)
    axes.tick_params(labelsize=7.5, colors=_MUTED, length=2.5)
    axes.grid(axis="y", color=_LINE, linewidth=0.7)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_LINE)
