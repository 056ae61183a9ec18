"""Smooth random fields over a patient, and matrices that act along an image's axes."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from gmmas_jax.synthesis.frame import BOX_MM, Frame

_MARGIN_MM = 24.0
_VARIANCE = 0.479
"""Mean over all positions of the sum of squares of a cubic B-spline's weights, along one axis."""


def noise(key: jax.Array, frame: Frame, *, scale_mm: float) -> jax.Array:
    """Draws smooth Gaussian noise: white noise on a lattice over the head, as cubic B-splines.

    The field is a function of the key and the place alone: every frame of a patient sees the same.
    Three small matrix products, no gathers.

    Args:
        key: Typed PRNG key.
        frame: Where it is wanted.
        scale_mm: Distance between the lattice's nodes.

    Returns:
        [d h w] float32 of zero mean and unit standard deviation.
    """
    low = [bound - _MARGIN_MM for bound, _ in BOX_MM]
    extents = [high - low + 2 * _MARGIN_MM for low, high in BOX_MM]
    sizes = [math.ceil(extent / scale_mm) + 3 for extent in extents]
    field = jax.random.normal(key, sizes)
    for axis, size in enumerate(sizes):
        position = (frame.along(axis) - low[axis]) / scale_mm + 1.0
        weights = _cubic(position[:, None] - jnp.arange(size, dtype=jnp.float32)[None, :])
        field = mix_along(field, weights, axis=axis)
    return field / _VARIANCE**1.5


def octave_noise(key: jax.Array, frame: Frame, *, scales_mm: tuple[float, ...]) -> jax.Array:
    """Sums noise over several scales, each weighted by the root of its scale (red noise).

    Args:
        key: Typed PRNG key.
        frame: Where it is wanted.
        scales_mm: Distances between nodes, one per octave.

    Returns:
        [d h w] float32 of zero mean and unit standard deviation.
    """
    keys = jax.random.split(key, len(scales_mm))
    fields = [
        math.sqrt(scale) * noise(k, frame, scale_mm=scale)
        for k, scale in zip(keys, scales_mm, strict=True)
    ]
    return sum(fields[1:], fields[0]) / math.sqrt(sum(scales_mm))


def mix_along(volume: jax.Array, matrix: jax.Array, *, axis: int) -> jax.Array:
    """Multiplies every line of voxels [n] of a volume [d h w] along an axis by a matrix [m n]."""
    formula = ("dhw,ed->ehw", "dhw,eh->dew", "dhw,ew->dhe")[axis]
    return jnp.einsum(formula, volume, matrix)


def as_channels(planes: Sequence[jax.Array]) -> jax.Array:
    """Stacks the sequences' planes [d h w] as the channels of an image [d h w c].

    One after the other, and as late as can be: in a concatenation XLA would choose between the
    planes at every voxel, and compute there all that leads to them, which a CPU cannot do on
    vectors.
    """
    image = jnp.zeros((*planes[0].shape, len(planes)))
    for channel, plane in enumerate(planes):
        image = image.at[..., channel].set(plane)
    return image


def blur_matrix(size: int, sigma: jax.Array) -> jax.Array:
    """Returns the Gaussian blur [n n] of a standard deviation in voxels; 0 is the identity."""
    place = jnp.arange(size, dtype=jnp.float32)
    distance = place[:, None] - place[None, :]
    weights = jnp.exp(-0.5 * (distance / jnp.maximum(sigma, 0.05)) ** 2)
    return weights / weights.sum(1, keepdims=True)


def shift_matrix(size: int, shift: jax.Array) -> jax.Array:
    """Returns the matrix [n n] that shows each voxel what lies `shift` voxels on, linearly.

    Beyond the edge the edge's voxel is repeated.
    """
    place = (jnp.arange(size, dtype=jnp.float32) + shift).clip(0.0, size - 1.0)
    return (1.0 - jnp.abs(place[:, None] - jnp.arange(size)[None, :])).clip(0.0)


def ghost_matrix(size: int, shift: jax.Array) -> jax.Array:
    """Returns the matrix [n n] that shows each voxel what lies `shift` voxels on, folded over.

    A scan's field of view folds over likewise; a patch shows some of its own tissue as the ghost.
    """
    place = jnp.round(jnp.arange(size, dtype=jnp.float32) + shift).astype(jnp.int32)
    return jax.nn.one_hot(place % size, size)


def _cubic(distance: jax.Array) -> jax.Array:
    """Returns the cubic B-spline's weights at distances from its nodes, in nodes."""
    t = jnp.abs(distance)
    near = 2.0 / 3.0 - t**2 + t**3 / 2.0
    return jnp.where(t < 1.0, near, (2.0 - t).clip(0.0) ** 3 / 6.0)
