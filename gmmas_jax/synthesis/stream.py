"""An endless stream of generated training examples, made on the device inside the training step."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import Partial

from gmmas_jax.augment.examples import Example, each_example
from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.cases.tasks import TASKS
from gmmas_jax.errors import UserError
from gmmas_jax.synthesis.anatomy import Anatomy
from gmmas_jax.synthesis.effects import Effects
from gmmas_jax.synthesis.frame import Frame
from gmmas_jax.synthesis.generator import draw_traits, head_extent, show

Batch = Mapping[str, Any]

_SUBSETS = np.array(
    [[code >> bit & 1 for bit in range(len(SEQUENCES))] for code in range(1, 2 ** len(SEQUENCES))],
    np.float32,
)
_SEARCH_MM = 4.0
_EVEN = 1e-3


def counters(
    *, batch_size: int, start_step: int, process_index: int, process_count: int
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the numbers of the patients of this process's part of each batch, from a step on.

    All else follows from them on the device: the stream has no state, and its checkpoint is the
    step. Example j of step t is patient t · batch size + j on any number of processes.
    """
    own = batch_size // process_count
    step = start_step
    while True:
        first = step * batch_size + process_index * own
        yield {"case_index": (np.arange(first, first + own) % 2**31).astype(np.int32)}
        step += 1


def make_generation(
    anatomy: Anatomy,
    *,
    seed: int,
    patch: Sequence[int],
    whole: Sequence[int],
    spacing_mm: float,
    foreground: float,
    healthy: float,
    all_sequences: float,
    shown: Sequence[float],
    effects: Effects,
    tasks: Sequence[str],
) -> Callable[[Array, Batch], dict[str, Any]]:
    """Returns what turns a batch of `counters` into one of generated patients, under `jit`.

    Its fields and shapes are those of `data_pipelines.pipeline.train_batches`, widened as the
    training step widens them, so that nothing after it knows where the patients came from. A patch
    is generated at its spacing, the whole volume at its own: the voxels between are never computed.
    It carries the anatomy as an argument, not as a constant of the program (`Transform`).

    Args:
        anatomy: Tissue maps.
        seed: Of the patients: the same seed and number, the same patient.
        patch: d, h, w in voxels.
        whole: D, H, W of the whole volume, which is the brain's box.
        spacing_mm: Edge of the patch's voxels.
        foreground: Share of the patches that are centred on tumour: a class that the patient has is
            drawn, then a place in it.
        healthy: Share of the patients without tumour.
        all_sequences: Share of the examples that show all four whatever `shown` says.
        shown: Probability of each sequence, in the order of `SEQUENCES`, in the other examples;
            drawn apart, and drawn again where none would be shown.
        effects: What makes scans hard.
        tasks: Names of `cases.tasks.TASKS`; what the generator does not know is unknown.

    Raises:
        UserError: If `shown` is not a probability for each sequence, or 0 for all.
    """
    possible = len(shown) == len(SEQUENCES) and all(0 <= share <= 1 for share in shown)
    if not possible or not any(shown):
        raise UserError(
            f"synthesis.shown is {tuple(shown)}; expected a probability for each of "
            f"{', '.join(SEQUENCES)}, not all 0."
        )
    make = functools.partial(
        generated_example,
        patch=patch,
        whole=whole,
        spacing_mm=spacing_mm,
        foreground=foreground,
        healthy=healthy,
        all_sequences=all_sequences,
        shown=shown,
        effects=effects,
        tasks=tasks,
    )

    def generate_batch(anatomy: Anatomy, key: Array, batch: Batch) -> dict[str, Any]:
        def example(_: Array, own: Example) -> Example:
            patient = jax.random.fold_in(jax.random.key(seed), own["case_index"])
            return {**make(patient, anatomy), **own}

        return each_example(example, key, batch)

    return Partial(generate_batch, anatomy)


