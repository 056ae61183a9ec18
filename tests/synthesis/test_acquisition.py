"""Thick slices and the other marks of a scanner."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from gmmas_jax.synthesis.acquisition import acquire, slice_matrix
from gmmas_jax.synthesis.effects import PLAIN, Effects
from gmmas_jax.synthesis.frame import Frame

SHAPE = (8, 9, 10)


@pytest.fixture(name="scan", scope="module")
def _scan():
    """Returns the function that scans a signal of about 1: (brain, effects) to scan and signal."""
    frame = Frame(jnp.array([-20.0, -30.0, 10.0]), jnp.full(3, 4.0), SHAPE)
    signal = 1.0 + 0.1 * np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    function = jax.jit(acquire)

    def scan(brain, effects):
        made = function(jax.random.key(1), jnp.asarray(signal), brain, frame, effects)
        return np.asarray(made), signal

    return scan


def test_slices_of_one_voxel_change_nothing():
    matrix = slice_matrix(9, jnp.float32(1.0), jnp.float32(0.0))
    np.testing.assert_allclose(matrix, np.eye(9), atol=1e-6)


@pytest.mark.parametrize("thickness", [1.0, 1.7, 3.0, 6.0])
@pytest.mark.parametrize("phase", [0.0, 0.3, 0.9])
def test_rows_are_averages(thickness, phase):
    matrix = np.asarray(slice_matrix(16, jnp.float32(thickness), jnp.float32(phase)))
    np.testing.assert_allclose(matrix.sum(1), 1.0, atol=1e-5)
    assert (matrix >= 0).all()
    # A voxel is made of what lies within two slices of it.
    distance = np.abs(np.arange(16)[:, None] - np.arange(16)[None, :])
    assert (matrix[distance > 2 * thickness + 1] == 0).all()


def test_slices_of_three_voxels_average_three():
    matrix = np.asarray(slice_matrix(9, jnp.float32(3.0), jnp.float32(0.0)))
    centres = matrix[1::3]
    np.testing.assert_allclose(centres, np.kron(np.eye(3), np.full((1, 3), 1 / 3)), atol=1e-6)


@pytest.mark.parametrize(("thickness", "voxels"), [(3, 0), (3, 1), (5, 2)])
def test_slices_are_boxes_with_lines_between_them(thickness, voxels):
    """Against SciPy's moving average, read at the slices' centres and interpolated."""
    line = np.random.default_rng(0).normal(size=40).astype(np.float32)
    centres = np.arange(thickness // 2 - voxels, 40, thickness)
    centres = centres[(centres >= thickness // 2) & (centres < 40 - thickness // 2)]
    means = ndimage.uniform_filter1d(line, thickness)[centres]
    inner = np.arange(centres[0], centres[-1] + 1)
    matrix = slice_matrix(40, jnp.float32(thickness), jnp.float32(voxels / thickness))
    expected = np.interp(inner, centres, means)
    np.testing.assert_allclose((matrix @ line)[inner], expected, atol=1e-5)


@pytest.mark.parametrize("effects", [PLAIN, Effects()])
def test_scan_keeps_background_and_level(scan, effects):
    brain = jnp.zeros(SHAPE).at[2:6, 2:7, 2:8].set(1.0)
    seen, _ = scan(brain, effects)
    inside = np.asarray(brain) > 0
    assert (seen[~inside] == 0).all()
    assert (seen[inside] > 0).all()
    assert 150 < seen[inside].mean() < 600


def test_without_effects_the_signal_is_only_scaled(scan):
    seen, signal = scan(jnp.ones(SHAPE), Effects().without(*Effects._fields))
    np.testing.assert_allclose(seen, 300.0 * signal, rtol=1e-4)
