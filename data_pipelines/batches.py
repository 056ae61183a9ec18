"""From an order of examples and a function that reads one to batches of NumPy arrays."""

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from data_pipelines.host_tensorflow import tf
from data_pipelines.index_stream import CaseOrder, index_stream
from gmmas_jax.errors import UserError

Batch = dict[str, Any]
"""Arrays by name; `targets` and `target_valid` are dicts by task."""

ReadExample = Callable[[int, int], Batch]
"""(global counter, case index) to one example, a function of them alone."""

_PREFETCH = 2
"""Batches made ahead. A batch of volumes is large: enough to hide one slow read, no more."""


def counter_batches(
    read: ReadExample,
    kinds: dict[str, Any],
    order: CaseOrder,
    *,
    batch_size: int,
    start_step: int,
    process_index: int,
    process_count: int,
    workers: int,
) -> Iterator[Batch]:
    """Returns an endless iterator over the batches of one process.

    At most `workers` examples are being read, and at most `_PREFETCH` + 2 batches (one that is
    filled, one that is used) held. Nothing else is kept from one example to the next.

    Args:
        read: Reads an example; called in `workers` threads.
        kinds: Dtype and shape of what it returns, `tf.TensorSpec`s in the same structure.
        order: Which case each example shows.
        batch_size: See `index_stream`, as for the next three.
        start_step: Steps that were already done.
        process_index: This process.
        process_count: Number of processes.
        workers: Threads.

    Raises:
        UserError: If the batch cannot be shared out evenly; while iterating, what `read` raises.
    """
    flat_kinds = tf.nest.flatten(kinds)
    refused: list[UserError] = []

    def read_flat(counter: np.ndarray, position: np.ndarray) -> list[np.ndarray]:
        try:
            return tf.nest.flatten(read(int(counter), int(position)))
        except UserError as error:
            refused.append(error)
            raise

    def load(counter: tf.Tensor, position: tf.Tensor) -> Batch:
        outputs = [kind.dtype for kind in flat_kinds]
        # The same arguments always give the same arrays, hence not stateful.
        arrays = tf.numpy_function(read_flat, [counter, position], outputs, stateful=False)
        shaped = [
            tf.ensure_shape(array, kind.shape)
            for array, kind in zip(arrays, flat_kinds, strict=True)
        ]
        return tf.nest.pack_sequence_as(kinds, shaped)

    places = index_stream(
        order,
        batch_size=batch_size,
        start_step=start_step,
        process_index=process_index,
        process_count=process_count,
    )
    examples = places.map(load, num_parallel_calls=workers, deterministic=True)
    batches = examples.batch(batch_size // process_count, drop_remainder=True).prefetch(_PREFETCH)
    return _Batches(batches.with_options(_options(workers)), refused)


class _Batches(Iterator[Batch]):
    """The batches of a data set as NumPy arrays; ends its threads before the interpreter ends.

    They call back into Python: left running, they and the interpreter's end wait for each other.
    What they refuse is raised as it was, not wrapped into TensorFlow's words.
    """

    def __init__(self, dataset: tf.data.Dataset, refused: list[UserError]) -> None:
        held = [dataset.as_numpy_iterator()]
        self._held, self._refused = held, refused
        # Runs when this object goes, and at the latest on leaving Python.
        weakref.finalize(self, held.clear)

    def __next__(self) -> Batch:
        try:
            return next(self._held[0])
        except tf.errors.OpError:
            if self._refused:
                raise self._refused[0] from None
            raise


def _options(workers: int) -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = workers
    options.threading.max_intra_op_parallelism = 1
    # Else TensorFlow adds a buffer of its own, whose size in volumes nobody chose.
    options.experimental_optimization.inject_prefetch = False
    return options
