"""From a case to what a network sees, and from its output back to the case's grid."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from gmmas_jax.cases.case import Case, Grid
from gmmas_jax.cases.geometry import resample
from gmmas_jax.cases.labels import LABELS
from gmmas_jax.cases.sequences import SEQUENCES, presence
from gmmas_jax.errors import UserError

_CLEARLY = 0.01
"""Share of a sequence's 99th percentile above which a voxel counts as tissue: interpolation leaves
values of a few per mille of either sign around a skull-stripped brain."""

_SPECK = 0.01
"""Share of the largest piece of tissue below which a separate piece is no part of the brain."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A case cropped to the brain, at one spacing, standardised.

    Attributes:
        image: float32 [d h w 4], z-scores inside the brain, 0 outside and for absent sequences.
        present: float32 [4], 1 where a sequence is present.
        label: uint8 [d h w], or None.
        brain: bool [d h w].
        spacing_mm: Distance between voxel centres, the same along each axis.
        box: First voxel and the one after the last of the brain along each axis, on `case_grid`.
        case_grid: The grid of the case, where `restore` returns to.
    """

    image: np.ndarray
    present: np.ndarray
    label: np.ndarray | None
    brain: np.ndarray
    spacing_mm: float
    box: tuple[slice, slice, slice]
    case_grid: Grid

    @property
    def zoom(self) -> tuple[float, float, float]:
        """Spacing of the case divided by the spacing here, per axis."""
        x, y, z = (spacing / self.spacing_mm for spacing in self.case_grid.spacing)
        return (x, y, z)

    @property
    def box_shape(self) -> tuple[int, int, int]:
        """Shape of the brain's box on the grid of the case."""
        x, y, z = (side.stop - side.start for side in self.box)
        return (x, y, z)


def prepare(case: Case, *, spacing_mm: float) -> Prepared:
    """Crops a case to the brain, resamples it and standardises each sequence.

    The brain is where any sequence is clearly non-zero, holes filled and separate specks left out:
    a skull-stripped exam is expected. Each sequence gets mean 0 and
    standard deviation 1 over the brain (both in float64).

    Args:
        case: On its RAS-canonical grid.
        spacing_mm: Isotropic spacing of the result. The result is centred on the brain's box and
            covers it; linear, anti-aliased where coarser (`geometry.resample`). A label is
            resampled class by class, and the most probable class taken.

    Raises:
        UserError: If no sequence holds anything but zero.
    """
    mask, box = _brain(case)
    shape, zoom = _resampled(tuple(side.stop - side.start for side in box), case.grid, spacing_mm)
    brain = resample(mask, shape, zoom=zoom) > 0.5
    if not brain.any():
        raise UserError(
            f"{case.case_id}: nothing is left of the brain at {spacing_mm:g} mm; expected a head, "
            f"found {case.grid.describe()}. Check the voxel size in the file."
        )
    image = np.zeros((*shape, len(SEQUENCES)), np.float32)
    for channel, name in enumerate(SEQUENCES):
        if name in case.images:
            values = resample(case.images[name][box], shape, zoom=zoom)
            image[..., channel] = _standardised(values, brain)
    label = None if case.label is None else _resampled_label(case.label[box], shape, zoom)
    return Prepared(image, presence(case.images), label, brain, spacing_mm, box, case.grid)


def restore(probabilities: np.ndarray, prepared: Prepared) -> np.ndarray:
    """Returns probabilities on the grid of the case.

    Args:
        probabilities: Real, [d h w k] on the grid of `prepared.image`; class 0 is background.
        prepared: The case that they were computed from.

    Returns:
        float32 [D H W k] on `prepared.case_grid`; outside the brain's box background has 1.

    Raises:
        ValueError: If the probabilities do not have the shape of the prepared image.
    """
    if probabilities.ndim != 4 or probabilities.shape[:3] != prepared.image.shape[:3]:
        raise ValueError(
            f"probabilities have shape {probabilities.shape}, the image {prepared.image.shape}"
        )
    x, y, z = prepared.zoom
    inside = resample(probabilities, prepared.box_shape, zoom=(1 / x, 1 / y, 1 / z))
    restored = np.zeros((*prepared.case_grid.shape, probabilities.shape[3]), np.float32)
    restored[..., 0] = 1.0
    restored[prepared.box] = inside
    return restored


def whole_volume(image: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resizes a prepared image to a fixed grid of the same extent.

    Args:
        image: float32 [d h w 4].
        shape: D, H, W.

    Returns:
        float32 [D H W 4], linear, anti-aliased where coarser.
    """
    return resample(image, shape)


def whole_label(label: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resizes a prepared label as `whole_volume` does the image.

    Args:
        label: uint8 [d h w].
        shape: D, H, W.

    Returns:
        uint8 [D H W], the most probable class of each voxel.
    """
    return _resampled_label(label, shape, None)


def _brain(case: Case) -> tuple[np.ndarray, tuple[slice, slice, slice]]:
    """Returns the brain inside its box, bool, and the box."""
    mask = np.zeros(case.grid.shape, bool)
    for image in case.images.values():
        sample = np.abs(image[::3, ::3, ::3])
        sample = sample[sample > 0]
        if not sample.size:
            sample = np.abs(image[image != 0])
        if sample.size:
            mask |= np.abs(image) > _CLEARLY * np.percentile(sample, 99)
    if not mask.any():
        raise UserError(
            f"{case.case_id}: every sequence is zero everywhere; expected images of a brain. "
            "Check the files."
        )
    box = _bounds(mask)
    pieces, count = ndimage.label(mask[box])
    if count > 1:
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        kept = np.zeros_like(mask)
        kept[box] = (sizes >= _SPECK * sizes.max())[pieces]
        mask, box = kept, _bounds(kept)
    return _filled(mask[box]), box


def _bounds(mask: np.ndarray) -> tuple[slice, slice, slice]:
    found = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        where = np.flatnonzero(mask.any(axis=others))
        found.append(slice(int(where[0]), int(where[-1]) + 1))
    return (found[0], found[1], found[2])


def _filled(mask: np.ndarray) -> np.ndarray:
    """Returns the mask with its holes filled; one labelling, much faster than binary_fill_holes."""
    outside, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))
    return outside[1:-1, 1:-1, 1:-1] != outside[0, 0, 0]


def _resampled(
    shape: Sequence[int], grid: Grid, spacing_mm: float
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Returns shape and zoom with which a box of the grid is resampled to a spacing."""
    zoom = tuple(spacing / spacing_mm for spacing in grid.spacing)
    # A spacing of 0.99999 mm in a header must not add a voxel.
    sizes = tuple(
        max(1, int(np.ceil(round(size * factor, 2))))
        for size, factor in zip(shape, zoom, strict=True)
    )
    return sizes, zoom


def _standardised(values: np.ndarray, brain: np.ndarray) -> np.ndarray:
    inside = values[brain].astype(np.float64)
    deviation = inside.std()
    if deviation <= 1e-6 * max(1.0, abs(inside.mean())):
        return np.zeros_like(values)
    return np.where(brain, (values - inside.mean()) / deviation, 0.0).astype(np.float32)


def _resampled_label(
    label: np.ndarray, shape: Sequence[int], zoom: Sequence[float] | None
) -> np.ndarray:
    best = resample(label == 0, shape, zoom=zoom)
    winner = np.zeros(tuple(shape), np.uint8)
    for code in range(1, len(LABELS)):
        mask = label == code
        if mask.any():
            share = resample(mask, shape, zoom=zoom)
            winner[share > best] = code
            best = np.maximum(best, share)
    return winner
