"""From a case to what a network sees, and from its output back to the case's grid."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from gmmas_jax.cases.case import Case, Grid
from gmmas_jax.cases.geometry import resample
from gmmas_jax.cases.labels import LABELS
from gmmas_jax.cases.pieces import filled
from gmmas_jax.cases.sequences import SEQUENCES, presence
from gmmas_jax.errors import UserError

_CLEARLY = 0.01
"""Share of a sequence's 99th percentile above which a voxel counts as tissue: interpolation leaves
values of a few per mille of either sign around a skull-stripped brain."""

_SPECK = 0.01
"""Share of the largest piece of tissue below which a separate piece is no part of the brain."""


@dataclass(frozen=True, eq=False, kw_only=True)
class BrainFrame:
    """Where the brain of a case lies, and the grid on which it is prepared.

    Attributes:
        brain: bool [d h w].
        spacing_mm: Distance between voxel centres, the same along each axis.
        box: First voxel and the one after the last of the brain along each axis, on `case_grid`.
        case_grid: The grid of the case, where `restore` returns to.
    """

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


@dataclass(frozen=True, eq=False, kw_only=True)
class Prepared(BrainFrame):
    """A case cropped to the brain, at one spacing, standardised.

    Attributes:
        image: float32 [d h w 4], z-scores inside the brain, 0 outside and for absent sequences.
        present: float32 [4], 1 where a sequence is present.
        label: uint8 [d h w], or None.
    """

    image: np.ndarray
    present: np.ndarray
    label: np.ndarray | None


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
    tissue = np.zeros(case.grid.shape, bool)
    for image in case.images.values():
        add_tissue(tissue, image)
    frame = brain_frame(tissue, case.grid, spacing_mm=spacing_mm, case_id=case.case_id)
    result = np.zeros((*frame.brain.shape, len(SEQUENCES)), np.float32)
    for channel, name in enumerate(SEQUENCES):
        if name in case.images:
            result[..., channel] = prepare_sequence(case.images[name][frame.box], frame)
    return Prepared(
        image=result,
        present=presence(case.images),
        label=None if case.label is None else prepare_label(case.label[frame.box], frame),
        brain=frame.brain,
        spacing_mm=spacing_mm,
        box=frame.box,
        case_grid=case.grid,
    )


def add_tissue(tissue: np.ndarray, image: np.ndarray) -> None:
    """Adds to a mask where a sequence is clearly non-zero.

    Args:
        tissue: bool [d h w], changed in place.
        image: float32 [d h w].
    """
    sample = np.abs(image[::3, ::3, ::3])
    sample = sample[sample > 0]
    if not sample.size:
        sample = np.abs(image[image != 0])
    if sample.size:
        level = _CLEARLY * np.percentile(sample, 99)
        tissue |= image > level
        tissue |= image < -level


def brain_frame(tissue: np.ndarray, grid: Grid, *, spacing_mm: float, case_id: str) -> BrainFrame:
    """Returns where the brain lies, from where any sequence is clearly non-zero.

    Args:
        tissue: bool [d h w], of all sequences (`add_tissue`).
        grid: The RAS-canonical grid of the case.
        spacing_mm: As for `prepare`.
        case_id: For messages.

    Raises:
        UserError: If there is no tissue, or nothing is left of it at the spacing.
    """
    if not tissue.any():
        raise UserError(
            f"{case_id}: every sequence is zero everywhere; expected images of a brain. "
            "Check the files."
        )
    mask, box = _brain(tissue)
    shape, zoom = _resampled(tuple(side.stop - side.start for side in box), grid, spacing_mm)
    brain = resample(mask, shape, zoom=zoom) > 0.5
    if not brain.any():
        raise UserError(
            f"{case_id}: nothing is left of the brain at {spacing_mm:g} mm; expected a head, "
            f"found {grid.describe()}. Check the voxel size in the file."
        )
    return BrainFrame(brain=brain, spacing_mm=spacing_mm, box=box, case_grid=grid)


def prepare_sequence(image: np.ndarray, frame: BrainFrame) -> np.ndarray:
    """Resamples and standardises a sequence.

    Args:
        image: float32, the box of the frame.
        frame: Where the brain lies.

    Returns:
        float32 [d h w], as a channel of `Prepared.image`.
    """
    return _standardised(resample(image, frame.brain.shape, zoom=frame.zoom), frame.brain)


def prepare_label(label: np.ndarray, frame: BrainFrame) -> np.ndarray:
    """Resamples a label, class by class.

    Args:
        label: uint8, the box of the frame.
        frame: Where the brain lies.

    Returns:
        uint8 [d h w], the most probable class of each voxel.
    """
    return _resampled_label(label, frame.brain.shape, frame.zoom)


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


def _brain(mask: np.ndarray) -> tuple[np.ndarray, tuple[slice, slice, slice]]:
    """Returns the brain inside its box, bool, and the box."""
    box = _bounds(mask)
    pieces, count = ndimage.label(mask[box])
    if count > 1:
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        kept = np.zeros_like(mask)
        kept[box] = (sizes >= _SPECK * sizes.max())[pieces]
        mask, box = kept, _bounds(kept)
    del pieces
    return filled(mask[box]), box


def _bounds(mask: np.ndarray) -> tuple[slice, slice, slice]:
    found = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        where = np.flatnonzero(mask.any(axis=others))
        found.append(slice(int(where[0]), int(where[-1]) + 1))
    return (found[0], found[1], found[2])


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
    mean, deviation = inside.mean(), inside.std()
    result = np.zeros_like(values)
    if deviation > 1e-6 * max(1.0, abs(mean)):
        # Plane by plane, for the sake of memory: in float64.
        for plane, scores, where in zip(values, result, brain, strict=True):
            scores[where] = (plane[where] - mean) / deviation
    return result


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