def generated_example(
    key: Array,
    anatomy: Anatomy,
    *,
    patch: Sequence[int],
    whole: Sequence[int],
    spacing_mm: float,
    foreground: float,
    healthy: float,
    all_sequences: float,
    shown: Sequence[float],
    effects: Effects,
    tasks: Sequence[str],
) -> Example:
    """Generates one example; arguments as of `make_generation`."""
    k_healthy, k_patient, k_patch, k_hide = jax.random.split(key, 4)
    well = jax.random.bernoulli(k_healthy, healthy)
    traits = draw_traits(k_patient, anatomy, effects, healthy=well)
    low, high = head_extent(traits, anatomy, effects, spacing_mm=_SEARCH_MM)
    box = _frame(low, high, whole)
    image, label = show(traits, anatomy, box, effects)
    inside = image[..., :1] > 0
    count = jnp.maximum(inside.sum(), 1)
    mean = jnp.sum(image * inside, axis=(0, 1, 2)) / count
    spread = jnp.sqrt(jnp.sum((image - mean) ** 2 * inside, axis=(0, 1, 2)) / count)

    def standard(values: Array) -> Array:
        return jnp.where(values[..., :1] > 0, (values - mean) / (spread + _EVEN), 0.0)

    start = _patch_start(k_patch, label, box, low, high, np.array(patch) * spacing_mm, foreground)
    frame = Frame(start + spacing_mm / 2, jnp.full(3, spacing_mm, jnp.float32), _three(patch))
    near, near_label = show(traits, anatomy, frame, effects)
    present = _present(k_hide, all_sequences, shown)
    known = {**traits.genotype.tasks(), "outcome": None}
    targets, valid = {}, {}
    for task in tasks:
        index = known[task]
        one_hot = (
            jnp.zeros(len(TASKS[task]))
            if index is None
            else jax.nn.one_hot(index, len(TASKS[task]))
        )
        valid[task] = jnp.float32(index is not None) * (1.0 - well)
        targets[task] = one_hot * valid[task]
    extent = (high - low)[None]
    corners = jnp.stack([start, start + jnp.array(patch) * spacing_mm])
    return {
        "image": jnp.where(present > 0, standard(near), 0.0),
        "present": present,
        "whole": jnp.where(present > 0, standard(image), 0.0),
        "box": (corners - low[None]) / extent,
        "label": near_label,
        "whole_label": label,
        "label_valid": jnp.float32(1.0),
        "targets": targets,
        "target_valid": valid,
    }


def _frame(low: Array, high: Array, shape: Sequence[int]) -> Frame:
    step = (high - low) / jnp.array(shape)
    return Frame(low + step / 2, step, _three(shape))


def _three(shape: Sequence[int]) -> tuple[int, int, int]:
    depth, height, width = shape
    return depth, height, width


def _patch_start(
    key: Array,
    label: Array,
    box: Frame,
    low: Array,
    high: Array,
    size: np.ndarray,
    foreground: float,
) -> Array:
    """Returns where a patch begins, [3] mm: on tumour or anywhere, within the brain's box."""
    k_centred, k_class, k_voxel, k_within, k_free = jax.random.split(key, 5)
    counts = jnp.stack([(label == code).sum() for code in (1, 2, 3, 4)])
    code = 1 + jax.random.categorical(k_class, jnp.where(counts > 0, 0.0, -jnp.inf))
    score = jax.random.uniform(k_voxel, label.shape) + (label == code)
    place = jnp.stack(jnp.unravel_index(score.argmax(), label.shape)).astype(jnp.float32)
    jitter = jax.random.uniform(k_within, (3,), minval=-0.5, maxval=0.5)
    centred = box.start + box.step * (place + jitter) - size / 2
    room = jnp.maximum(high - low - size, 0.0)
    free = low + room * jax.random.uniform(k_free, (3,))
    wanted = jax.random.bernoulli(k_centred, foreground) & (counts.sum() > 0)
    start = jnp.where(wanted, centred, free).clip(low, low + room)
    # A head that is smaller than the patch lies in its middle.
    return jnp.where(high - low < size, (low + high - size) / 2, start)


def _present(key: Array, all_sequences: float, shown: Sequence[float]) -> Array:
    """Draws the sequences that are shown, [4] float32; at least one."""
    k_all, k_subset = jax.random.split(key)
    odds = np.where(_SUBSETS > 0, shown, 1 - np.asarray(shown)).prod(axis=1)
    subset = jnp.asarray(_SUBSETS)[jax.random.choice(k_subset, len(odds), p=odds / odds.sum())]
    return jnp.where(jax.random.bernoulli(k_all, all_sequences), jnp.ones(len(SEQUENCES)), subset)
