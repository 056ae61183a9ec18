"""The sequences of one exam, each brought to the patient's reference sequence."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from data_pipelines.nifti import read_volume
from data_pipelines.preprocess import brain as extraction
from data_pipelines.preprocess.bias import without_bias
from data_pipelines.preprocess.images import regridded, resampled, to_array, to_image
from data_pipelines.preprocess.registration import align
from gmmas_jax.cases.case import Grid
from gmmas_jax.cases.geometry import canonical_grid
from gmmas_jax.cases.pieces import largest_filled
from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.errors import UserError

_LEAST_MM = 60.0
_LEAST_SLICES = 8
_EDGE_MM = 2.0
_NEAR_MM = 2.0


@dataclass(eq=False)
class Sequence:
    """What is known of one sequence; its full volume is read again when it is written."""

    path: Path
    grid: Grid
    matrix: np.ndarray  # Points of the reference to points of this sequence.
    working: np.ndarray  # On the working grid.
    stripped: bool
    bare: np.ndarray | None = None  # Its brain on the working grid, where it is skull-stripped.
    as_is: np.ndarray | None = None  # The same, where the scanner put it.


def coregistered(
    images: Mapping[str, Path], reference: str, notes: list[str]
) -> tuple[dict[str, Sequence], Grid]:
    """Brings every sequence to the reference; at most three full volumes at a time."""
    array, grid = read_volume(images[reference], notes=notes)
    _check_extent(images[reference], grid)
    fixed = without_bias(to_image(array, grid))
    inside = _well_inside(array, grid) if extraction.is_stripped(array, grid) else None
    working = regridded(canonical_grid(grid), extraction.WORKING_MM)
    found = {}
    for name in (n for n in SEQUENCES if n in images):
        if name != reference:
            array, own = read_volume(images[name], notes=notes)
            _check_extent(images[name], own)
            moving = without_bias(to_image(array, own))
            matrix = rigid(fixed, moving, inside)
        else:
            own, moving, matrix = grid, fixed, np.eye(4)
            array = to_array(fixed)
        stripped = extraction.is_stripped(array, own)
        placed = to_array(resampled(moving, working, matrix))
        found[name] = Sequence(images[name], own, matrix, placed, stripped)
        if stripped:
            # Not what is not 0 after interpolation, which is half a voxel more on every side.
            mask = to_image(largest_filled(array != 0).astype(np.float32), own)
            found[name].bare = to_array(resampled(mask, working, matrix)) > 0.5
        if name != reference:
            found[name].as_is = to_array(resampled(moving, working))
    return found, working


def rigid(fixed: sitk.Image, moving: sitk.Image, inside: sitk.Image | None = None) -> np.ndarray:
    """Starts where the scanner says, and where both have their centre; keeps the better.

    Args:
        fixed: The reference.
        moving: The other sequence.
        inside: Where they are compared at the finer levels; None: everywhere.
    """
    by_mass = sitk.CenteredTransformInitializer(
        fixed, moving, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.MOMENTS
    )
    shift = np.eye(4)
    shift[:3, 3] = np.array([-1, -1, 1]) * by_mass.GetTranslation()
    coarse = [
        align(fixed, moving, initial=start, affine=False, levels_mm=(4,))
        for start in (np.eye(4), shift)
    ]
    # The scanner is believed unless it is clearly wrong.
    best = coarse[1] if coarse[1][1] > 1.1 * coarse[0][1] else coarse[0]
    return align(fixed, moving, initial=best[0], affine=False, levels_mm=(2, 1), mask=inside)[0]


def refine(
    sequences: Mapping[str, Sequence], reference: str, working: Grid, brain: np.ndarray
) -> None:
    """Registers sequences once more where the brain is: scalp, jaw and neck move apart from it."""
    depth = ndimage.distance_transform_edt(~brain, sampling=working.spacing)
    near = to_image(depth <= _NEAR_MM, working)
    fixed = without_bias(to_image(*read_volume(sequences[reference].path)))
    for name, sequence in sequences.items():
        if name == reference:
            continue
        moving = without_bias(to_image(*read_volume(sequence.path)))
        sequence.matrix, _ = align(
            fixed, moving, initial=sequence.matrix, affine=False, levels_mm=(2, 1), mask=near
        )
        sequence.working = to_array(resampled(moving, working, sequence.matrix))


def _well_inside(array: np.ndarray, grid: Grid) -> sitk.Image:
    """Returns a stripped brain without its cut edge, which is each sequence's own."""
    depth = ndimage.distance_transform_edt(array != 0, sampling=grid.spacing)
    return to_image(depth > _EDGE_MM, grid)


def _check_extent(path: Path, grid: Grid) -> None:
    sides = np.array(grid.shape) * np.array(grid.spacing)
    if sides.min() < _LEAST_MM or min(grid.shape) < _LEAST_SLICES:
        raise UserError(
            f"{path}: {grid.describe()} cover {' x '.join(f'{s:.0f}' for s in sides)} mm; expected "
            f"a head, at least {_LEAST_SLICES} slices and {_LEAST_MM:.0f} mm along each axis. "
            "Leave this sequence out, or give the whole series."
        )
