"""The page that compares networks of slices: curves, tables, contours, and where fusion looks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gmmas_jax.cases.case import Case
from gmmas_jax.cases.labels import region_mask
from gmmas_jax.cases.prepare import prepare
from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.clinical.overlay import BACKGROUND, INK, png
from gmmas_jax.clinical.pages import data_uri, render
from gmmas_jax.clinical.wording import SEQUENCE_TITLES
from gmmas_jax.inference.predictor import Predictor

_COLOURS = {"U-Net": "#56b4e9", "MU-Net": "#ff6b35"}
"""Networks whose contours are drawn."""

_MANUAL = "#ffffff"
_SERIES = ("#175e73", "#d55e00", "#009e73")
_PANELS = (
    ("loss", "Training loss"),
    ("overall_accuracy", "Overall accuracy"),
    ("mean_accuracy", "Mean accuracy"),
    ("mean_iou", "Mean IoU"),
)
_SHOWN = ("t1c", "t2f")
_BLACK, _WHITE = -2.5, 4.0
"""Grey levels, as z-scores."""


@dataclass(frozen=True)
class Picture:
    """A case on the page.

    Attributes:
        title: What is written above.
        contours: PNG bytes: the outlines on both sequences.
        weights: PNG bytes: the fusion's weights by level.
    """

    title: str
    contours: bytes
    weights: bytes


def contour_pictures(
    predictors: Mapping[str, Predictor], cases: Iterable[tuple[Case, str]]
) -> list[Picture]:
    """Draws, on the slice with most lesion, what was outlined by hand and by the networks.

    Args:
        predictors: Network to its predictor; those of `_COLOURS` are drawn.
        cases: A case, and what is written beside its name; taken one after the other.
    """
    pictures = []
    for case, note in cases:
        drawn = {name: one for name, one in predictors.items() if name in _COLOURS}
        spacing = next(iter(drawn.values())).spacing_mm
        prepared = prepare(case, spacing_mm=spacing)
        found = {
            name: region_mask(one.predict_prepared(prepared).label, "WT")
            for name, one in drawn.items()
        }
        manual = None if prepared.label is None else region_mask(prepared.label, "WT")
        counted = next(iter(found.values())) if manual is None else manual
        place = int(counted.sum((0, 1)).argmax())
        volume = float(counted.sum()) * spacing**3 / 1000
        planes = {name: mask[:, :, place] for name, mask in found.items()}
        contours = _contours(
            np.where(prepared.brain[:, :, place, None], prepared.image[:, :, place], _BLACK),
            planes | ({} if manual is None else {"reference": manual[:, :, place]}),
        )
        weights = drawn["MU-Net"].fusion_weights(prepared, place)
        title = f"{case.case_id}: {note}, {volume:.1f} mL"
        pictures.append(Picture(title, contours, _weights(weights)))
    return pictures


def comparison_page(result: Mapping[str, Any], pictures: Sequence[Picture]) -> str:
    """Writes the page.

    Args:
        result: What `cli.slice_comparison.compare` gathers.
        pictures: From `contour_pictures`.
    """
    rows = []
    for title, summary in result["summary"].items():
        lesion, everything = summary["lesion_slices"], summary["all_slices"]
        seeds = ", ".join(f"{value:.3f}" for value in lesion["mean_iou_of_seeds"])
        rows.append(
            {
                "title": title,
                "parameters": f"{result['networks'][title]['parameters']:,}",
                "lesion": [f"{lesion[name]:.3f}" for name, _ in _PANELS[1:]],
                "seeds": seeds,
                "all_iou": f"{everything['mean_iou']:.3f}",
                "dice": _interval(summary["dice"]),
                "by_size": [
                    f"{one['mean_iou']:.3f} · {_interval(one)}"
                    for one in summary["by_size"].values()
                ],
            }
        )
    sizes = [
        f"{name} ({one['ml'][0]:.0f} to {one['ml'][1]:.0f} mL, n = {one['n']})"
        for name, one in next(iter(result["summary"].values()))["by_size"].items()
    ]
    return render(
        "slice_comparison.html.j2",
        seeds=len(result["seeds"]),
        cases=next(iter(result["summary"].values()))["dice"]["n"],
        rows=rows,
        sizes=sizes,
        verdict=verdict(result),
        curves=data_uri(curves(result)),
        pictures=[
            {
                "title": picture.title,
                "contours": data_uri(picture.contours),
                "weights": data_uri(picture.weights),
            }
            for picture in pictures
        ],
    )


def verdict(result: Mapping[str, Any]) -> str:
    """Says in words whether MU-Net reached the others' mean IoU, seed by seed."""
    of_seeds = {
        name: summary["lesion_slices"]["mean_iou_of_seeds"]
        for name, summary in result["summary"].items()
    }
    own = of_seeds.pop("MU-Net")
    told = []
    for name, others in of_seeds.items():
        mean = float(np.mean(own) - np.mean(others))
        better = sum(one >= other for one, other in zip(own, others, strict=True))
        told.append(
            f"{'reached' if mean >= 0 else 'did not reach'} that of {name} "
            f"({mean:+.4f} on average, at least as good with {better} of {len(own)} seeds)"
        )
    return f"Mean IoU on slices with lesion: MU-Net {' and '.join(told)}."


