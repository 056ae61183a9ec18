"""Smooth random fields over the brain, as cubic B-splines of a few nodes."""

import jax.numpy as jnp
from jax import Array


def spline_matrix(position: Array, *, nodes: int) -> Array:
    """Weights of a uniform cubic B-spline along one axis.

    Args:
        position: [n] f32, in fractions of the brain box.
        nodes: Over the box, its borders included; one more lies beyond each border.

    Returns:
        [n nodes+2] f32, rows summing to 1 inside the box and falling to 0 outside.
    """
    knots = jnp.arange(-1, nodes + 1, dtype=jnp.float32)
    distance = jnp.abs(position[:, None] * (nodes - 1) - knots[None])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = jnp.maximum(2 - distance, 0) ** 3 / 6
    return jnp.where(distance < 1, near, far)


def spline_field(coefficients: Array, matrices: tuple[Array, Array, Array]) -> Array:
    """Evaluates fields on a grid: three small matrix products.

    Args:
        coefficients: [c nodes+2 nodes+2 nodes+2] f32.
        matrices: From `spline_matrix`, for d, h, w of the grid.

    Returns:
        [c d h w] f32.
    """
    for letters, matrix in zip(
        ("dk,ckhw->cdhw", "hk,cdkw->cdhw", "wk,cdhk->cdhw"), matrices, strict=True
    ):
        coefficients = jnp.einsum(letters, matrix, coefficients, precision="highest")
    return coefficients
