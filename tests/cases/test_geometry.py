"""Axis permutations, flips and resampling."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from gmmas_jax.cases.case import GRID_TOLERANCE_MM, Grid
from gmmas_jax.cases.geometry import (
    canonical_grid,
    from_canonical,
    linear_weights,
    resample,
    to_canonical,
)

ORIENTATIONS = [
    (order, signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def oriented(order, signs, tilt=0.0):
    """An affine whose voxel axis i runs along world axis order[i] with sign signs[i]."""
    rotation = np.linalg.qr(np.eye(3) + tilt * np.array([[0, -1, 2], [1, 0, -1], [-2, 1, 0]]))[0]
    rotation = rotation * np.sign(np.diag(rotation))
    affine = np.eye(4)
    for voxel_axis, (world_axis, sign) in enumerate(zip(order, signs, strict=True)):
        affine[:3, voxel_axis] = rotation[:, world_axis] * sign * (1.0 + 0.5 * voxel_axis)
    affine[:3, 3] = (-30.0, 12.5, 7.0)
    return affine


@pytest.mark.parametrize("tilt", [0.0, 0.1, 0.2])
def test_all_48_orientations_go_to_ras_and_back_exactly(tilt):
    assert len(ORIENTATIONS) == 48
    rng = np.random.default_rng(0)
    array = rng.normal(size=(3, 4, 5, 2)).astype(np.float32)
    for order, signs in ORIENTATIONS:
        grid = Grid((3, 4, 5), oriented(order, signs, tilt))
        canonical, affine = to_canonical(array, grid.affine)
        target = canonical_grid(grid)
        assert canonical.shape[:3] == target.shape
        np.testing.assert_array_equal(affine, target.affine)
        # The largest component of each axis is its own and positive: RAS.
        directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        assert np.abs(directions).argmax(axis=0).tolist() == [0, 1, 2]
        assert (np.diag(directions) > 0).all()
        np.testing.assert_array_equal(from_canonical(canonical, grid), array)


def test_each_voxel_keeps_its_place_in_the_world():
    array = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    for order, signs in ORIENTATIONS:
        affine = oriented(order, signs, 0.1)
        canonical, canonical_affine = to_canonical(array, affine)
        index = (2, 1, 3)
        world = affine @ (*index, 1.0)
        there = np.linalg.solve(canonical_affine, world)[:3]
        np.testing.assert_allclose(there, np.rint(there), atol=1e-9)
        assert canonical[tuple(np.rint(there).astype(int))] == array[index]


def test_from_canonical_refuses_another_shape():
    with pytest.raises(ValueError, match="canonical grid"):
        from_canonical(np.zeros((3, 4, 5)), Grid((3, 4, 5), oriented((1, 0, 2), (1, 1, 1))))


def test_grids_agree_within_the_tolerance_at_every_corner():
    grid = Grid((100, 100, 100), np.eye(4))
    shifted, turned = np.eye(4), np.eye(4)
    shifted[0, 3] = 0.9 * GRID_TOLERANCE_MM
    turned[0, 1] = 0.002  # Nothing at the origin, 0.2 mm at the far corner.
    assert grid.matches(Grid(grid.shape, shifted))
    assert not grid.matches(Grid(grid.shape, turned))
    assert not grid.matches(Grid((100, 100, 99), np.eye(4)))


def test_a_grid_describes_itself():
    grid = Grid((240, 240, 155), np.diag([-1.0, -1.0, 2.5, 1.0]))
    assert grid.describe() == (
        "240x240x155 voxels of 1x1x2.5 mm, axes LPS, origin (0.0, 0.0, 0.0) mm"
    )
    assert grid.spacing == (1.0, 1.0, 2.5)
    assert grid.voxel_ml == pytest.approx(0.0025)


@pytest.mark.parametrize("shape", [(4, 5, 3), (16, 13, 9), (8, 10, 6)])
def test_resampling_to_one_extent_is_that_of_jax(shape):
    array = np.random.default_rng(1).normal(size=(8, 10, 6, 2)).astype(np.float32)
    expected = jax.image.resize(jnp.asarray(array), (*shape, 2), "linear", antialias=True)
    result = resample(array, shape)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=2e-6)


def test_refining_is_that_of_scipy_in_grid_mode():
    array = np.random.default_rng(2).normal(size=(6, 7, 8))
    expected = ndimage.zoom(array, 2, order=1, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(resample(array, (12, 14, 16)), expected, atol=1e-6)


def test_the_same_grid_returns_the_same_bits():
    array = np.random.default_rng(3).normal(size=(6, 7, 8)).astype(np.float32)
    np.testing.assert_array_equal(resample(array, array.shape), array)


def test_coarsening_averages_instead_of_aliasing():
    stripes = np.zeros((30, 4, 4), np.float32)
    stripes[::2] = 1.0
    coarse = resample(stripes, (10, 4, 4))
    np.testing.assert_allclose(coarse[1:-1], 0.5, atol=0.1)


@pytest.mark.parametrize("zoom", [0.3, 0.5, 0.73, 1.0, 1.8])
def test_rows_of_weights_sum_to_1_and_keep_the_centre(zoom):
    weights = linear_weights(21, 17, zoom)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(weights[8] @ np.arange(21.0), 10.0, atol=1e-5)


def test_resampling_rounds_alike_channel_by_channel_and_all_at_once():
    """A dense product would not: it rounds by how its columns are cut into blocks and threads."""
    array = np.random.default_rng(0).normal(size=(38, 45, 36, 4)).astype(np.float32)
    whole = resample(array, (32, 32, 32))
    for channel in range(4):
        alone = resample(array[..., channel], (32, 32, 32))
        np.testing.assert_array_equal(alone, whole[..., channel])
