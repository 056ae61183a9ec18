"""Windows cover every voxel and blend into what a single pass would have given."""

import numpy as np
import pytest

from gmmas_jax.inference.sliding_window import (
    Tiling,
    Windows,
    gaussian_weights,
    make_tiling,
    slide,
)

SHAPES = [((9, 20, 13), (8, 8, 8)), ((8, 8, 8), (8, 8, 8)), ((5, 17, 3), (8, 4, 6))]


def doubled(windows: Windows) -> tuple[np.ndarray, None]:
    return 2 * windows.image, None


@pytest.mark.parametrize(("shape", "window"), SHAPES)
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.9])
def test_a_voxelwise_function_is_reproduced(shape, window, overlap):
    volume = np.random.default_rng(0).normal(size=(*shape, 2)).astype(np.float32)
    tiling = make_tiling(shape, window, overlap)
    result, _ = slide(volume, tiling, batch_size=2, run=doubled)
    assert result.shape == volume.shape
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, 2 * volume, rtol=1e-5, atol=1e-6)


def test_a_constant_is_reproduced():
    def constant(windows: Windows) -> tuple[np.ndarray, None]:
        return np.full((*windows.image.shape[:4], 3), 0.3, np.float32), None

    volume = np.zeros((11, 30, 9, 1), np.float32)
    tiling = make_tiling((11, 30, 9), (8, 8, 8), 0.5)
    result, _ = slide(volume, tiling, batch_size=1, run=constant)
    np.testing.assert_allclose(result, 0.3, rtol=1e-6)


def test_neighbours_overlap_by_at_least_what_was_asked_for():
    tiling = make_tiling((100, 16, 16), (16, 16, 16), 0.5)
    starts = [start[0] for start in tiling.starts]
    assert starts[0] == 0
    assert starts[-1] == 84
    assert max(np.diff(starts)) <= 8
    assert len(starts) == 12  # ceil(84 / 8) + 1, the least number


def test_no_overlap_means_no_window_twice():
    assert len(make_tiling((32, 32, 32), (16, 16, 16), 0.0).starts) == 8


def test_weights_are_positive_symmetric_and_highest_in_the_middle():
    weights = gaussian_weights((16, 9, 128))
    assert weights.dtype == np.float32
    assert weights.min() > 0
    assert weights.max() == 1
    assert weights.argmax() == np.ravel_multi_index((7, 4, 63), weights.shape)
    np.testing.assert_allclose(weights, weights[::-1, ::-1, ::-1], rtol=1e-6)
    # One standard deviation, an eighth of the window, from the centre.
    line = gaussian_weights((17, 17, 17))[:, 8, 8]
    np.testing.assert_allclose(line[8 + 2], np.exp(-0.5 * (2 / (17 / 8)) ** 2), rtol=1e-6)


def test_the_middle_of_a_window_counts_more_than_its_edge():
    """Two windows that say 0 and 1: where both lie, the nearer one's opinion prevails."""
    tiling = Tiling((12, 8, 8), (8, 8, 8), ((0, 0, 0), (4, 0, 0)))

    def first_says_0(windows: Windows) -> tuple[np.ndarray, None]:
        return np.full((1, 8, 8, 8, 1), float(windows.box[0, 0, 0] > 0), np.float32), None

    volume = np.zeros((12, 8, 8, 1), np.float32)
    line = slide(volume, tiling, batch_size=1, run=first_says_0)[0][:, 4, 4, 0]
    assert (np.diff(line) >= 0).all()
    assert line[4] < 0.1
    assert line[7] > 0.9


def test_the_order_of_the_windows_does_not_matter():
    rng = np.random.default_rng(0)
    volume = rng.normal(size=(20, 20, 20, 1)).astype(np.float32)

    def depends_on_place(windows: Windows) -> tuple[np.ndarray, None]:
        return windows.image + windows.box.sum(axis=(1, 2))[:, None, None, None, None], None

    tiling = make_tiling((20, 20, 20), (8, 8, 8), 0.5)
    forward, _ = slide(volume, tiling, batch_size=1, run=depends_on_place)
    shuffled = tiling._replace(starts=tuple(rng.permutation(tiling.starts).tolist()))
    other, _ = slide(volume, shuffled, batch_size=5, run=depends_on_place)
    np.testing.assert_allclose(forward, other, rtol=1e-5, atol=1e-5)


def test_every_call_has_the_same_shape_and_results_come_in_order():
    tiling = make_tiling((20, 8, 8), (8, 8, 8), 0.5)
    seen = []

    def note(windows: Windows) -> tuple[np.ndarray, np.ndarray]:
        seen.append(windows.image.shape)
        return windows.image, windows.box[:, 0, 0] * 20

    _, others = slide(np.zeros((20, 8, 8, 4), np.float32), tiling, batch_size=3, run=note)
    assert len(tiling.starts) == 4
    assert set(seen) == {(3, 8, 8, 8, 4)}
    found = np.concatenate(others)[:4]
    np.testing.assert_allclose(found, [start[0] for start in tiling.starts], atol=1e-5)


def test_a_small_volume_lies_in_the_middle_as_in_training():
    tiling = make_tiling((5, 8, 8), (8, 8, 8), 0.5)
    assert tiling.starts == ((-2, 0, 0),)
    seen: list[Windows] = []

    def note(windows: Windows) -> tuple[np.ndarray, None]:
        seen.append(windows)
        return windows.image, None

    slide(np.ones((5, 8, 8, 1), np.float32), tiling, batch_size=1, run=note)
    np.testing.assert_array_equal(seen[0].image[0, :, 0, 0, 0], [0, 0, 1, 1, 1, 1, 1, 0])
    np.testing.assert_allclose(seen[0].box[0, :, 0], [-2 / 5, 6 / 5])
    np.testing.assert_allclose(seen[0].box[0, :, 1], [0, 1])
