"""Random keys as a function of (seed, stream, step): nothing to store, any step can be replayed."""

import hashlib

import jax
from jax import Array


def stream_key(seed: int, name: str, step: Array | int = 0) -> Array:
    """Returns the key of a named stream at a step.

    Args:
        seed: The run's seed.
        name: The stream, for example "init" or "dropout". Streams are independent of each other,
            and adding one leaves the others as they are.
        step: Completed updates; may be traced.

    Returns:
        A typed scalar key.
    """
    digest = hashlib.sha256(name.encode()).digest()
    stream = jax.random.fold_in(jax.random.key(seed), int.from_bytes(digest[:4], "big"))
    return jax.random.fold_in(stream, step)
