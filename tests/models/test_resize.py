import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import ndimage

from gmmas_jax.models.decoders import Upsample
from gmmas_jax.models.options import LayerOptions
from gmmas_jax.models.resize import (
    crop_resample,
    depth_to_space,
    double_linear,
    interpolation_matrix,
    space_to_depth,
)
from tests.models.small import SMALL, random_variables


def volume(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def whole_box(batch: int) -> jax.Array:
    return jnp.tile(jnp.array([[[0.0] * 3, [1.0] * 3]]), (batch, 1, 1))


def test_space_to_depth_keeps_the_voxels_of_a_sequence_together():
    x = volume(1, 2, 4, 2, 3)
    folded = space_to_depth(x, 2)
    assert folded.shape == (1, 1, 2, 1, 24)
    cube = np.asarray(x)[0, 0:2, 2:4, 0:2, 1]
    np.testing.assert_array_equal(folded[0, 0, 1, 0, 8:16], cube.reshape(-1))


def test_depth_to_space_unfolds_cubes():
    x = volume(2, 1, 2, 3, 16)
    unfolded = depth_to_space(x, 2)
    assert unfolded.shape == (2, 2, 4, 6, 2)
    np.testing.assert_array_equal(unfolded[1, 1, 2, 5], x[1, 0, 1, 2].reshape(2, 2, 2, 2)[1, 0, 1])


def test_double_linear_is_scipys_zoom_on_grid():
    x = volume(1, 3, 4, 1, 2)
    for channel in range(2):
        expected = ndimage.zoom(
            np.asarray(x)[0, ..., channel], 2, order=1, mode="nearest", grid_mode=True
        )
        np.testing.assert_allclose(double_linear(x)[0, ..., channel], expected, atol=1e-6)


def test_upsample_transpose_is_xlas_transposed_convolution():
    x = volume(2, 2, 3, 2, 4)
    layer = Upsample(LayerOptions(**SMALL["layers"]))
    variables = random_variables(layer, x)
    kernel, bias = variables["params"]["kernel"], variables["params"]["bias"]
    expected = lax.conv_transpose(
        x,
        kernel[::-1, ::-1, ::-1],  # XLA flips: out[2i + t] = x[i] kernel[1 - t]
        strides=(2, 2, 2),
        padding="VALID",
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
    )
    np.testing.assert_allclose(
        layer.apply(variables, x), np.asarray(expected) + np.asarray(bias), atol=1e-5
    )


def test_crop_of_the_whole_volume_on_its_own_grid_changes_nothing():
    x = volume(2, 3, 4, 7, 2)
    np.testing.assert_array_equal(crop_resample(x, whole_box(2), (3, 4, 7)), x)
    half = x.astype(jnp.bfloat16)
    cropped = crop_resample(half, whole_box(2), (3, 4, 7))
    assert cropped.dtype == jnp.bfloat16
    np.testing.assert_array_equal(cropped, half)


def test_crop_interpolates_each_case_in_its_own_box_like_scipy():
    x = volume(2, 5, 6, 7, 3)
    box = jnp.array([[[0.1, 0.0, 0.3], [0.6, 0.5, 0.9]], [[-0.2, 0.4, 0.5], [0.7, 1.3, 0.8]]])
    shape = (4, 8, 3)
    result = crop_resample(x, box, shape)
    for case in range(2):
        axes = [
            (lower + (np.arange(count) + 0.5) / count * (upper - lower)) * size - 0.5
            for lower, upper, count, size in zip(
                np.asarray(box[case, 0]), np.asarray(box[case, 1]), shape, x.shape[1:4], strict=True
            )
        ]
        grid = np.meshgrid(*axes, indexing="ij")
        for channel in range(3):
            expected = ndimage.map_coordinates(
                np.asarray(x)[case, ..., channel], grid, order=1, mode="nearest"
            )
            np.testing.assert_allclose(result[case, ..., channel], expected, atol=1e-5)


@pytest.mark.parametrize(("source", "target"), [(4, 9), (9, 4), (1, 3)])
def test_interpolation_weights_are_positive_and_sum_to_one(source, target):
    lower, upper = jnp.array([-0.5, 0.2]), jnp.array([0.4, 1.7])
    matrix = interpolation_matrix(lower, upper, source=source, target=target)
    assert matrix.shape == (2, target, source)
    assert float(matrix.min()) >= 0.0
    np.testing.assert_allclose(matrix.sum(axis=-1), 1.0, atol=1e-6)
