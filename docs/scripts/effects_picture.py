"""Draws docs/images/effects.png: every effect of the generator, a patient without and with it.

python docs/scripts/effects_picture.py                  # the picture of the documentation
python docs/scripts/effects_picture.py COHORT OUT.png   # generated patients beside the cases of a
                                                        # manifest: to look at, not to commit
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from data_pipelines.readers import read_row
from gmmas_jax.cases.manifest import read_manifest
from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.synthesis.anatomy import Anatomy, load_anatomy
from gmmas_jax.synthesis.effects import Effect, Effects
from gmmas_jax.synthesis.frame import whole_frame
from gmmas_jax.synthesis.generator import draw_traits, show

PICTURE = Path("docs/images/effects.png")
TIDY = Effects().without(*Effects._fields)
TRIED = 6
"""Patients among whom the one is drawn that an effect changes most."""

COLUMNS = 5
CORONAL = ("thick_slices",)
COLOURS = ("#39b54a", "#e8403a", "#ffd23f", "#4aa8ff")

Patient = tuple[np.ndarray, np.ndarray]
Make = Callable[[int, Effects, float], Patient]


def generator(anatomy: Anatomy) -> Make:
    """Returns the function (number, effects, spacing in mm) to image [d h w 4] and label.

    A tidy patient is kept: every effect is shown beside one of the same few.
    """
    programs: dict[float, Any] = {}
    tidy: dict[tuple[int, float], Patient] = {}

    def make(number: int, effects: Effects, spacing_mm: float) -> Patient:
        if effects == TIDY and (number, spacing_mm) in tidy:
            return tidy[number, spacing_mm]
        if spacing_mm not in programs:

            def program(number: jax.Array, anatomy: Anatomy, effects: Effects) -> Any:
                traits = draw_traits(
                    jax.random.fold_in(jax.random.key(5), number), anatomy, effects
                )
                return show(traits, anatomy, whole_frame(spacing_mm), effects)

            programs[spacing_mm] = jax.jit(program)
        image, label = jax.device_get(programs[spacing_mm](np.int32(number), anatomy, effects))
        if effects == TIDY:
            tidy[number, spacing_mm] = image, label
        return image, label

    return make


def most_changed(make: Make, effects: Effects) -> int:
    """Returns the number of the patient whose image or label changes most, at 4 mm."""
    changes = []
    for number in range(TRIED):
        (before, drawn), (after, redrawn) = (make(number, e, 4.0) for e in (TIDY, effects))
        changes.append(np.abs(after - before).sum() + 1e3 * (drawn != redrawn).sum())
    return int(np.argmax(changes))


def pair(make: Make, name: str) -> tuple[list[np.ndarray], list[np.ndarray], str]:
    """Returns a slice of both images and of both labels, and what is shown."""
    effects = TIDY._replace(**{name: Effect(1.0, getattr(Effects(), name).magnitude)})
    number = most_changed(make, effects)
    (before, drawn), (after, redrawn) = (make(number, e, 1.0) for e in (TIDY, effects))
    axis = 1 if name in CORONAL else 2
    scale = np.array([np.percentile(before[..., i][before[..., i] > 0], 99.5) for i in range(4)])
    change = np.abs(after - before) / scale + (drawn != redrawn)[..., None]
    others = tuple(a for a in range(3) if a != axis)
    place = int(change.sum((*others, 3)).argmax())
    channel = int(np.take(change, place, axis).sum((0, 1)).argmax())
    if (after == before).all():
        channel = SEQUENCES.index("t1c")
    images = [
        np.take(image[..., channel], place, axis).T / scale[channel] for image in (before, after)
    ]
    labels = [np.take(label, place, axis).T for label in (drawn, redrawn)]
    return images, labels, SEQUENCES[channel]


def draw(axes: Axes, image: np.ndarray, label: np.ndarray | None = None) -> None:
    """Draws a slice, anterior or head up, with the outlines of its labels."""
    axes.imshow(image, cmap="gray", vmin=0, vmax=1.05, origin="lower")
    for code, colour in ((2, COLOURS[0]), (1, COLOURS[1]), (3, COLOURS[2]), (4, COLOURS[3])):
        if label is not None and (label == code).any():
            axes.contour(label == code, levels=[0.5], colors=colour, linewidths=0.6)
    axes.axis("off")


def contact_sheet(make: Make) -> None:
    """Draws every effect."""
    rows = -(-len(Effects._fields) // COLUMNS)
    figure, grid = plt.subplots(
        rows, 2 * COLUMNS, figsize=(2 * COLUMNS * 1.15, rows * 1.5), facecolor="black"
    )
    for axes in grid.flat:
        axes.axis("off")
    for index, name in enumerate(Effects._fields):
        images, labels, sequence = pair(make, name)
        row, column = divmod(index, COLUMNS)
        outlined = (labels[0] != labels[1]).any()
        for side in range(2):
            axes = grid[row, 2 * column + side]
            draw(axes, images[side], labels[side] if outlined else None)
        grid[row, 2 * column + 1].set_title(
            f"{name} ({sequence})", color="white", fontsize=6.5, x=0.0
        )
        print(name, flush=True)
    figure.subplots_adjust(0.003, 0.003, 0.997, 0.975, wspace=0.02, hspace=0.16)
    figure.savefig(PICTURE, dpi=100, facecolor="black")
    print(PICTURE)


def cases(make: Make, cohort: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
    """Yields name, image [d h w 4] and label of real cases and generated ones, by turns."""
    for number, row in enumerate(read_manifest(cohort)):
        case = read_row(row, cohort.parent)
        empty = np.zeros(case.grid.shape, np.float32)
        image = np.stack([case.images.get(name, empty) for name in SEQUENCES], -1)
        yield case.case_id, image, case.label
        yield (f"generated {number}", *make(100 + number, Effects(), 1.0))


def beside(make: Make, cohort: Path, out: Path) -> None:
    """Draws cases and generated patients in turn, the slice with most tumour."""
    shown = list(cases(make, cohort))
    figure, grid = plt.subplots(len(shown), 5, figsize=(9, 2 * len(shown)), facecolor="black")
    for axes, (name, image, label) in zip(grid, shown, strict=True):
        tumour = np.zeros(image.shape[:3]) if label is None else (label > 0) + 2.0 * (label == 3)
        place = int(tumour.sum((0, 1)).argmax()) or image.shape[2] // 2
        inside = np.argwhere((image > 0).any((2, 3)))
        (x0, y0), (x1, y1) = inside.min(0), inside.max(0) + 1
        for channel in range(4):
            values = image[..., channel]
            scale = np.percentile(values[values > 0], 99.5) if values.any() else 1.0
            cut = values[x0:x1, y0:y1, place].T / scale
            draw(axes[channel], cut)
            if channel == SEQUENCES.index("t1c"):
                own = None if label is None else label[x0:x1, y0:y1, place].T
                draw(axes[4], cut, own)
        axes[0].set_title(name, color="white", fontsize=8, loc="left")
    figure.subplots_adjust(0.003, 0.003, 0.997, 0.985, wspace=0.02, hspace=0.08)
    figure.savefig(out, dpi=80, facecolor="black")
    print(out)


def main() -> None:
    """Draws one picture or the other."""
    given = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        make = generator(load_anatomy(Path(folder) / "anatomy-1mm.npz", spacing_mm=1.0))
        if given:
            beside(make, Path(given[0]), Path(given[1]))
        else:
            contact_sheet(make)


if __name__ == "__main__":
    main()
