"""Axis order and direction, and separable linear resampling."""

from collections.abc import Sequence
from itertools import permutations

import numpy as np
from scipy import sparse

from gmmas_jax.cases.case import Grid


def to_canonical(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Permutes and flips the axes into RAS order, as nearly as an oblique volume allows.

    Nothing is interpolated: an oblique volume stays oblique.

    Args:
        array: [i j k ...], any dtype.
        affine: float [4 4], voxel indices to RAS mm.

    Returns:
        A view [d h w ...] of the array, and its affine, float64 [4 4].
    """
    order, flips = _axes(affine)
    view = np.flip(
        np.transpose(array, (*order, *range(3, array.ndim))),
        tuple(axis for axis in range(3) if flips[axis]),
    )
    return view, _canonical_affine(array.shape[:3], affine)


def canonical_grid(grid: Grid) -> Grid:
    """Returns the RAS-canonical grid of the same voxels."""
    order, _ = _axes(grid.affine)
    i, j, k = (grid.shape[axis] for axis in order)
    return Grid((i, j, k), _canonical_affine(grid.shape, grid.affine))


def from_canonical(array: np.ndarray, source_grid: Grid) -> np.ndarray:
    """Undoes `to_canonical` exactly.

    Args:
        array: [d h w ...] on `canonical_grid(source_grid)`.
        source_grid: The grid to return to.

    Returns:
        A view [i j k ...] of the array.

    Raises:
        ValueError: If the array does not have the canonical shape of the grid.
    """
    order, flips = _axes(source_grid.affine)
    expected = tuple(source_grid.shape[axis] for axis in order)
    if array.shape[:3] != expected:
        raise ValueError(f"array has shape {array.shape[:3]}, the canonical grid has {expected}")
    flipped = np.flip(array, tuple(axis for axis in range(3) if flips[axis]))
    return np.transpose(flipped, (*np.argsort(order).tolist(), *range(3, array.ndim)))


def resample(
    array: np.ndarray,
    shape: Sequence[int],
    *,
    zoom: Sequence[float] | None = None,
) -> np.ndarray:
    """Resamples the first three axes linearly, anti-aliased where the result is coarser.

    Both grids have the same centre. Without a zoom they also have the same extent, voxel edges
    aligned with voxel edges (as `scipy.ndimage.zoom(grid_mode=True)`). Where the result is
    coarser, the triangle of linear interpolation is widened to the new spacing, as in
    `jax.image.resize(antialias=True)`. Beyond the outermost centres the edge's value goes on.

    Args:
        array: [d h w ...], real.
        shape: Number of voxels of the result along each axis.
        zoom: Old spacing divided by new spacing, per axis; default: same extent.

    Returns:
        float32 [shape ...]; unchanged values, bit for bit, along an axis whose grid stays. The same
        bits whatever the number of threads, and channel by channel as all at once.
    """
    result = np.asarray(array, np.float32)
    # Coarsest first: the later products are then the smaller ones.
    for axis in sorted(range(3), key=lambda a: shape[a] / max(array.shape[a], 1)):
        size = array.shape[axis]
        factor = shape[axis] / size if zoom is None else zoom[axis]
        if shape[axis] == size and abs(factor - 1.0) < 1e-6:
            continue
        result = mix_along(result, linear_weights(size, shape[axis], factor), axis=axis)
    return np.ascontiguousarray(result)


def mix_along(array: np.ndarray, weights: np.ndarray, *, axis: int) -> np.ndarray:
    """Multiplies every line of an array along an axis by a matrix with few weights a row.

    Args:
        array: float32, n samples along the axis.
        weights: float32 [m n], mostly 0.
        axis: Which.

    Returns:
        float32, m samples along the axis; the same bits whatever the number of threads.
    """
    # Sparse, so that each sum has its few terms in one order: a dense product is rounded
    # differently from one number of threads to another, and so would be what is stored.
    moved = np.moveaxis(array, axis, 0)
    product = sparse.csr_array(weights) @ moved.reshape(moved.shape[0], -1)
    return np.moveaxis(product.reshape(len(weights), *moved.shape[1:]), 0, axis)


def linear_weights(size: int, new_size: int, zoom: float) -> np.ndarray:
    """Returns the matrix that resamples one axis linearly about its centre.

    Args:
        size: Number of samples, at least 1.
        new_size: Number of samples of the result.
        zoom: Old spacing divided by new spacing.

    Returns:
        float32 [new_size size], rows sum to 1.
    """
    positions = (np.arange(new_size) - (new_size - 1) / 2) / zoom + (size - 1) / 2
    positions = np.clip(positions, 0.0, size - 1.0)
    width = max(1.0, 1.0 / zoom)
    distance = np.abs(positions[:, None] - np.arange(size)) / width
    weights = np.maximum(0.0, 1.0 - distance)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _axes(affine: np.ndarray) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Returns, per RAS axis, the voxel axis that runs along it and whether it runs backwards."""
    directions = affine[:3, :3] / np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    cosines = np.abs(directions)
    # Rounded, so that at 45 degrees the choice does not hang on the last bit.
    order = max(
        permutations(range(3)),
        key=lambda p: round(float(sum(cosines[world, axis] for world, axis in enumerate(p))), 6),
    )
    first, second, third = (bool(directions[world, axis] < 0) for world, axis in enumerate(order))
    return (order[0], order[1], order[2]), (first, second, third)


def _canonical_affine(shape: Sequence[int], affine: np.ndarray) -> np.ndarray:
    order, flips = _axes(affine)
    canonical = np.array(affine, np.float64)
    for world, axis in enumerate(order):
        column = np.asarray(affine[:, axis], np.float64)
        if flips[world]:
            canonical[:, 3] += column * (shape[axis] - 1)
            column = -column
        canonical[:, world] = column
    return canonical
