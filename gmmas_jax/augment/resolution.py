"""Blur, low resolution and thick slices of single sequences: one matrix product per axis.

All of them are linear along each axis. So whatever is drawn for a sequence becomes three matrices,
and costs the same three products: what accelerators do best, with no gather.
"""

import jax
import jax.numpy as jnp
from jax import Array

from gmmas_jax.augment.examples import Example, Numbers, when
from gmmas_jax.augment.settings import SequenceRange, Stages, is_on
from gmmas_jax.augment.spatial import brain_extent
from gmmas_jax.augment.volumes import Shown, Volumes, as_volume

TRUNCATE = 4.0
"""Where a Gaussian ends, in standard deviations, as in `scipy.ndimage`."""


def blur_matrix(sigma: Array, *, size: int, radius: int) -> Array:
    """Returns the matrix of a Gaussian blur along an axis, edges repeated.

    Args:
        sigma: Scalar f32, standard deviation in voxels; 0 for the identity.
        size: Voxels along the axis.
        radius: No tap is farther; at least TRUNCATE · sigma for the whole Gaussian.

    Returns:
        [size size] f32, rows summing to 1.
    """
    offset = jnp.arange(-radius, radius + 1)
    taps = jnp.exp(-0.5 * (offset / jnp.maximum(sigma, 1e-3)) ** 2)
    taps = jnp.where(jnp.abs(offset) <= jnp.floor(TRUNCATE * sigma + 0.5), taps, 0.0)
    taps = taps / taps.sum()
    voxel = jnp.arange(size)
    source = jnp.clip(voxel[:, None] + offset[None], 0, size - 1)
    return jnp.where(source[:, :, None] == voxel[None, None], taps[None, :, None], 0.0).sum(axis=1)


def slice_matrix(thickness: Array, start: Array, *, size: int) -> Array:
    """Returns the matrix of an acquisition in slices along an axis, interpolated back linearly.

    A slice holds the average over its thickness, as a scanner measures it; between the centres of
    slices it is interpolated, and beyond the last ones repeated.

    Args:
        thickness: Scalar f32 in voxels, at least 1.
        start: Scalar f32 in 0..thickness: how much of the first slice lies before the volume.
        size: Voxels along the axis.

    Returns:
        [size size] f32, rows summing to 1; the identity for thickness 1 and start 0.
    """
    edge = jnp.arange(size + 2, dtype=jnp.float32) * thickness - start
    voxel = jnp.arange(size, dtype=jnp.float32)
    upper = jnp.minimum(edge[1:, None], voxel[None] + 1)
    lower = jnp.maximum(edge[:-1, None], voxel[None])
    overlap = jnp.maximum(upper - lower, 0.0)
    total = overlap.sum(axis=1, keepdims=True)
    last = (total > 1e-4).sum() - 1
    # A first slice that only touches the volume is no slice either.
    first = (total[0, 0] <= 1e-4).astype(jnp.int32)
    last = last + first
    position = jnp.clip((voxel + 0.5 + start) / thickness - 0.5, first, last)
    distance = jnp.abs(position[:, None] - jnp.arange(size + 1, dtype=jnp.float32)[None])
    between = jnp.maximum(1.0 - distance, 0.0)
    return jnp.matmul(between, overlap / jnp.maximum(total, 1e-4), precision="highest")


