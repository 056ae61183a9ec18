"""Batches for training and cases for evaluation, from prepared cases on disk.

Here is what picks voxels: where a patch lies, which sequences it shows. What transforms a patch
(flips, noise, contrast) runs on the accelerator and is not here.
"""

import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines.host_tensorflow import tf
from data_pipelines.index_stream import index_stream
from data_pipelines.prepared import CaseArrays, PreparedIndex
from data_pipelines.sampling import (
    SEQUENCE_DROPS,
    SequenceDrop,
    cut,
    example_generator,
    patch_box,
    patch_start,
    shown_sequences,
)
from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.cases.tasks import TASKS, task_index
from gmmas_jax.errors import UserError

Batch = dict[str, Any]
"""Arrays by name; `targets` and `target_valid` are dicts by task. See `train_batches`."""

_PREFETCH = 2
"""Batches made ahead. A batch of volumes is large: enough to hide one slow read, no more."""


def train_batches(
    index: PreparedIndex,
    *,
    seed: int,
    batch_size: int,
    patch: Sequence[int],
    foreground: float,
    sequence_drop: SequenceDrop,
    tasks: Sequence[str],
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 2,
) -> Iterator[Batch]:
    """Returns an endless iterator over the batches of one process.

    The global batch of a step is a function of (seed, step) and the index, for any number of
    processes and workers: training resumes bitwise with `start_step`.

    Args:
        index: Cases to train on.
        seed: Of order, patches and sequence masks.
        batch_size: Examples of a step over all processes.
        patch: d, h, w; a case that is smaller lies in the middle of zeros.
        foreground: Share of patches that are centred on tumour (`sampling.patch_start`).
        sequence_drop: See `sampling.shown_sequences`.
        tasks: Names of `TASKS`.
        start_step: Steps that were already done.
        process_index: This process.
        process_count: Number of processes.
        workers: Threads that read.

    Returns:
        Batches of NumPy arrays, b = batch_size / process_count:
        image float32 [b d h w 4], z-scores, 0 where absent or not shown; present float32 [b 4];
        whole float32 [b D H W 4]; box float32 [b 2 3], see `sampling.patch_box`;
        label int32 [b d h w]; whole_label int32 [b D H W]; label_valid float32 [b];
        targets {task: float32 [b k]}, one-hot, all 0 where unknown;
        target_valid {task: float32 [b]}; case_index int32 [b], into `index.cases`.

    Raises:
        UserError: If there is no case, or an argument does not fit (named as in a config).
    """
    _check(foreground=foreground, sequence_drop=sequence_drop, patch=patch)
    targets, target_valid = _targets(index, tasks)
    kinds = _example_kinds(patch, index.whole)

    def read(counter: np.ndarray, position: np.ndarray) -> list[np.ndarray]:
        arrays = index.open(int(position))
        generator = example_generator(seed, int(counter))
        shown = shown_sequences(generator, arrays.present, drop=sequence_drop)
        start = patch_start(
            generator,
            shape=arrays.image.shape[:3],
            patch=patch,
            foreground=arrays.foreground,
            foreground_share=foreground,
        )
        example = _example(arrays, start=start, patch=patch, shown=shown)
        return [example[name] for name in kinds]

    def load(counter: tf.Tensor, position: tf.Tensor) -> Batch:
        outputs = [kind.dtype for kind in kinds.values()]
        # The same arguments always give the same arrays, hence not stateful.
        arrays = tf.numpy_function(read, [counter, position], outputs, stateful=False)
        example = {
            name: tf.ensure_shape(array, kind.shape)
            for (name, kind), array in zip(kinds.items(), arrays, strict=True)
        }
        return example | {
            "targets": {task: tf.gather(table, position) for task, table in targets.items()},
            "target_valid": {
                task: tf.gather(mask, position) for task, mask in target_valid.items()
            },
            "case_index": tf.cast(position, tf.int32),
        }

    order = index_stream(
        len(index.cases),
        seed=seed,
        batch_size=batch_size,
        start_step=start_step,
        process_index=process_index,
        process_count=process_count,
    )
    examples = order.map(load, num_parallel_calls=workers, deterministic=True)
    batches = examples.batch(batch_size // process_count, drop_remainder=True).prefetch(_PREFETCH)
    return _Batches(batches.with_options(_options(workers)))


class _Batches(Iterator[Batch]):
    """The batches of a data set as NumPy arrays; ends its threads before the interpreter ends.

    They call back into Python: left running, they and the interpreter's end wait for each other.
    """

    def __init__(self, dataset: tf.data.Dataset) -> None:
        held = [dataset.as_numpy_iterator()]
        self._held = held
        # Runs when this object goes, and at the latest on leaving Python.
        weakref.finalize(self, held.clear)

    def __next__(self) -> Batch:
        return next(self._held[0])


def evaluation_cases(
    index: PreparedIndex, *, tasks: Sequence[str], process_index: int = 0, process_count: int = 1
) -> Iterator[Batch]:
    """Yields every case of this process's share once, whole, as a batch of one.

    Returns:
        Batches as those of `train_batches`, with the shape of the case in place of the patch's.
    """
    targets, target_valid = _targets(index, tasks)
    for position in range(process_index, len(index.cases), process_count):
        arrays = index.open(position)
        shape = arrays.image.shape[:3]
        example = _example(arrays, start=(0, 0, 0), patch=shape, shown=arrays.present)
        yield {name: array[None] for name, array in example.items()} | {
            "targets": {task: table[position][None] for task, table in targets.items()},
            "target_valid": {task: mask[position][None] for task, mask in target_valid.items()},
            "case_index": np.array([position], np.int32),
        }


def _example(
    arrays: CaseArrays, *, start: Sequence[int], patch: Sequence[int], shown: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns what a batch holds of one case, without targets and case index."""
    label, whole_label = arrays.label, arrays.whole_label
    if label is None or whole_label is None:
        label = np.zeros(arrays.image.shape[:3], np.uint8)
        whole_label = np.zeros(arrays.whole.shape[:3], np.uint8)
    # Selected, not multiplied: zero times a negative value is minus zero.
    return {
        "image": np.where(shown > 0, cut(arrays.image, start, patch), 0).astype(np.float32),
        "present": shown,
        "whole": np.where(shown > 0, arrays.whole, 0).astype(np.float32),
        "box": patch_box(start, patch, arrays.image.shape[:3]),
        "label": cut(label, start, patch).astype(np.int32),
        "whole_label": whole_label.astype(np.int32),
        "label_valid": np.array(arrays.label is not None, np.float32),
    }


def _example_kinds(patch: Sequence[int], whole: Sequence[int]) -> dict[str, tf.TensorSpec]:
    """Returns dtype and shape of what `_example` returns."""
    channels = len(SEQUENCES)
    return {
        "image": tf.TensorSpec((*patch, channels), tf.float32),
        "present": tf.TensorSpec((channels,), tf.float32),
        "whole": tf.TensorSpec((*whole, channels), tf.float32),
        "box": tf.TensorSpec((2, 3), tf.float32),
        "label": tf.TensorSpec(patch, tf.int32),
        "whole_label": tf.TensorSpec(whole, tf.int32),
        "label_valid": tf.TensorSpec((), tf.float32),
    }


def _targets(
    index: PreparedIndex, tasks: Sequence[str]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns one-hot targets, float32 [cases k], and their validity, float32 [cases], by task."""
    targets, valid = {}, {}
    for task in tasks:
        if task not in TASKS:
            raise UserError(f"tasks: {task!r} is unknown; expected some of {', '.join(TASKS)}.")
        classes = [task_index(task, case.tasks.get(task)) for case in index.cases]
        table = np.zeros((len(classes), len(TASKS[task])), np.float32)
        for row, known in enumerate(classes):
            if known is not None:
                table[row, known] = 1.0
        targets[task] = table
        valid[task] = table.sum(axis=1)
    return targets, valid


def _check(*, foreground: float, sequence_drop: str, patch: Sequence[int]) -> None:
    if not 0 <= foreground <= 1:
        raise UserError(f"data.foreground is {foreground}; expected a share between 0 and 1.")
    if sequence_drop not in SEQUENCE_DROPS:
        raise UserError(
            f"data.sequence_drop is {sequence_drop!r}; expected one of {', '.join(SEQUENCE_DROPS)}."
        )
    if len(patch) != 3 or min(patch) < 1:
        raise UserError(f"data.patch is {tuple(patch)}; expected three sizes of at least 1.")


def _options(workers: int) -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = workers
    options.threading.max_intra_op_parallelism = 1
    # Else TensorFlow adds a buffer of its own, whose size in volumes nobody chose.
    options.experimental_optimization.inject_prefetch = False
    return options
