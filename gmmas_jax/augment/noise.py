"""Noise of the measurement on the patch: Gaussian, or that of a magnitude image."""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gmmas_jax.augment.examples import Numbers, when
from gmmas_jax.augment.settings import Stages, is_on
from gmmas_jax.augment.volumes import SEQUENCES, Shown, Volumes, along, least

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def add_noise(
    numbers: Numbers, key: Array, volumes: Volumes, shown: Shown, stages: Stages
) -> Volumes:
    """Draws noise for the patch of an example; of the whole's coarse voxels it leaves little.

    Args:
        numbers: For what is drawn once per sequence.
        key: For what is drawn per voxel.
        volumes: Rows of an example.
        shown: Where they show brain.
        stages: What is on.
    """
    sections = ((_gaussian, stages.gaussian_noise), (_rician, stages.rician_noise))
    for own, (function, section) in zip(jax.random.split(key), sections, strict=True):
        chosen = numbers.happens(section.probability)
        level = numbers.uniform(SEQUENCES, high=section.highest)
        if is_on(section):
            add = functools.partial(_add, function, level, shown.rows["image"])
            volumes = volumes | {"image": when(chosen, add, (volumes["image"], own))[0]}
    return volumes


def rician(rows: Array, low: Array, first: Array, second: Array) -> Array:
    """Magnitude of a signal with noise in its real and its imaginary part.

    Args:
        rows: [… d h w·4].
        low: [… 4] the value of air.
        first: Noise like the rows.
        second: Likewise.
    """
    air = along(low, rows)
    return jnp.sqrt((rows - air + first) ** 2 + second**2) + air


def normal_pair(key: Array, shape: Sequence[int]) -> tuple[Array, Array]:
    """Returns two arrays of standard normal numbers, f32, that know nothing of each other."""
    first, second = bit_pair(key, math.prod(shape))
    return _normal(first).reshape(shape), _normal(second).reshape(shape)


def bit_pair(key: Array, size: int) -> tuple[Array, Array]:
    """Returns two arrays of random bits, uint32 [size], by Threefry-2x32 of 20 rounds.

    What `jax.random` does too, but it throws half of the bits away, so that devices can share one
    array, and works on a CPU in a loop over the rounds. An example's noise is drawn where the
    example is. (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.)
    """
    one, other = jax.random.key_data(key).reshape(-1)[:2]
    keys = one, other, one ^ other ^ np.uint32(_PARITY)
    counter = jnp.arange(size, dtype=jnp.uint32)
    a, b = counter + keys[0], counter + (keys[1] + np.uint32(size))
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            a = a + b
            b = a ^ ((b << rotation) | (b >> (32 - rotation)))
        a = a + keys[(group + 1) % 3]
        b = b + keys[(group + 2) % 3] + np.uint32(group + 1)
    return a, b


def _normal(bits: Array) -> Array:
    """Turns bits into normal numbers, as `jax.random.normal` does."""
    lowest = np.nextafter(np.float32(-1), np.float32(0))
    share = jax.lax.bitcast_convert_type((bits >> 9) | np.uint32(0x3F800000), jnp.float32) - 1.0
    uniform = jnp.maximum(lowest, share * (1 - lowest) + lowest)
    return np.float32(math.sqrt(2)) * jax.lax.erf_inv(uniform)


def _add(
    function: Callable[[Array, Array, Array, Array], Array],
    level: Array,
    shown: Array,
    value: tuple[Array, Array],
) -> tuple[Array, Array]:
    """Adds noise to (rows, key); the key is part of the value since a loop uses it up."""
    rows, key = value
    key, own = jax.random.split(key)
    return function(own, rows, level, shown), key


def _gaussian(key: Array, rows: Array, level: Array, shown: Array) -> Array:
    # Half of the rows from each array. Joined last: inside a loop, XLA's CPU backend would ask for
    # every voxel which half it belongs to.
    middle = -(-rows.shape[0] // 2)
    grains = normal_pair(key, (middle, *rows.shape[1:]))
    noisy = []
    for part, grain in zip((slice(middle), slice(middle, None)), grains, strict=True):
        own = rows[part] + along(level, rows) * grain[: len(rows[part])]
        noisy.append(jnp.where(shown[part], own, 0.0))
    return jnp.concatenate(noisy)


def _rician(key: Array, rows: Array, level: Array, shown: Array) -> Array:
    first, second = (along(level, rows) * grain for grain in normal_pair(key, rows.shape))
    return jnp.where(shown, rician(rows, least(rows), first, second), 0.0)
