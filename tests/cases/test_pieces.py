"""Pieces of masks, on masks made for it and against SciPy's slower filling."""

import numpy as np
from scipy import ndimage

from gmmas_jax.cases.pieces import filled, largest_filled


def test_the_largest_piece_is_kept_and_its_holes_filled():
    mask = np.zeros((12, 11, 10), bool)
    mask[1:7, 1:7, 1:7] = True
    mask[3:5, 3:5, 3:5] = False  # A hole.
    mask[1:3, 4, 4] = False  # A tunnel to the surface is none.
    mask[5, 5, 6] = False  # A dent neither.
    mask[8:11, 8:10, 8] = True  # A smaller piece.
    kept = largest_filled(mask)
    assert not kept[8:].any()
    np.testing.assert_array_equal(kept[:8], ndimage.binary_fill_holes(mask[:8]))
    closed = mask.copy()
    closed[1, 4, 4] = True
    assert largest_filled(closed)[3:5, 3:5, 3:5].all()


def test_filling_is_scipy_s():
    random = np.random.default_rng(0)
    for share in (0.3, 0.6, 0.9):
        mask = random.random((14, 12, 10)) < share
        np.testing.assert_array_equal(filled(mask), ndimage.binary_fill_holes(mask))


def test_a_mask_without_or_full_of_voxels_stays():
    for mask in (np.zeros((4, 5, 6), bool), np.ones((4, 5, 6), bool)):
        np.testing.assert_array_equal(largest_filled(mask), mask)
