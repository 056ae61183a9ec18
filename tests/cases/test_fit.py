"""Slices in a frame and back."""

import numpy as np
import pytest

from gmmas_jax.cases.fit import fit, unfit


def smooth(shape):
    axes = np.meshgrid(*(np.linspace(0, 3, size) for size in shape[:2]), indexing="ij")
    plane = np.sin(axes[0]) + np.cos(axes[1])
    return np.broadcast_to(plane[..., None], (*shape[:2], 3)).astype(np.float32)


@pytest.mark.parametrize("shape", [(20, 30), (30, 20), (40, 40), (70, 50), (33, 64)])
def test_there_and_back(shape):
    plane = smooth(shape)
    frame = fit(plane, (64, 64))
    assert frame.shape == (64, 64, 3)
    np.testing.assert_allclose(unfit(frame, shape), plane, atol=0.08)


def test_proportions_are_kept_in_the_middle():
    frame = fit(np.ones((10, 20, 1), np.float32), (64, 64))
    filled = np.argwhere(frame[..., 0] > 0)
    assert filled.min(0).tolist() == [16, 0]
    assert filled.max(0).tolist() == [47, 63]


def test_labels_stay_labels():
    label = np.arange(6, dtype=np.int32).repeat(5).reshape(6, 5)
    frame = fit(label, (24, 24), linear=False)
    assert set(np.unique(frame)) == set(range(6))
    assert frame.dtype == np.int32


def test_a_frame_of_the_same_size_changes_nothing():
    plane = smooth((16, 16))
    np.testing.assert_array_equal(fit(plane, (16, 16)), plane)
    np.testing.assert_array_equal(unfit(plane, (16, 16)), plane)