def change_resolution(
    numbers: Numbers, volumes: Volumes, shown: Shown, example: Example, stages: Stages
) -> Volumes:
    """Draws blur, low resolution and thick slices for each sequence, and applies them.

    Lengths hold for the brain: the whole, whose voxels are larger, is changed by as much as it can
    show, and slices lie at the same places in both.

    Args:
        numbers: Random numbers.
        volumes: Rows of an example.
        shown: Where they show brain.
        example: present [4], box [2 3].
        stages: What is on.
    """
    sigma, thickness, phase = random_resolution(numbers, stages, example["present"].shape[0])
    chosen = (sigma > 0).any(axis=1) | (thickness > 1).any(axis=1)
    chosen &= example["present"] > 0
    radius = _radius(stages)
    shapes = {name: as_volume(rows).shape[:3] for name, rows in volumes.items()}
    extent = brain_extent(example["box"], shapes["image"])
    # By volume: the size of a voxel in voxels of the patch, and where the volume begins.
    geometry = {"image": (jnp.ones(3), example["box"][0] * extent)}
    if "whole" in volumes:
        geometry["whole"] = (extent / jnp.asarray(shapes["whole"], jnp.float32), jnp.zeros(3))

    def change(volumes: Volumes, c: Array) -> Volumes:
        changed = {}
        for name, rows in volumes.items():
            voxel, lower = geometry[name]
            matrices = [
                _axis_matrix(
                    sigma[c, axis] / voxel[axis],
                    thickness[c, axis] / voxel[axis],
                    (phase[c, axis] + lower[axis]) / voxel[axis],
                    wanted=thickness[c, axis] > 1,
                    size=shapes[name][axis],
                    radius=radius,
                )
                for axis in range(3)
            ]
            plane = filter_volume(_plane(rows, c), matrices)
            plane = jnp.where(_plane(shown.rows[name], c), plane, 0.0)
            volume = jax.lax.dynamic_update_index_in_dim(as_volume(rows), plane, c, axis=3)
            changed[name] = volume.reshape(rows.shape)
        return changed

    def each(c: Array, volumes: Volumes) -> Volumes:
        return when(chosen[c], change, volumes, (c,))

    return jax.lax.fori_loop(0, chosen.shape[0], each, volumes)


def _plane(rows: Array, c: Array) -> Array:
    """Returns one sequence [d h w] of rows [d h w·4]."""
    return jax.lax.dynamic_index_in_dim(as_volume(rows), c, axis=3, keepdims=False)


def random_resolution(
    numbers: Numbers, stages: Stages, sequences: int
) -> tuple[Array, Array, Array]:
    """Draws, for each sequence and axis, in voxels of the patch.

    Returns:
        Three [c 3] f32: standard deviation of the blur, 0 for none; thickness of slices, 1 for
        none; where in the brain a slice begins, from 0 to that thickness.
    """
    sigma, thickness = jnp.zeros((sequences, 3)), jnp.ones((sequences, 3))
    phase = numbers.uniform(sequences, 3)
    if is_on(stages.blur):
        wanted, drawn = _draw(numbers, stages.blur, (sequences, 3))
        sigma = jnp.where(wanted, drawn, 0.0)
    if is_on(stages.low_resolution):
        wanted, drawn = _draw(numbers, stages.low_resolution, (sequences, 1))
        thickness = jnp.where(wanted, drawn, thickness)
    if is_on(stages.thick_slices):
        wanted, drawn = _draw(numbers, stages.thick_slices, (sequences, 1))
        along = jnp.floor(3.0 * numbers.uniform(sequences, 1)) == jnp.arange(3.0)[None]
        thickness = jnp.where(wanted & along, drawn, thickness)
    return sigma, thickness, phase * thickness


def filter_volume(volume: Array, matrices: list[Array]) -> Array:
    """Multiplies every line of a volume [d h w] along each axis with that axis's matrix."""
    # In this form, no operand or result has to be transposed.
    first, second, third = matrices
    depth, *plane = volume.shape
    volume = jnp.matmul(first, volume.reshape(depth, -1), precision="highest")
    volume = jnp.matmul(second, volume.reshape(depth, *plane), precision="highest")
    return jnp.matmul(volume, third.T, precision="highest")


def _axis_matrix(
    sigma: Array, thickness: Array, begin: Array, *, wanted: Array, size: int, radius: int
) -> Array:
    """Returns blur, then slices, along an axis; all lengths in voxels of that axis."""
    wanted = wanted & (thickness > 1)
    thickness = jnp.where(wanted, thickness, 1.0)
    start = jnp.where(wanted, jnp.mod(begin, thickness), 0.0)
    slices = slice_matrix(thickness, start, size=size)
    blur = blur_matrix(sigma, size=size, radius=radius)
    return jnp.matmul(slices, blur, precision="highest")


def _draw(numbers: Numbers, stage: SequenceRange, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Returns which sequences are changed, bool [c 1], and the numbers drawn."""
    wanted = numbers.uniform(shape[0], 1) < stage.sequence_probability
    wanted &= numbers.happens(stage.probability)
    return wanted, numbers.uniform(*shape, low=stage.lowest, high=stage.highest)


def _radius(stages: Stages) -> int:
    """Returns the most taps on a side; twice those of the patch, should the whole be finer."""
    return 2 * int(TRUNCATE * stages.blur.highest + 0.5) if is_on(stages.blur) else 0
