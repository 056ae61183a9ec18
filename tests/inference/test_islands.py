"""Small separate findings are dropped, the largest never."""

import numpy as np

from gmmas_jax.inference.islands import drop_islands


def probabilities_of(label: np.ndarray) -> np.ndarray:
    return np.eye(4, dtype=np.float32)[label]


def test_small_pieces_become_background_and_large_ones_stay_untouched():
    label = np.zeros((12, 12, 12), int)
    label[1:5, 1:5, 1:5] = 2  # 64 voxels
    label[2, 2, 2] = 3  # inside of it, another class of the same piece
    label[5, 5, 5] = 1  # touches by a corner
    label[9:11, 9:11, 9:11] = 1  # 8 voxels apart
    found = probabilities_of(label)
    drop_islands(found, min_voxels=9)
    expected = label.copy()
    expected[9:11, 9:11, 9:11] = 0
    np.testing.assert_array_equal(found, probabilities_of(expected))


def test_a_piece_of_exactly_the_least_size_stays():
    label = np.zeros((12, 12, 12), int)
    label[1:5, 1:5, 1:5] = 2
    label[9:11, 9:11, 9:11] = 1
    found = probabilities_of(label)
    drop_islands(found, min_voxels=8)
    np.testing.assert_array_equal(found, probabilities_of(label))


def test_the_largest_piece_stays_however_small():
    label = np.zeros((6, 6, 6), int)
    label[0, 0, 0] = 1
    label[3:5, 3, 3] = 1
    found = probabilities_of(label)
    drop_islands(found, min_voxels=100)
    assert found.argmax(axis=-1).sum() == 2


def test_no_tumour_is_left_alone():
    found = probabilities_of(np.zeros((4, 4, 4), int))
    drop_islands(found, min_voxels=100)
    assert (found.argmax(axis=-1) == 0).all()
