"""Pictures that compare a predicted mask with its reference, and the choice of cases to show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gmmas_jax.cases.labels import region_mask
from gmmas_jax.clinical.overlay import BACKGROUND, INK, draw_slice, outline, png
from gmmas_jax.clinical.views import cut, grey_window, make_scene, size_mm
from gmmas_jax.clinical.wording import LABEL_COLOURS, REGION_TITLES, SEQUENCE_TITLES
from gmmas_jax.metrics.evaluation import CaseResult

_REFERENCE = "#ffffff"
# Region, its colour, and the sequences that show it, best first.
_LAYERS = (
    ("WT", LABEL_COLOURS["ED"], ("t2f", "t2w", "t1n", "t1c")),
    ("TC", LABEL_COLOURS["ET"], ("t1c", "t1n", "t2w", "t2f")),
)
_PLANES = ("axial", "coronal")


@dataclass(frozen=True)
class Example:
    """A case shown in the evaluation report.

    Attributes:
        rank: "best", "median" or "worst".
        case_id: name of the case.
        dice: by region.
        image: PNG bytes, as `comparison_png` returns them.
    """

    rank: str
    case_id: str
    dice: Mapping[str, float]
    image: bytes


def pick_examples(results: Sequence[CaseResult]) -> dict[str, str]:
    """Picks the best, the median and the worst case by the mean Dice over its regions.

    Args:
        results: one record per case; those without a reference mask are passed over.

    Returns:
        Rank to case id; fewer than three entries with fewer than three cases, none twice.
    """
    scored = sorted(
        (r for r in results if r.dice), key=lambda r: float(np.mean(list(r.dice.values())))
    )
    if not scored:
        return {}
    places = {"best": len(scored) - 1, "median": (len(scored) - 1) // 2, "worst": 0}
    picked: dict[str, str] = {}
    for rank, place in places.items():
        if scored[place].case_id not in picked.values():
            picked[rank] = scored[place].case_id
    return picked


def comparison_png(
    images: Mapping[str, np.ndarray],
    prediction: np.ndarray,
    reference: np.ndarray,
    *,
    spacing: tuple[float, float, float],
    dpi: int = 110,
) -> bytes:
    """Draws the whole tumour on T2-FLAIR and the core on T1 + contrast, axial and coronal.

    Where one of the two sequences is absent, the next best that is there takes its place.

    Args:
        images: sequence name to float [d h w], RAS; at least one.
        prediction: uint8 [d h w].
        reference: uint8 [d h w] on the same grid.
        spacing: voxel size in mm, [3].
        dpi: dots per inch of a picture 10 inches wide.

    Returns:
        The PNG's bytes.
    """
    scene = make_scene(images, reference if reference.any() else prediction, spacing=spacing)
    tallest = max(size_mm(scene, plane)[1] / size_mm(scene, plane)[0] for plane in _PLANES)
    width, extra = 10.0, 0.62
    height = width / 4 * tallest + extra
    figure = Figure(figsize=(width, height), facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        1, 4, left=0, right=1, top=1 - 0.3 / height, bottom=0.32 / height, wspace=0.01
    )
    for row, plane in enumerate(_PLANES):
        for column, (region, colour, preferred) in enumerate(_LAYERS):
            axes = figure.add_subplot(grid[0, 2 * row + column])
            name = next(s for s in preferred if s in images)
            draw_slice(axes, images[name], None, scene, plane, window=grey_window(images[name]))
            for label, line in ((prediction, colour), (reference, _REFERENCE)):
                mask = region_mask(cut(label, scene, plane), region)
                style = "--" if label is reference else "-"
                outline(axes, mask, size_mm(scene, plane), line, style=style, width=1.3)
            axes.set_anchor("N")  # titles on one line, though the planes differ in height
            size = size_mm(scene, plane)
            axes.set(xlim=(0, size[0]), ylim=(size[1], 0))
            axes.set_title(f"{SEQUENCE_TITLES[name]}, {plane}", color=INK, fontsize=9, pad=4)
    figure.legend(
        handles=[
            *(
                Line2D([], [], color=c, label=f"{REGION_TITLES[r]}, predicted")
                for r, c, _ in _LAYERS
            ),
            Line2D([], [], color=_REFERENCE, linestyle="--", label="reference"),
        ],
        loc="lower center",
        ncols=3,
        frameon=False,
        labelcolor=INK,
        fontsize=9,
        borderaxespad=0.2,
    )
    return png(figure, dpi)
