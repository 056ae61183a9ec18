"""Points and grids between NumPy and SimpleITK, and alignment that finds a known motion."""

import numpy as np
import pytest
import SimpleITK as sitk

from data_pipelines.preprocess.images import (
    antialiased,
    coarser,
    grid_of,
    regridded,
    resampled,
    to_array,
    to_image,
    to_matrix,
    to_transform,
)
from data_pipelines.preprocess.native import resampled_labels
from data_pipelines.preprocess.registration import align, mutual_information, rigid_part
from tests.data_pipelines.preprocess.heads import grid, sequence


def motion(degrees: float, shift: tuple[float, float, float]) -> np.ndarray:
    moved = grid(shape=(1, 1, 1), spacing=(1, 1, 1), turn=degrees).affine
    moved[:3, 3] = shift
    return moved


@pytest.mark.parametrize("turn", [0.0, 25.0])
def test_an_array_comes_back_on_its_grid(turn: float):
    where = grid(shape=(5, 6, 7), spacing=(1, 2, 3), turn=turn, shift=(4, 5, 6))
    array = np.random.default_rng(0).normal(size=where.shape).astype(np.float32)
    image = to_image(array, where)
    np.testing.assert_array_equal(to_array(image), array)
    np.testing.assert_allclose(grid_of(image).affine, where.affine, atol=1e-9)
    # LPS, as ITK counts: the first voxel's x and y change their sign.
    np.testing.assert_allclose(image.GetOrigin(), where.affine[:3, 3] * [-1, -1, 1])


def test_a_matrix_survives_as_transform():
    matrix = motion(20, (3, -4, 5)) @ np.diag([1.1, 0.9, 1.2, 1])
    np.testing.assert_allclose(to_matrix(to_transform(matrix)), matrix, atol=1e-12)


def test_resampling_takes_the_point_that_the_matrix_names():
    where = grid(shape=(9, 9, 9), spacing=(1, 1, 1))
    array = np.zeros(where.shape, np.float32)
    array[6, 4, 4] = 1
    shifted = np.eye(4)
    shifted[0, 3] = 2  # A point of the result lies 2 mm further right in the image.
    result = to_array(resampled(to_image(array, where), where, shifted))
    assert np.argwhere(result > 0.5).tolist() == [[4, 4, 4]]


def test_a_coarser_image_keeps_thick_slices_and_its_place():
    where = grid(shape=(40, 40, 10), spacing=(1, 1, 6))
    small = coarser(to_image(np.ones(where.shape, np.float32), where), 4.0)
    assert small.GetSize() == (10, 10, 10)
    np.testing.assert_allclose(grid_of(small).corners().mean(0), where.corners().mean(0), atol=1e-6)


def test_only_axes_that_are_finer_are_smoothed():
    where = grid(shape=(9, 9, 9), spacing=(0.5, 1, 4))
    array = np.zeros(where.shape, np.float32)
    array[4, 4, 4] = 1
    smooth = antialiased(array, where, 1.0)
    assert np.count_nonzero(smooth[4, :, 4]) == np.count_nonzero(smooth[4, 4, :]) == 1
    assert smooth[3, 4, 4] == smooth[5, 4, 4] > 0.1
    assert smooth.sum() == pytest.approx(1, rel=1e-4)
    np.testing.assert_array_equal(antialiased(array, where, 0.5), array)


def test_another_spacing_covers_the_same_extent():
    where = grid(shape=(10, 12, 14), spacing=(3, 3, 3), turn=10)
    finer = regridded(where, 1.5)
    assert finer.shape == (20, 24, 28)
    assert finer.spacing == pytest.approx((1.5, 1.5, 1.5))
    np.testing.assert_allclose(finer.corners().mean(0), where.corners().mean(0), atol=1e-9)


def test_alignment_finds_a_known_motion_across_contrasts():
    """One volume has thick slices and another contrast."""
    where = grid()
    thick = grid(shape=(60, 70, 28), spacing=(3, 3, 6))
    moved = motion(8, (6, -5, 7))
    fixed = to_image(sequence("t1c", where), where)
    moving = to_image(sequence("t2w", thick, motion=np.linalg.inv(moved)), thick)
    found, value = align(fixed, moving, initial=np.eye(4), affine=False, levels_mm=(6, 3))
    assert value > 0.3
    brain = np.random.default_rng(1).uniform(-50, 50, (200, 3))
    apart = brain @ (found - moved)[:3, :3].T + (found - moved)[:3, 3]
    assert np.linalg.norm(apart, axis=1).max() < 4.0  # Of 12 mm before; voxels are of 3 and 6 mm.


def test_images_that_do_not_meet_stay_where_they_are():
    where = grid()
    far = grid()
    far.affine[:3, 3] += 1000
    fixed, moving = (to_image(sequence("t1c", where), place) for place in (where, far))
    start = motion(8, (6, -5, 7))
    found, value = align(fixed, moving, initial=start, affine=False, levels_mm=(6, 3))
    np.testing.assert_array_equal(found, start)
    assert value == 0.0


def test_mutual_information_orders_what_is_alike():
    generator = np.random.default_rng(0)
    a = generator.normal(size=20_000)
    assert mutual_information(a, -a) > 3
    assert mutual_information(a, generator.normal(size=a.size)) < 0.15
    assert mutual_information(a[:10], a[:10]) == 0


def test_the_rigid_part_keeps_size_and_centre():
    matrix = motion(15, (10, 0, -5)) @ np.diag([1.2, 1.1, 0.9, 1])
    about = np.array([3.0, -20.0, 15.0])
    rigid = rigid_part(matrix, about)
    assert np.linalg.det(rigid[:3, :3]) == pytest.approx(1)
    np.testing.assert_allclose(rigid[:3, :3] @ rigid[:3, :3].T, np.eye(3), atol=1e-12)
    point = [*about, 1]
    np.testing.assert_allclose(rigid @ point, matrix @ point)


def test_labels_are_never_blended():
    where, finer = grid(shape=(12, 12, 12)), grid(shape=(36, 36, 36), spacing=(1, 1, 1))
    mask = np.zeros(where.shape, np.uint8)
    mask[3:9, 3:9, 3:9] = 1
    mask[5:7, 5:7, 5:7] = 3  # Blending 1 and 3 would give 2.
    result = resampled_labels(mask, where, finer, np.eye(4))
    assert set(np.unique(result)) == {0, 1, 3}
    assert np.count_nonzero(result) == pytest.approx(6**3 * 27, rel=0.06)
    back = resampled_labels(result, finer, where, np.eye(4))
    assert (back == mask).mean() > 0.99


def test_shapes_are_checked_by_simpleitk_interpolation_outside():
    where = grid(shape=(4, 4, 4))
    far = grid(shape=(4, 4, 4), shift=(500, 0, 0))
    image = to_image(np.ones(where.shape, np.float32), where)
    assert to_array(resampled(image, far, interpolator=sitk.sitkLinear)).max() == 0
