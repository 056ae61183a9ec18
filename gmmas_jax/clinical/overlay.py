"""Pictures of a case: the four sequences with the outlines of the labels.

Drawn with matplotlib's Agg canvas and without pyplot: no window, no global state, safe in a server.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from gmmas_jax.cases.labels import LABELS
from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.clinical.views import (
    EDGE_LETTERS,
    Scene,
    Window,
    cut,
    describe_slice,
    grey_window,
    make_scene,
    size_mm,
)
from gmmas_jax.clinical.wording import LABEL_COLOURS, LABEL_TITLES, SEQUENCE_TITLES

BACKGROUND = "#000000"
INK = "#d7dde4"
_FAINT = "#7d8894"
# Large areas first, so that where two outlines share an edge the smaller, inner label's shows.
_DRAWING_ORDER = ("TU", "ED", "RC", "ET", "NCR")
# Lines and letters of a single panel, for a page that shows it at about half its pixels.
_PANEL_SCALE = 170
_ROWS = (("axial", False), ("axial", True), ("coronal", True), ("sagittal", True))
_PLAIN_ROWS = (("axial", False), ("coronal", False), ("sagittal", False))


@dataclass(frozen=True)
class Panel:
    """One picture of the report.

    Attributes:
        sequence: name of the sequence.
        plane: a key of `views.AXES`.
        outlined: whether the labels are drawn.
        where: the slice in words.
        image: PNG bytes, None when the sequence was not acquired.
    """

    sequence: str
    plane: str
    outlined: bool
    where: str
    image: bytes | None


def overlay_png(
    images: Mapping[str, np.ndarray],
    label: np.ndarray | None,
    *,
    spacing: tuple[float, float, float],
    title: str,
    dpi: int = 120,
) -> bytes:
    """Draws overlay.png: a column per sequence; axial plain, then all planes outlined.

    Args:
        images: sequence name to float [d h w], RAS; absent sequences have no entry.
        label: uint8 [d h w] on the same grid, None when there is none.
        spacing: voxel size in mm, [3].
        title: written above, e.g. the case's name.
        dpi: dots per inch of a figure 12 inches wide.

    Returns:
        The PNG's bytes.
    """
    scene = make_scene(images, label, spacing=spacing)
    shape = next(iter(images.values())).shape
    rows = _rows(label)
    heights = [size_mm(scene, plane)[1] / size_mm(scene, plane)[0] for plane, _ in rows]
    top, bottom, width = 0.8, 0.75, 12.0
    column = (width - 0.5) / len(SEQUENCES)
    height = top + bottom + column * sum(heights)
    figure = Figure(figsize=(width, height), facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(rows),
        len(SEQUENCES),
        height_ratios=heights,
        left=0.5 / width,
        right=0.999,
        top=1 - top / height,
        bottom=bottom / height,
        wspace=0.02,
        hspace=0.02,
    )
    windows = {name: grey_window(volume) for name, volume in images.items()}
    for row, (plane, outlined) in enumerate(rows):
        for number, name in enumerate(SEQUENCES):
            axes = figure.add_subplot(grid[row, number])
            if name in images:
                shown = label if outlined else None
                draw_slice(axes, images[name], shown, scene, plane, window=windows[name])
            else:
                _draw_absent(axes, scene, plane)
            if row == 0:
                axes.set_title(SEQUENCE_TITLES[name], color=INK, fontsize=12, pad=6)
            if number == 0:
                axes.set_ylabel(
                    describe_slice(scene, plane, shape).replace(", ", "\n"),
                    color=_FAINT,
                    fontsize=8,
                    labelpad=6,
                )
    figure.text(0.5 / width, 1 - 0.22 / height, title, color=INK, fontsize=13, va="center")
    _draw_legend(figure, label, y=0.42 / height)
    figure.text(
        0.5,
        0.14 / height,
        "Research use only. Outlines were drawn by a computer program. "
        "R, L: the patient's right and left.",
        color=_FAINT,
        fontsize=8,
        ha="center",
        va="center",
    )
    return png(figure, dpi)


def draw_panels(
    images: Mapping[str, np.ndarray],
    label: np.ndarray | None,
    *,
    spacing: tuple[float, float, float],
    pixels: int = 420,
) -> list[Panel]:
    """Draws the same pictures one by one, so that a page can arrange them by its width.

    Args:
        images: sequence name to float [d h w], RAS; absent sequences have no entry.
        label: uint8 [d h w] on the same grid, None when there is none.
        spacing: voxel size in mm, [3].
        pixels: width of each picture.

    Returns:
        The panels row by row; each row has the four sequences in their order.
    """
    scene = make_scene(images, label, spacing=spacing)
    shape = next(iter(images.values())).shape
    windows = {name: grey_window(volume) for name, volume in images.items()}
    panels = []
    for plane, outlined in _rows(label):
        for name in SEQUENCES:
            image = None
            if name in images:
                width, height = size_mm(scene, plane)
                figure = Figure(figsize=(1, height / width), facecolor=BACKGROUND)
                FigureCanvasAgg(figure)
                axes = figure.add_axes((0, 0, 1, 1))
                shown = label if outlined else None
                draw_slice(
                    axes,
                    images[name],
                    shown,
                    scene,
                    plane,
                    window=windows[name],
                    scale=_PANEL_SCALE / pixels,
                )
                image = png(figure, pixels)
            panels.append(Panel(name, plane, outlined, describe_slice(scene, plane, shape), image))
    return panels


def draw_slice(
    axes: Axes,
    volume: np.ndarray,
    label: np.ndarray | None,
    scene: Scene,
    plane: str,
    *,
    window: Window,
    scale: float = 1.0,
) -> None:
    """Draws one slice with the outlines of its labels and the letters of its sides.

    Args:
        axes: where to draw.
        volume: float [d h w], RAS.
        label: uint8 [d h w] to outline, or None.
        scene: where to look.
        plane: a key of `views.AXES`.
        window: grey levels.
        scale: size of lines and letters.
    """
    image = cut(volume, scene, plane)
    width, height = size_mm(scene, plane)
    axes.imshow(
        image,
        cmap="gray",
        vmin=window.low,
        vmax=window.high,
        interpolation="bicubic",
        extent=(0, width, height, 0),
    )
    if label is not None:
        codes = cut(label, scene, plane)
        for name in _DRAWING_ORDER:
            outline(axes, codes == LABELS.index(name), (width, height), LABEL_COLOURS[name], scale)
    # An outline at the edge reaches half a voxel beyond it and would widen the picture.
    axes.set(xlim=(0, width), ylim=(height, 0))
    _frame(axes)
    for x, side, letter in zip((0.03, 0.97), ("left", "right"), EDGE_LETTERS[plane], strict=True):
        axes.text(
            x, 0.5, letter, transform=axes.transAxes, color=INK, fontsize=9 * scale, ha=side,
            va="center", path_effects=[withStroke(linewidth=2 * scale, foreground=BACKGROUND)],
        )  # fmt: skip


def outline(
    axes: Axes,
    mask: np.ndarray,
    size: tuple[float, float],
    colour: str,
    scale: float = 1.0,
    *,
    style: str = "-",
    width: float = 1.1,
) -> None:
    """Draws the outline of a mask [rows columns] bool over an image of `size` mm."""
    if not mask.any():
        return
    rows, columns = mask.shape
    # A border of background closes outlines that touch the edge of the picture.
    x = (np.arange(-1, columns + 1) + 0.5) * size[0] / columns
    y = (np.arange(-1, rows + 1) + 0.5) * size[1] / rows
    axes.contour(
        x,
        y,
        np.pad(mask, 1).astype(np.float32),
        levels=[0.5],
        colors=[colour],
        linewidths=width * scale,
        linestyles=style,
    )


def _rows(label: np.ndarray | None) -> tuple[tuple[str, bool], ...]:
    """Returns plane and whether outlined per row; without outlines no row is shown twice."""
    return _ROWS if label is not None and label.any() else _PLAIN_ROWS


def _draw_absent(axes: Axes, scene: Scene, plane: str) -> None:
    """Draws an empty panel of the same size that says the sequence was not acquired."""
    width, height = size_mm(scene, plane)
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal", facecolor="#14181d")
    axes.text(width / 2, height / 2, "not acquired", color=_FAINT, ha="center", va="center")
    _frame(axes)


def _frame(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_legend(figure: Figure, label: np.ndarray | None, *, y: float) -> None:
    """Names the labels that occur, or says that there are none."""
    present = label_names(label)
    if not present:
        figure.text(0.5, y, "no tumour outlined", color=INK, fontsize=10, ha="center", va="center")
        return
    figure.legend(
        handles=[
            Line2D([], [], color=LABEL_COLOURS[name], linewidth=2.5, label=LABEL_TITLES[name])
            for name in present
        ],
        loc="center",
        bbox_to_anchor=(0.5, y),
        ncols=len(present),
        frameon=False,
        labelcolor=INK,
        fontsize=10,
    )


def label_names(label: np.ndarray | None) -> list[str]:
    """Returns the names of the labels that occur in a map [d h w], outermost first."""
    if label is None:
        return []
    return [n for n in ("TU", "ED", "ET", "NCR", "RC") if (label == LABELS.index(n)).any()]


def png(figure: Figure, dpi: int) -> bytes:
    """Returns a figure as PNG bytes, the same for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(
        buffer,
        format="png",
        dpi=dpi,
        facecolor=figure.get_facecolor(),
        # No software name and date: the same case gives the same bytes.
        metadata={"Software": None},
        # The usual 6 takes most of the time that drawing takes, for little.
        pil_kwargs={"compress_level": 3},
    )
    return buffer.getvalue()
