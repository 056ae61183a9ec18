"""The order of training examples as a function of (seed, counter) alone.

Nothing is drawn from a generator with a state: the case at a place in the stream follows from the
seed and the place. So the global batches are the same for any number of hosts, and training
resumes from the number of its step, without an iterator to save.
"""

from collections.abc import Callable

from data_pipelines.host_tensorflow import tf
from gmmas_jax.errors import UserError

CaseOrder = Callable[[tf.Tensor], tf.Tensor]
"""Global example counter to case index, int64 scalars, in TensorFlow operations."""


def index_stream(
    order: CaseOrder,
    *,
    batch_size: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> tf.data.Dataset:
    """Returns the endless order in which one process reads its examples.

    Args:
        order: `every_case_once`, or `balance.balanced`.
        batch_size: Examples of a step over all processes.
        start_step: Steps that were already done.
        process_index: This process.
        process_count: Number of processes; each reads a consecutive share of every batch.

    Returns:
        Unbatched elements (global counter, case index), int64 scalars: `batch_size /
        process_count` of them for each step.

    Raises:
        UserError: If the batch cannot be shared out evenly.
    """
    if batch_size < 1 or batch_size % process_count:
        raise UserError(
            f"data.batch_size is {batch_size}; expected a positive multiple of the number of "
            f"processes ({process_count}). Change one of them."
        )
    share = batch_size // process_count

    def example(local: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        step, place = local // share, local % share
        counter = step * batch_size + process_index * share + place
        return counter, order(counter)

    return tf.data.Dataset.range(start_step * share, tf.int64.max).map(example)


def every_case_once(cases: int, *, seed: int) -> CaseOrder:
    """Returns the order whose every epoch is a permutation of all cases.

    The global example with counter `g` belongs to epoch `g // cases`. A batch may reach over the
    end of an epoch; none is left out.

    Args:
        cases: Number of cases, at least 1.
        seed: Any integer; its lowest 64 bits count.

    Raises:
        UserError: If there is no case.
    """
    if cases < 1:
        raise UserError("no case to train on: the cohort, or its split 'train', is empty.")

    def case_of(counter: tf.Tensor) -> tf.Tensor:
        return shuffled(counter % cases, seed=seed, epoch=counter // cases, size=cases)

    return case_of


def shuffled(
    position: tf.Tensor, *, seed: int | tf.Tensor, epoch: tf.Tensor, size: int | tf.Tensor
) -> tf.Tensor:
    """Returns what stands at a place of the permutation keyed by (seed, epoch).

    It is computed and not stored: a block cipher walked within the range, as in Mitchell et al.
    2021's bijective shuffle (`tf.random_index_shuffle`).

    Args:
        position: int64 scalar, 0 to `size` - 1.
        seed: Its lowest 64 bits count.
        epoch: int64 scalar.
        size: Length of the permutation.

    Returns:
        int64 scalar, 0 to `size` - 1.
    """
    # Of each word of its key TensorFlow's cipher uses no more bits than half a block has, which is
    # 8 up to 65,536 cases: keyed by the numbers themselves, the orders would come round again after
    # 256 epochs, and neighbouring epochs are alike. So they are hashed, and the rounds doubled.
    numbers = [tf.cast(_signed(value), tf.int64) for value in (seed, epoch)]
    key = tf.random.stateless_uniform(
        [3], tf.stack(numbers), minval=None, maxval=None, dtype=tf.uint32, alg="philox"
    )
    chosen = tf.random_index_shuffle(
        tf.cast(position, tf.uint64), key, tf.cast(size - 1, tf.uint64), rounds=8
    )
    return tf.cast(chosen, tf.int64)


def _signed(value: int | tf.Tensor) -> int | tf.Tensor:
    """Returns the lowest 64 bits of a number as a signed one."""
    return (value + 2**63) % 2**64 - 2**63 if isinstance(value, int) else value