def curves(result: Mapping[str, Any]) -> bytes:
    """Draws loss, overall accuracy, mean accuracy and mean IoU against the step, PNG."""
    figure = Figure(figsize=(9.2, 5.4), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    for index, (name, title) in enumerate(_PANELS):
        axes = figure.add_subplot(2, 2, index + 1)
        for (network, entry), colour in zip(result["networks"].items(), _SERIES, strict=False):
            for number, run in enumerate(entry["runs"]):
                points = (
                    run["loss"] if name == "loss" else [(p["step"], p[name]) for p in run["curve"]]
                )
                steps, values = np.array(points, float).T
                label = network if number == 0 else None
                axes.plot(steps, values, color=colour, linewidth=1.1, alpha=0.8, label=label)
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=7.5)
        axes.grid(axis="y", color="#dfe4ea", linewidth=0.7)
        if index == 0:
            axes.legend(fontsize=8, frameon=False)
    return png(figure, 130)


def _contours(image: np.ndarray, masks: Mapping[str, np.ndarray]) -> bytes:
    """Draws a slice [h w 4] in both sequences with the outlines of masks [h w]."""
    height, width = image.shape[1], image.shape[0]
    figure = Figure(figsize=(8.0, 4.0 * height / width + 0.35), facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    for index, name in enumerate(_SHOWN):
        axes = figure.add_axes((0.5 * index, 0.0, 0.5, 1.0 - 0.35 / figure.get_figheight()))
        plane = image[..., SEQUENCES.index(name)]
        _show(axes, plane, masks)
        axes.set_title(SEQUENCE_TITLES[name], color=INK, fontsize=9, pad=3)
        for place, side in ((0.02, "R"), (0.96, "L")):
            axes.text(place, 0.5, side, color=INK, fontsize=8, transform=axes.transAxes)
        if index == 0:
            for line, (network, _) in enumerate(masks.items()):
                axes.text(
                    0.02,
                    0.97 - 0.05 * line,
                    network,
                    color=_COLOURS.get(network, _MANUAL),
                    fontsize=8,
                    transform=axes.transAxes,
                    va="top",
                )
    return png(figure, 110)


def _show(axes: Axes, plane: np.ndarray, masks: Mapping[str, np.ndarray]) -> None:
    # Radiological: the patient's right on the left, which is how RAS arrays begin reversed.
    axes.imshow(plane[::-1].T, cmap="gray", origin="lower", vmin=_BLACK, vmax=_WHITE)
    for name, mask in masks.items():
        if mask.any():
            axes.contour(
                np.asarray(mask[::-1].T, np.float32),
                levels=[0.5],
                colors=_COLOURS.get(name, _MANUAL),
                linewidths=1.1,
                linestyles="-" if name in _COLOURS else "--",
            )
    axes.axis("off")


def _weights(levels: Sequence[np.ndarray]) -> bytes:
    """Draws the fusion's weights, one panel a level, finest first."""
    figure = Figure(figsize=(8.0, 2.3), facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    for index, weight in enumerate(levels):
        share = 1.0 / max(1, len(levels))
        axes = figure.add_axes((index * share, 0.0, share * 0.98, 0.88))
        axes.imshow(weight[::-1].T, cmap="viridis", origin="lower", vmin=0.0, vmax=1.0)
        axes.axis("off")
        low, high = float(weight.min()), float(weight.max())
        title = f"level {index + 1}: {low:.2f} to {high:.2f}"
        axes.set_title(title, color=INK, fontsize=8, pad=2)
    return png(figure, 110)


def _interval(one: Mapping[str, Any]) -> str:
    bounds = one["ci95"]
    return f"{one['mean']:.3f}" + (
        "" if bounds is None else f" ({bounds[0]:.2f} to {bounds[1]:.2f})"
    )
