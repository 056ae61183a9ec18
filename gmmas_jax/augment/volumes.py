"""Volumes as rows, and what is measured of them per sequence: extremes, moments, the brain.

A batch holds volumes [b d h w 4]. Along an axis of four numbers no processor's vector unit has
anything to do: XLA's CPU backend computes an exponential ten times as fast along the rows w · 4 of
the same memory. So all that changes intensities works on rows, [… d h w·4].
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

Volumes = dict[str, Array]
"""Rows: {"image": […]}, with the whole brain {"image": […], "whole": […]}."""

NAMES = ("image", "whole")
"""Volumes that a batch may have; `whole` may be absent."""

SEQUENCES = 4


def rows_of(arrays: Mapping[str, Any]) -> Volumes:
    """Returns the volumes of a batch or an example [… d h w 4] as rows [… d h w·4]."""
    return {
        name: arrays[name].reshape(*arrays[name].shape[:-2], -1) for name in NAMES if name in arrays
    }


def as_volume(rows: Array) -> Array:
    """Returns rows [… d h w·4] as a volume [… d h w 4]."""
    return rows.reshape(*rows.shape[:-1], -1, SEQUENCES)


def along(numbers: Array, rows: Array) -> Array:
    """Returns numbers per sequence [… 4] as [… 1 1 w·4], to be combined with rows.

    A sum, where `jnp.tile` would do: that one is computed again inside the loop over the voxels,
    and XLA's CPU backend then has no vector instructions for what else is in there.
    """
    own = np.arange(rows.shape[-1]) % SEQUENCES == np.arange(SEQUENCES)[:, None]
    return jnp.where(own, numbers[..., None], 0).sum(axis=-2)[..., None, None, :]


class Shown(NamedTuple):
    """Where volumes show brain in a present sequence.

    Attributes:
        rows: By volume, bool of its shape.
        voxels: f32 [… 4], how many of each sequence, in the volume of `brain_of`.
    """

    rows: Volumes
    voxels: Array


def brain_of(volumes: Mapping[str, Array]) -> str:
    """Returns the name of the volume that tells what is usual in the brain."""
    return "whole" if "whole" in volumes else "image"


def find_brain(volumes: Mapping[str, Array], present: Array) -> Shown:
    """Finds the brain: what is not 0 in every sequence.

    Args:
        volumes: Rows.
        present: [… 4].
    """
    rows, count = {}, jnp.zeros(())
    for name, own in volumes.items():
        brain = jnp.any(as_volume(own) != 0, axis=-1)
        rows[name] = jnp.repeat(brain, SEQUENCES, axis=-1) & (along(present, own) > 0)
        if name == brain_of(volumes):
            count = brain.sum(axis=(-3, -2, -1), dtype=jnp.float32)
    return Shown(rows, jnp.where(present > 0, count[..., None], 0.0))


def zero_outside(volumes: Mapping[str, Array], shown: Shown) -> Volumes:
    """Sets background and absent sequences to exactly 0."""
    return {name: jnp.where(shown.rows[name], rows, 0.0) for name, rows in volumes.items()}


def value_range(volumes: Mapping[str, Array]) -> tuple[Array, Array]:
    """Returns the least and the greatest value of each sequence, [… 4] each."""
    low = jnp.stack([least(rows) for rows in volumes.values()]).min(axis=0)
    high = jnp.stack([_reduced(rows, jnp.max) for rows in volumes.values()]).max(axis=0)
    return low, high


def least(rows: Array) -> Array:
    """Returns the least value of each sequence, [… 4]."""
    return _reduced(rows, jnp.min)


def moments(volumes: Mapping[str, Array], shown: Shown) -> tuple[Array, Array]:
    """Returns mean and standard deviation over the brain, [… 4] each; 0 without any.

    Args:
        volumes: Rows, 0 outside the brain: sums need no mask then, which would be a volume itself.
        shown: Of them.
    """
    rows, count = volumes[brain_of(volumes)], jnp.maximum(shown.voxels, 1.0)
    mean, square = _reduced(rows, jnp.sum) / count, _reduced(rows * rows, jnp.sum) / count
    return mean, jnp.sqrt(jnp.maximum(square - mean**2, 0.0))


def _reduced(rows: Array, reduce: Callable[..., Array]) -> Array:
    """Reduces over d, h, w."""
    return reduce(as_volume(reduce(rows, axis=(-3, -2))), axis=-2)
