"""Draws docs/images/tumor-cutmix.png: a lower and a higher grade, and their composite.

gmmas synth --out /tmp/patients --patients 16 --spacing 1 --seed 3
python docs/scripts/tumor_cutmix_picture.py --cohort /tmp/patients/cohort.csv
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from data_pipelines.cutmix import Composite, combine
from data_pipelines.prepared import CaseArrays
from data_pipelines.readers import read_row
from data_pipelines.sampling import example_generator
from gmmas_jax.cases.manifest import Row, read_manifest
from gmmas_jax.cases.prepare import prepare
from gmmas_jax.cases.sequences import SEQUENCES

COLOURS = {1: "tab:red", 2: "tab:green", 3: "gold"}
NAMES = {1: "NCR", 2: "ED", 3: "ET"}


def main() -> None:
    """Writes the picture."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("docs/images/tumor-cutmix.png"))
    parser.add_argument("--low", help="case of grade 2; default: the largest tumour")
    parser.add_argument("--high", help="case of grade 4")
    parser.add_argument("--counter", type=int, default=0, help="of the example: cut and share")
    arguments = parser.parse_args()
    rows = read_manifest(arguments.cohort)
    folder = arguments.cohort.parent
    low = arrays_of(chosen(rows, "2", arguments.low), folder)
    high = arrays_of(chosen(rows, "4", arguments.high), folder)
    voxels = [by_code(case) for case in (low, high)]
    generator = example_generator(0, arguments.counter, "cutmix")
    composite = combine(generator, (low, voxels[0]), (high, voxels[1]))
    if composite is None:
        raise SystemExit("no composite of these two; choose another --counter")
    draw(low, high, composite, arguments.out)


def chosen(rows: list[Row], grade: str, name: str | None) -> Row:
    """Returns the first case of a grade, or the one of a name."""
    return next(row for row in rows if row.grade == grade and name in (None, row.case_id))


def arrays_of(row: Row, folder: Path) -> CaseArrays:
    """Returns a case as it is stored, without the whole volume."""
    prepared = prepare(read_row(row, folder), spacing_mm=1.0)
    assert prepared.label is not None
    flat = [np.flatnonzero(prepared.label == code).astype(np.int32) for code in range(1, 5)]
    return CaseArrays(
        image=prepared.image.astype(np.float16),
        whole=np.zeros((0, 0, 0, 4), np.float16),
        label=prepared.label,
        whole_label=None,
        foreground=tuple(part for part in flat if part.size),
        present=prepared.present,
    )


def by_code(case: CaseArrays) -> dict[int, np.ndarray]:
    """Returns the tumour voxels by label code."""
    assert case.label is not None
    return {int(case.label.ravel()[part[0]]): part for part in case.foreground}


def draw(low: CaseArrays, high: CaseArrays, composite: Composite, out: Path) -> None:
    """Draws three columns, a row for each sequence and one for the labels."""
    assert low.label is not None
    image, label = np.array(low.image), np.array(low.label)
    image[composite.box], label[composite.box] = composite.image, composite.label
    pasted = np.zeros(label.shape, bool)
    pasted[composite.box] = composite.pasted
    # Where both show most.
    number = int(np.argmax(np.minimum((label > 0) & ~pasted, 1).sum((0, 1)) * pasted.sum((0, 1))))
    other = int(np.argmax((high.label > 0).sum((0, 1))))
    columns = [
        ("lower grade (2)\nlabel [1, 0]", low.image[:, :, number], low.label[:, :, number], None),
        ("higher grade (4)\nlabel [0, 1]", high.image[:, :, other], high.label[:, :, other], None),
        (
            f"composite\nlabel [{composite.share:.2f}, {1 - composite.share:.2f}]",
            image[:, :, number],
            label[:, :, number],
            pasted[:, :, number],
        ),
    ]
    figure, axes = plt.subplots(5, 3, figsize=(7.2, 13.2), facecolor="black")
    for column, (title, planes, codes, patch) in zip(axes.T, columns, strict=True):
        column[0].set_title(title, color="white", fontsize=11)
        for row, name in enumerate(SEQUENCES):
            show(column[row], planes[..., row])
            if patch is not None:
                outline(column[row], patch, "cyan")
            column[row].set_ylabel(name, color="white")
        show(column[4], planes[..., 3])
        for code, colour in COLOURS.items():
            mask = np.where(code == codes.T, 1.0, np.nan)
            column[4].imshow(
                mask, origin="lower", cmap=matplotlib.colors.ListedColormap([colour]), alpha=0.6
            )
        if patch is not None:
            outline(column[4], patch, "cyan")
        column[4].set_ylabel("mask", color="white")
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in COLOURS.values()]
    handles.append(plt.Line2D([0], [0], color="cyan"))
    figure.legend(
        handles,
        [*NAMES.values(), "from the higher grade"],
        loc="lower center",
        ncol=4,
        facecolor="black",
        labelcolor="white",
        edgecolor="black",
    )
    figure.tight_layout(rect=(0, 0.03, 1, 1), h_pad=0.2, w_pad=0.2)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=80, facecolor="black")


def show(axis: plt.Axes, plane: np.ndarray) -> None:
    """Shows an axial slice, the patient's left on the right of the picture."""
    inside = plane[plane != 0].astype(np.float32)
    low, high = np.percentile(inside, (1, 99.5))
    shown = np.where(plane == 0, low, plane).astype(np.float32)
    axis.imshow(shown.T, cmap="gray", vmin=low, vmax=high, origin="lower")
    axis.set_xticks([])
    axis.set_yticks([])


def outline(axis: plt.Axes, mask: np.ndarray, colour: str) -> None:
    """Draws the border of a mask."""
    if mask.any():
        axis.contour(mask.T, levels=[0.5], colors=colour, linewidths=0.8)


if __name__ == "__main__":
    main()
