"""The picture by which a person judges a preprocessed case."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np

matplotlib.use("agg")
from matplotlib.figure import Figure

_CUTS = (("sagittal", 0, 0.44), ("coronal", 1, 0.5), ("axial", 2, 0.55))


class Panel(NamedTuple):
    """Three planes of one sequence before anything was cut off, RAS on the atlas grid."""

    name: str
    planes: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, name: str, values: np.ndarray) -> "Panel":
        """Takes the planes out of a volume, float32 [i j k]."""
        return cls(name, planes(values))


def planes(volume: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns the three planes that are shown."""
    return tuple(
        np.take(volume, int(share * volume.shape[axis]), axis=axis).copy()
        for _, axis, share in _CUTS
    )


def quality_png(
    panels: Sequence[Panel],
    brain: np.ndarray,
    numbers: Mapping[str, Any],
    *,
    title: str,
    faults: Sequence[str],
) -> bytes:
    """Draws every sequence in three planes, the brain's outline on it, and the numbers.

    The last column is a checkerboard of the first two sequences' axial planes against each other.

    Args:
        panels: One per sequence, the reference first.
        brain: bool, RAS, on the atlas grid.
        numbers: The part `quality` of preprocess.json.
        title: Name of the case.
        faults: In words.
    """
    figure = Figure(figsize=(13, 3.1 * len(panels) + 1.4), facecolor="black")
    axes = figure.subplots(len(panels), 5, squeeze=False, width_ratios=(1, 1, 1, 1, 0.9))
    outlines = planes(brain)
    first = panels[0]
    for row, panel in zip(axes, panels, strict=True):
        for column, (plane, outline) in enumerate(zip(panel.planes, outlines, strict=True)):
            shown = _windowed(plane, outline)
            _show(row[column], shown)
            if outline.any() and not outline.all():
                row[column].contour(outline.T, [0.5], colors="#40ff60", linewidths=0.8)
        row[0].set_title(panel.name, color="white", loc="left", fontsize=11)
        board = _checkerboard(
            _windowed(first.planes[2], outlines[2]), _windowed(panel.planes[2], outlines[2])
        )
        _show(row[3], board)
        row[3].set_title(f"{first.name} | {panel.name}", color="white", fontsize=9)
        row[4].axis("off")
        row[4].text(0, 0.95, _words(panel.name, numbers), color="white", va="top", fontsize=9)
    verdict = "; ".join(faults) if faults else "no fault found"
    figure.suptitle(
        f"{title}: brain {numbers['brain_ml']:.0f} mL, overlap with the atlas's brain "
        f"{numbers['atlas_dice']:.2f}\n{verdict}",
        color="#ff7060" if faults else "white",
        fontsize=11,
        wrap=True,
    )
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=75, facecolor="black")
    return buffer.getvalue()


def _words(name: str, numbers: Mapping[str, Any]) -> str:
    row = numbers["sequences"][name]
    if "information_after" not in row:
        return "reference"
    return (
        f"information {row['information_before']:.2f}\n  → {row['information_after']:.2f} nats\n"
        f"moved {row['displacement_mm']:.1f} mm\nclipped {row['clipped']:.2%}"
    )


def _windowed(plane: np.ndarray, outline: np.ndarray) -> np.ndarray:
    seen = plane[outline] if outline.any() else plane
    low, high = np.percentile(seen, (1, 99.5))
    shown: np.ndarray = np.clip((plane - min(low, 0.5 * high)) / max(1.15 * high - low, 1e-6), 0, 1)
    return shown


def _checkerboard(a: np.ndarray, b: np.ndarray, side: int = 24) -> np.ndarray:
    x, y = np.indices(a.shape) // side
    return np.where((x + y) % 2 == 0, a, b)


def _show(axes: Any, plane: np.ndarray) -> None:
    axes.imshow(plane.T, origin="lower", cmap="gray", vmin=0, vmax=1)
    axes.axis("off")
