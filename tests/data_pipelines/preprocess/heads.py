"""Small heads: a brain with structure, fluid, bone and scalp, as four sequences on their grids."""

from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from gmmas_jax.cases.case import Grid

# Brain, fluid, bone, scalp, ventricle.
CONTRASTS = {
    "t1n": (100.0, 30.0, 8.0, 220.0, 25.0),
    "t1c": (110.0, 35.0, 9.0, 230.0, 28.0),
    "t2w": (90.0, 240.0, 10.0, 130.0, 250.0),
    "t2f": (105.0, 20.0, 9.0, 120.0, 18.0),
}


def grid(shape=(60, 70, 56), spacing=(3.0, 3.0, 3.0), turn=0.0, shift=(0.0, 0.0, 0.0)) -> Grid:
    """A grid centred near the origin, turned about the vertical axis by some degrees."""
    angle = np.deg2rad(turn)
    rotation = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    affine = np.eye(4)
    affine[:3, :3] = rotation * np.array(spacing)
    affine[:3, 3] = np.array(shift) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(tuple(shape), affine)


def anatomy(points: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth below the brain's surface in mm, whether in a ventricle, and texture, at points."""
    generator = np.random.default_rng(seed)
    x, y, z = np.moveaxis(points, -1, 0)
    radius = np.sqrt((x / 66) ** 2 + (y / 82) ** 2 + (z / 62) ** 2)
    depth = (1 - radius) * 68
    ventricle = ((x - 12) / 7) ** 2 + ((y - 5) / 28) ** 2 + ((z - 8) / 12) ** 2 < 1
    ventricle |= ((x + 12) / 7) ** 2 + ((y + 2) / 30) ** 2 + ((z - 6) / 12) ** 2 < 1
    texture = np.zeros_like(x)
    for _ in range(12):
        wave = generator.normal(0, 0.12, 3)
        texture += np.sin(points @ wave + generator.uniform(0, 6))
    return depth, ventricle, texture / 4


def sequence(
    name: str, where: Grid, *, skull: bool = True, motion: np.ndarray | None = None, seed: int = 0
) -> np.ndarray:
    """One sequence of the head on a grid; motion maps the grid's world to the head's."""
    indices = np.stack(np.meshgrid(*map(np.arange, where.shape), indexing="ij"), -1)
    points = indices @ where.affine[:3, :3].T + where.affine[:3, 3]
    if motion is not None:
        points = points @ motion[:3, :3].T + motion[:3, 3]
    depth, ventricle, texture = anatomy(points, seed=seed)
    brain, fluid, bone, scalp, cavity = CONTRASTS[name]
    sign = -1 if name in ("t2w", "t2f") else 1
    values = np.where(ventricle, cavity, brain * (1 + 0.25 * sign * texture))
    if skull:
        values = np.select(
            [depth > 3, depth > 0, depth > -7, depth > -13], [values, fluid, bone, scalp], 0.0
        )
        noise = np.random.default_rng([seed, ord(name[2])]).normal(0, 2, where.shape)
        values = np.abs(values + noise)
    else:
        values = np.where(depth > 0, np.where(depth > 3, values, fluid), 0)
    return values.astype(np.float32)


def write(path: Path, array: np.ndarray, where: Grid) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, where.affine), path)
    return path


def smooth(array: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(array, 0.7)


def atlas_file(path: Path) -> Path:
    """A skull-stripped template of the head, with a trailing axis as real ones have."""
    where = grid(shape=(52, 62, 48))
    array = sequence("t1n", where, skull=False)
    return write(path, array[..., None], where)
