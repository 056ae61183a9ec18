"""The space that exams are brought to: a template, its brain, and the grid of the results."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from data_pipelines.nifti import read_mask, read_volume
from data_pipelines.preprocess.images import regridded, to_array, to_image
from gmmas_jax.cases.case import Grid
from gmmas_jax.cases.pieces import largest_filled
from gmmas_jax.errors import UserError

_BRAIN_ML = (700.0, 2500.0)
_MOSTLY = 0.6


@dataclass(frozen=True, eq=False)
class Atlas:
    """A template of a skull-stripped brain.

    Attributes:
        name: For records: a file's name, or `mni152`.
        sha256: Of the voxels, the grid and the mask.
        image: float32, 0 outside of the brain.
        brain: uint8, 1 inside.
        grid: Where results lie.
    """

    name: str
    sha256: str
    image: sitk.Image
    brain: sitk.Image
    grid: Grid

    @property
    def centre(self) -> np.ndarray:
        """The brain's centre of gravity, RAS mm, [3]."""
        inside = np.argwhere(to_array(self.brain)[::2, ::2, ::2]) * 2
        return self.grid_of_image.affine[:3, :3] @ inside.mean(0) + self.grid_of_image.affine[:3, 3]

    @property
    def grid_of_image(self) -> Grid:
        """Where the template's own voxels lie."""
        from data_pipelines.preprocess.images import grid_of

        return grid_of(self.image)


def load_atlas(
    path: str | os.PathLike[str] | None = None,
    *,
    mask: str | os.PathLike[str] | None = None,
    spacing_mm: float = 1.0,
) -> Atlas:
    """Reads an atlas; without a path MNI152 (ICBM 2009a, symmetric), which nilearn brings along.

    Args:
        path: A T1-weighted template, `.nii` or `.nii.gz`; skull-stripped, unless a mask is given.
        mask: Its brain, where it is not simply what is not 0.
        spacing_mm: Of the results' grid, which has the extent of the template's.

    Raises:
        UserError: If a file cannot be read, mask and template do not lie on one grid, or the brain
            has no brain's volume.
    """
    if path is None:
        array, grid, name = *_mni152(), "mni152"
    else:
        (array, grid), name = read_volume(path), Path(path).name
    if mask is None:
        brain = largest_filled(array != 0)
        remedy = "Give a skull-stripped template, or its brain mask with --atlas-mask"
    else:
        codes, mask_grid = read_mask(mask)
        if not mask_grid.matches(grid):
            raise UserError(
                f"{mask}: not on the grid of {path}: found {mask_grid.describe()}, expected "
                f"{grid.describe()}. Resample the mask to the template."
            )
        brain = codes > 0
        remedy = "Check the mask"
    volume = float(brain.sum()) * grid.voxel_ml
    if not _BRAIN_ML[0] <= volume <= _BRAIN_ML[1] or brain.mean() > _MOSTLY:
        raise UserError(
            f"{mask or path}: what is not 0 holds {volume:.0f} mL, {brain.mean():.0%} of the "
            f"volume; expected one brain, {_BRAIN_ML[0]:.0f} to {_BRAIN_ML[1]:.0f} mL. {remedy}."
        )
    stripped = np.where(brain, array, 0).astype(np.float32)
    digest = hashlib.sha256(stripped.tobytes() + grid.affine.tobytes())
    digest.update(np.packbits(brain).tobytes())
    return Atlas(
        name,
        digest.hexdigest(),
        to_image(stripped, grid),
        to_image(brain, grid),
        regridded(grid, spacing_mm),
    )


def _mni152() -> tuple[np.ndarray, Grid]:
    import nilearn.datasets
    from nilearn.datasets import load_mni152_template

    assert nilearn.datasets is not None
    image = load_mni152_template(resolution=1)
    i, j, k = image.shape
    return np.asarray(image.dataobj, np.float32), Grid((i, j, k), np.asarray(image.affine))
