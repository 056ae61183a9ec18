"""Thick slices and the other marks of a scanner."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmmas_jax.synthesis.acquisition import Artefacts, acquire, slice_matrix


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


def test_scan_keeps_background_and_level():
    signal = 1.0 + 0.1 * jax.random.normal(jax.random.key(0), (8, 9, 10))
    brain = jnp.zeros((8, 9, 10)).at[2:6, 2:7, 2:8].set(1.0)
    scan = np.asarray(
        acquire(jax.random.key(1), signal, brain, artefacts=Artefacts(), spacing_mm=4.0)
    )
    inside = np.asarray(brain) > 0
    assert (scan[~inside] == 0).all()
    assert (scan[inside] > 0).all()
    assert 150 < scan[inside].mean() < 600


def test_without_artefacts_the_signal_is_only_scaled():
    none = Artefacts(thick_slices=0.0, bias=0.0, noise=0.0, gamma=0.0)
    signal = 1.0 + 0.1 * jax.random.normal(jax.random.key(0), (6, 7, 8))
    scan = acquire(jax.random.key(1), signal, jnp.ones((6, 7, 8)), artefacts=none, spacing_mm=4.0)
    np.testing.assert_allclose(scan, 300.0 * signal / signal.mean(), rtol=1e-4)
