"""The brain's surface in a head, found along rays from the brain's centre.

Bone is dark in every sequence, and brain or cerebrospinal fluid is bright in at least one: in the
brightest of the normalised sequences the brain ends where a ray first meets the dark shell. Where
no shell is seen (the neck, the orbits) the atlas tells how far the brain reaches. Neighbouring
rays agree: the surface is smooth.
"""

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from gmmas_jax.cases.case import Grid

_DIRECTIONS = 3000
_NEIGHBOURS = 13
_RADII_MM = np.arange(20.0, 125.0)
_INSIDE_MM, _OUTSIDE_MM = 6, 4
_ROUNDS = 25
_STIFFNESS = 0.02
_GAP_MM = 1.5
_DARK = 0.65
_DEEP_MM = 25.0


def brain_surface(
    tissue: np.ndarray, fat: np.ndarray, prior: np.ndarray, grid: Grid, *, prior_mm: float
) -> np.ndarray:
    """Returns the brain inside the dark shell of the skull.

    Args:
        tissue: float32 [d h w], about 1 in brain and fluid, about 0 in bone and air.
        fat: float32 [d h w], 1 where a voxel is as bright as fat on T1, else 0.
        prior: bool [d h w], where the atlas expects the brain.
        grid: Isotropic grid of both.
        prior_mm: How far the surface may well lie from the prior's.

    Returns:
        bool [d h w].
    """
    spacing = grid.spacing[0]
    middle = np.argwhere(prior).mean(axis=0)
    directions = _directions()
    points = middle[:, None, None] + directions.T[:, :, None] * (_RADII_MM / spacing)
    profile = ndimage.map_coordinates(np.clip(tissue, 0.0, 1.0), points, order=1, mode="constant")
    bright = ndimage.map_coordinates(fat, points, order=1, mode="constant")
    expected = _radius_of(prior, points)
    crossed = np.maximum(profile < _DARK, bright > 0.5)
    crossed &= expected[:, None] - _DEEP_MM < _RADII_MM
    cost = _cost(profile, crossed) + ((_RADII_MM - expected[:, None]) / prior_mm) ** 2 * 0.1
    radius = _smooth_minimum(cost, directions, expected)
    return _filled_to(radius, directions, middle, prior.shape, spacing)


def _directions() -> np.ndarray:
    """Returns points spread evenly over the sphere (Fibonacci's lattice), float64 [n 3]."""
    index = np.arange(_DIRECTIONS) + 0.5
    height = 1 - 2 * index / _DIRECTIONS
    angle = np.pi * (1 + np.sqrt(5)) * index
    around = np.sqrt(1 - height**2)
    return np.stack([around * np.cos(angle), around * np.sin(angle), height], axis=1)


def _radius_of(mask: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Returns how far each ray runs until it has left the mask for good, mm, [n]."""
    inside = ndimage.map_coordinates(mask.astype(np.float32), points, order=1) > 0.5
    last = _RADII_MM.size - 1 - inside[:, ::-1].argmax(axis=1)
    return np.where(inside.any(axis=1), _RADII_MM[last], _RADII_MM[0])


def _cost(profile: np.ndarray, crossed: np.ndarray) -> np.ndarray:
    """Returns how badly each radius fits: bright before, dark behind, no dark gap on the way."""
    total = np.cumsum(np.pad(profile, ((0, 0), (1, 0))), axis=1)
    count = profile.shape[1]
    here = np.arange(count)
    first = np.maximum(here - _INSIDE_MM, 0)
    last = np.minimum(here + _OUTSIDE_MM, count)
    before = (total[:, here] - total[:, first]) / np.maximum(here - first, 1)
    behind = (total[:, last] - total[:, here]) / np.maximum(last - here, 1)
    way = np.cumsum(crossed, axis=1) - crossed
    cost: np.ndarray = -(before - behind) + np.clip(way - _GAP_MM, 0, 6) / 3
    return cost


def _smooth_minimum(cost: np.ndarray, directions: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Returns radii of small cost that differ little from their neighbours', mm, [n]."""
    _, near = cKDTree(directions).query(directions, k=_NEIGHBOURS)
    radius = start
    for round_ in range(_ROUNDS):
        around = np.median(radius[near[:, 1:]], axis=1) if round_ else start
        stiff = _STIFFNESS * min(1.0, (round_ + 1) / 10)
        total = cost + stiff * (_RADII_MM - around[:, None]) ** 2 * (round_ > 0)
        radius = _RADII_MM[total.argmin(axis=1)]
    mean: np.ndarray = radius[near].mean(axis=1)
    return mean


def _filled_to(
    radius: np.ndarray,
    directions: np.ndarray,
    middle: np.ndarray,
    shape: tuple[int, ...],
    spacing: float,
) -> np.ndarray:
    """Returns the voxels that lie nearer to the middle than the surface, bool [d h w]."""
    tree = cKDTree(directions)
    indices = np.indices(shape, np.float32).reshape(3, -1).T - middle
    away = np.linalg.norm(indices, axis=1)
    inside = away * spacing < radius.max()
    unit = indices[inside] / np.maximum(away[inside, None], 1e-6)
    distance, nearest = tree.query(unit, k=3)
    weight = 1 / (distance + 1e-3)
    limit = (radius[nearest] * weight).sum(axis=1) / weight.sum(axis=1)
    filled = np.zeros(away.size, bool)
    filled[inside] = away[inside] * spacing <= limit
    return filled.reshape(shape)
