"""The order of training examples as a function of (seed, counter) alone.

Nothing is drawn from a generator with a state: the case at a place in the stream follows from the
seed and the place. So the global batches are the same for any number of hosts, and training
resumes from the number of its step, without an iterator to save.
"""

from data_pipelines.host_tensorflow import tf
from gmmas_jax.errors import UserError


def index_stream(
    cases: int,
    *,
    seed: int,
    batch_size: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> tf.data.Dataset:
    """Returns the endless order in which one process reads its examples.

    The global example with counter `g` belongs to epoch `g // cases`; each epoch is a permutation
    of all cases (Mitchell et al. 2021's bijective shuffle, `tf.random.experimental.index_shuffle`).
    A batch may reach over the end of an epoch; none is left out.

    Args:
        cases: Number of cases, at least 1.
        seed: Any integer; its lowest 32 bits count.
        batch_size: Examples of a step over all processes.
        start_step: Steps that were already done.
        process_index: This process.
        process_count: Number of processes; each reads a consecutive share of every batch.

    Returns:
        Unbatched elements (global counter, case index), int64 scalars: `batch_size /
        process_count` of them for each step.

    Raises:
        UserError: If there is no case, or the batch cannot be shared out evenly.
    """
    if cases < 1:
        raise UserError("no case to train on: the cohort, or its split 'train', is empty.")
    if batch_size < 1 or batch_size % process_count:
        raise UserError(
            f"data.batch_size is {batch_size}; expected a positive multiple of the number of "
            f"processes ({process_count}). Change one of them."
        )
    share = batch_size // process_count

    def example(local: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        step, place = local // share, local % share
        counter = step * batch_size + process_index * share + place
        epoch, position = counter // cases, counter % cases
        case = tf.random.experimental.index_shuffle(
            tf.cast(position, tf.uint64),
            seed=tf.stack([tf.constant(seed % 2**32, tf.uint32), tf.cast(epoch, tf.uint32)]),
            max_index=tf.constant(cases - 1, tf.uint64),
        )
        return counter, tf.cast(case, tf.int64)

    return tf.data.Dataset.range(start_step * share, tf.int64.max).map(example)
