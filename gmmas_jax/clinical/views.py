"""Slices of a case as a radiologist expects to see them: which ones, and which way round.

Radiological convention: the patient's right is on the left of axial and coronal images, anterior is
on the left of sagittal ones, anterior or superior is up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gmmas_jax.cases.labels import region_mask

AXES = {"axial": 2, "coronal": 1, "sagittal": 0}
"""Plane to the axis of a RAS array [d h w] that it cuts across."""

EDGE_LETTERS = {"axial": ("R", "L"), "coronal": ("R", "L"), "sagittal": ("A", "P")}
"""What the left and the right edge of an image of each plane are."""

_MARGIN_MM = 6.0
_WINDOW_PERCENTILES = (0.5, 99.7)


@dataclass(frozen=True)
class Window:
    """Grey levels: `low` is black, `high` is white."""

    low: float
    high: float


@dataclass(frozen=True)
class Scene:
    """Where to look at a case.

    Attributes:
        slices: index of the slice along each plane's axis.
        box: the part of the volume to show, [start, stop) along each axis.
        spacing: voxel size in mm, [3].
    """

    slices: Mapping[str, int]
    box: tuple[tuple[int, int], ...]
    spacing: tuple[float, float, float]


def make_scene(
    images: Mapping[str, np.ndarray],
    label: np.ndarray | None,
    *,
    spacing: tuple[float, float, float],
) -> Scene:
    """Picks the slice of each plane with most tumour and the box that holds the brain.

    Without a tumour the slices go through the middle of the brain.

    Args:
        images: sequence name to float [d h w], RAS; at least one.
        label: uint8 [d h w] or None.
        spacing: voxel size in mm, [3].
    """
    volumes = list(images.values())
    shape = volumes[0].shape
    box = []
    for axis in range(3):
        others = tuple(i for i in range(3) if i != axis)
        filled = np.flatnonzero(np.any([(v != 0).any(axis=others) for v in volumes], axis=0))
        margin = int(np.ceil(_MARGIN_MM / spacing[axis]))
        low, high = (filled[0], filled[-1] + 1) if filled.size else (0, shape[axis])
        box.append((max(0, int(low) - margin), min(shape[axis], int(high) + margin)))
    slices = {plane: sum(box[axis]) // 2 for plane, axis in AXES.items()}
    target = _tumour(label)
    if target is not None:
        for plane, axis in AXES.items():
            others = tuple(i for i in range(3) if i != axis)
            slices[plane] = int(target.sum(axis=others).argmax())
    return Scene(slices, tuple(box), spacing)


def _tumour(label: np.ndarray | None) -> np.ndarray | None:
    """Returns the mask to look for: the tumour, else a resection cavity, else None."""
    if label is None or not label.any():
        return None
    whole = region_mask(label, "WT")
    return whole if whole.any() else label > 0


def cut(volume: np.ndarray, scene: Scene, plane: str) -> np.ndarray:
    """Returns one slice as an image [rows columns] in radiological orientation.

    Args:
        volume: [d h w], RAS.
        scene: where to look.
        plane: a key of `AXES`.
    """
    axis = AXES[plane]
    where = [slice(*bounds) for bounds in scene.box]
    picked = np.take(volume, scene.slices[plane], axis=axis)
    kept = [part for i, part in enumerate(where) if i != axis]
    # Both remaining axes run towards R, A or S: rows count down from anterior or superior, columns
    # from the patient's right or from anterior.
    return picked[tuple(kept)][::-1, ::-1].T


def size_mm(scene: Scene, plane: str) -> tuple[float, float]:
    """Returns width and height in mm of the images of a plane."""
    across, up = (i for i in range(3) if i != AXES[plane])
    lengths = [
        (stop - start) * s for (start, stop), s in zip(scene.box, scene.spacing, strict=True)
    ]
    return lengths[across], lengths[up]


def grey_window(volume: np.ndarray) -> Window:
    """Returns the grey levels for a volume [d h w] whose background is zero."""
    inside = volume[volume != 0]
    if inside.size == 0:
        return Window(0.0, 1.0)
    low, high = np.percentile(inside, _WINDOW_PERCENTILES)
    # The background is zero: unless intensities go below it, it stays black.
    low = min(float(low), 0.0) if low < 0 else 0.0
    return Window(low, max(float(high), low + 1e-6))


def describe_slice(scene: Scene, plane: str, shape: Sequence[int]) -> str:
    """Returns where a slice lies, e.g. "axial, slice 81 of 155 from below"."""
    origin = {"axial": "below", "coronal": "behind", "sagittal": "the left"}[plane]
    return f"{plane}, slice {scene.slices[plane] + 1} of {shape[AXES[plane]]} from {origin}"
