"""Changes of resolution: voxels folded into channels and back, doubling, crops."""

import jax
import jax.numpy as jnp


def space_to_depth(x: jax.Array, stride: int) -> jax.Array:
    """Folds cubes of voxels into channels.

    Args:
        x: [b d h w c].
        stride: Side of a cube in voxels; divides d, h and w.

    Returns:
        [b d/stride h/stride w/stride c·stride³]; the voxels of one channel are contiguous.
    """
    b, d, h, w, c = x.shape
    s = stride
    x = x.reshape(b, d // s, s, h // s, s, w // s, s, c)
    return x.transpose(0, 1, 3, 5, 7, 2, 4, 6).reshape(b, d // s, h // s, w // s, c * s**3)


def depth_to_space(x: jax.Array, stride: int) -> jax.Array:
    """Unfolds channels into cubes of voxels, or squares of pixels.

    Args:
        x: [b d h w stride³·c] or [b h w stride²·c]; the channels of one voxel of the cube are
            contiguous.
        stride: Side of a cube in voxels.

    Returns:
        [b d·stride h·stride w·stride c], or without d.
    """
    batch, *size, channels = x.shape
    rank = len(size)
    x = x.reshape(batch, *size, *[stride] * rank, channels // stride**rank)
    pairs = [axis for i in range(rank) for axis in (1 + i, 1 + rank + i)]
    x = x.transpose(0, *pairs, 1 + 2 * rank)
    return x.reshape(batch, *(length * stride for length in size), -1)


def double_linear(x: jax.Array) -> jax.Array:
    """Doubles the resolution by linear interpolation along each axis, edges extended.

    Voxel centres are half a voxel inside the border, so that each new voxel lies a quarter of an
    old one beside an old centre: weights 3/4 and 1/4.

    Args:
        x: [b d h w c] or [b h w c].

    Returns:
        [b 2d 2h 2w c] or [b 2h 2w c].
    """
    for axis in range(1, x.ndim - 1):
        size = x.shape[axis]
        first = jax.lax.slice_in_dim(x, 0, 1, axis=axis)
        last = jax.lax.slice_in_dim(x, size - 1, size, axis=axis)
        before = jnp.concatenate(
            [first, jax.lax.slice_in_dim(x, 0, size - 1, axis=axis)], axis=axis
        )
        after = jnp.concatenate([jax.lax.slice_in_dim(x, 1, size, axis=axis), last], axis=axis)
        pairs = jnp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis=axis + 1)
        x = pairs.reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])
    return x


def interpolation_matrix(
    lower: jax.Array, upper: jax.Array, *, source: int, target: int
) -> jax.Array:
    """Weights of linear interpolation along one axis inside an interval.

    Args:
        lower: [b] f32 start of the interval, in fractions of the source's extent.
        upper: [b] f32 end of the interval, likewise.
        source: Samples along the source axis, at the centres of equal cells.
        target: Samples wanted, at the centres of equal cells of the interval.

    Returns:
        [b target source] f32, rows summing to 1. Outside the source the nearest sample counts.
    """
    centres = jnp.arange(target, dtype=jnp.float32) + 0.5
    step = (upper - lower) * (source / target)  # exactly 1 for the whole volume on its own grid
    position = lower[:, None] * source + centres[None] * step[:, None] - 0.5
    position = jnp.clip(position, 0.0, source - 1.0)
    distance = jnp.abs(position[:, :, None] - jnp.arange(source, dtype=jnp.float32)[None, None])
    return jnp.maximum(1.0 - distance, 0.0)


def crop_resample(features: jax.Array, box: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
    """Samples features inside a box on a new grid, by separable trilinear interpolation.

    Only matrix products with static shapes, which accelerators prefer to gathers, and whose
    gradient is again a matrix product.

    Args:
        features: [b D H W c] on the grid of the whole volume.
        box: [b 2 3] f32 lower and upper corner, in fractions of the whole volume's extent.
        shape: (d, h, w) of the result.

    Returns:
        [b d h w c] in the dtype of the features.
    """
    for axis, letters in enumerate(("bid,bdhwc->bihwc", "bjh,bdhwc->bdjwc", "bkw,bdhwc->bdhkc")):
        matrix = interpolation_matrix(
            box[:, 0, axis], box[:, 1, axis], source=features.shape[axis + 1], target=shape[axis]
        )
        features = jnp.einsum(letters, matrix.astype(features.dtype), features)
    return features
