"""Working on one example at a time, on the device that holds it, and only where a draw asks for it.

Most augmentations are drawn for a small share of the examples. A batched program would compute them
for all and select; one example at a time they cost what they are drawn for, and the memory is that
of a single example.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec as P

Example = dict[str, Any]
"""One example's arrays, by name: those of a batch without the first axis."""

Tree = TypeVar("Tree")


def each_example(
    function: Callable[[Array, Example], Example], key: Array, batch: Mapping[str, Array]
) -> Example:
    """Applies a function to every example of a batch, with a key of its own.

    Inside `jax.set_mesh` each device works on its own examples, in turn; their result does not
    depend on the number of devices.

    Args:
        function: (key, example) to example.
        key: Typed key.
        batch: Arrays [b …]; devices hold equal parts of it.

    Returns:
        Arrays [b …].
    """
    size = next(iter(batch.values())).shape[0]
    keys = jax.random.split(key, size)

    def in_turn(keys: Array, part: Example) -> Example:
        return jax.lax.map(lambda own: function(*own), (keys, part))

    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return in_turn(keys, dict(batch))
    # A loop over an axis that is split would gather the batch on every device.
    rows = P(mesh.axis_names)
    return jax.shard_map(in_turn, in_specs=rows, out_specs=rows)(keys, dict(batch))


def widen(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a batch or an example with float16 arrays as float32, and uint8 as int32.

    A store's narrow arrays are what travels to the device; arithmetic needs the wide ones.
    """
    wide = {jnp.dtype(jnp.float16): jnp.float32, jnp.dtype(jnp.uint8): jnp.int32}
    return jax.tree.map(
        lambda array: array.astype(wide.get(array.dtype, array.dtype)), dict(arrays)
    )


class Numbers:
    """Uniform random numbers, handed out in order.

    One vector for all the small draws of a stage: each call of `jax.random` is a program of its own
    that takes XLA's CPU backend a good part of a second to compile.
    """

    def __init__(self, row: Array) -> None:
        """Takes [n] f32 between 0 and 1."""
        self._row = row
        self._used = 0

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Array:
        """Returns the next numbers, between two others."""
        start, self._used = self._used, self._used + math.prod(shape)
        if self._used > self._row.shape[0]:
            raise ValueError(f"{self._used} numbers asked for, {self._row.shape[0]} drawn")
        return low + (high - low) * self._row[start : self._used].reshape(shape)

    def happens(self, probability: float) -> Array:
        """Returns True, a scalar, with a probability."""
        return self.uniform() < probability


def when(
    chosen: Array, function: Callable[..., Tree], value: Tree, operands: tuple[Any, ...] = ()
) -> Tree:
    """Applies a function, or leaves the value as it is and does no work.

    A loop of one or no round: unlike the branches of `jax.lax.cond`, XLA's CPU backend runs its
    body on all cores and in place.

    Args:
        chosen: Scalar bool.
        function: (value, *operands) to value of the same shapes and dtypes. Keys that it uses up
            must be part of the value.
        value: Any tree.
        operands: Trees of small arrays: what the function computes large arrays from. Were they
            captured instead, XLA would take that work out of the loop and do it in any case.
    """

    def body(turn: Array, value: Tree) -> Tree:
        # The turn is always 0, but XLA does not know it.
        own = jax.tree.map(lambda a: jnp.where(turn == 0, a, jnp.zeros_like(a)), operands)
        return function(value, *own)

    return jax.lax.fori_loop(0, chosen.astype(jnp.int32), body, value)
