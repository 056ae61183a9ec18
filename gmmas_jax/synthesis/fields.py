"""Smooth random fields and resampling: the bricks of every random shape in the generator."""

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

Shape3 = tuple[int, ...]
"""Three lengths in voxels; JAX types `.shape` without a rank."""


def noise_field(key: jax.Array, shape: Shape3, *, scale: float) -> jax.Array:
    """Draws smooth Gaussian noise with a given correlation length.

    Coarse white noise is enlarged with a cubic kernel, which costs three small matrix products
    instead of a large convolution.

    Args:
        key: Typed PRNG key.
        shape: Grid of the result, in voxels.
        scale: Distance between the coarse grid's nodes, in voxels.

    Returns:
        [d h w] float32 of about zero mean and unit standard deviation.
    """
    coarse = tuple(max(2, round(size / scale) + 1) for size in shape)
    field = jax.image.resize(jax.random.normal(key, coarse), shape, method="cubic")
    return field / (jnp.std(field) + 1e-6)


def octave_noise(key: jax.Array, shape: Shape3, *, scales: tuple[float, ...]) -> jax.Array:
    """Sums noise over several scales, each weighted by its scale (red noise).

    Args:
        key: Typed PRNG key.
        shape: Grid of the result, in voxels.
        scales: Correlation lengths in voxels, one per octave.

    Returns:
        [d h w] float32 of about zero mean and unit standard deviation.
    """
    keys = jax.random.split(key, len(scales))
    weights = jnp.sqrt(jnp.asarray(scales))
    fields = [
        w * noise_field(k, shape, scale=s) for k, w, s in zip(keys, weights, scales, strict=True)
    ]
    return sum(fields[1:], fields[0]) / jnp.sqrt(sum(scales))


def voxel_grid(shape: Shape3) -> jax.Array:
    """Returns the voxel coordinates [3 d h w] float32 of a grid."""
    axes = [jnp.arange(size, dtype=jnp.float32) for size in shape]
    return jnp.stack(jnp.meshgrid(*axes, indexing="ij"))


def sample_linear(volume: jax.Array, coordinates: jax.Array) -> jax.Array:
    """Samples a volume at fractional voxel coordinates, zero outside.

    Args:
        volume: [d h w] float32.
        coordinates: [3 ...] float32, in voxels of `volume`.

    Returns:
        [...] float32.
    """
    return map_coordinates(volume, list(coordinates), order=1, mode="constant", cval=0.0)


def smooth(volume: jax.Array, *, sigma: float) -> jax.Array:
    """Blurs with a separable Gaussian, edges repeated.

    One matrix product per axis: a sum of shifted copies is slower and takes long to compile.

    Args:
        volume: [d h w] float32.
        sigma: Standard deviation in voxels.

    Returns:
        [d h w] float32.
    """
    radius = max(1, round(3 * sigma))
    offsets = jnp.arange(-radius, radius + 1)
    taps = jnp.exp(-0.5 * (offsets / sigma) ** 2)
    taps = taps / taps.sum()
    for axis in range(3):
        size = volume.shape[axis]
        rows = jnp.arange(size)[:, None]
        matrix = jnp.zeros((size, size)).at[rows, (rows + offsets).clip(0, size - 1)].add(taps)
        volume = mix_along(volume, matrix, axis=axis)
    return volume


def mix_along(volume: jax.Array, matrix: jax.Array, *, axis: int) -> jax.Array:
    """Multiplies every line of voxels [n] of a volume [d h w] along an axis with a matrix [n n]."""
    formula = ("dhw,ed->ehw", "dhw,eh->dew", "dhw,ew->dhe")[axis]
    return jnp.einsum(formula, volume, matrix)
