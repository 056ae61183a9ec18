"""The stages of our own training input, each as a function that makes one example or batch."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.batches import Batch, counter_batches
from data_pipelines.composite_case import Mixer
from data_pipelines.examples import case_example, example_kinds
from data_pipelines.index_stream import every_case_once
from data_pipelines.pipeline import train_batches
from data_pipelines.prepared import PreparedIndex
from data_pipelines.sampling import example_generator, patch_start
from data_pipelines.speed.peers import Arrays


def crop_sampler(
    index: PreparedIndex, data: Mapping[str, Any], *, cutmix: bool
) -> Callable[[], None]:
    """Returns a function that maps a case and crops its patch, whole volume included.

    Args:
        index: The store.
        data: The config's section.
        cutmix: Whether each example is a composite of two cases.
    """
    share = 1.0 if cutmix else 0.0
    mixer = Mixer(index, seed=0, share=share, tasks=data["cutmix_task"], feather=0)
    counters = itertools.count()

    def sample() -> None:
        counter = next(counters)
        position = counter % len(index.cases)
        arrays, composite = index.open(position), None
        mixed = mixer.draw(counter, position, arrays)
        if mixed is not None:
            arrays, composite = mixed.arrays, mixed.composite
        start = patch_start(
            example_generator(0, counter),
            shape=arrays.image.shape[:3],
            patch=data["patch"],
            foreground=arrays.foreground,
            foreground_share=data["foreground"],
        )
        case_example(
            arrays, start=start, patch=data["patch"], shown=arrays.present, composite=composite
        )

    return sample


def batches(
    index: PreparedIndex, data: Mapping[str, Any], tasks: Sequence[str], *, workers: int
) -> Iterator[Batch]:
    """Returns the batches that training would get, every sequence shown and nothing mixed.

    The peers do neither, and what costs nothing else is left as the config has it.
    """
    return train_batches(
        index,
        seed=0,
        batch_size=data["batch_size"],
        patch=data["patch"],
        foreground=data["foreground"],
        sequence_drop="none",
        tasks=tasks,
        workers=workers,
    )


def patch_batches(
    index: PreparedIndex, data: Mapping[str, Any], *, workers: int
) -> Iterator[Batch]:
    """Returns batches of what the peers make as well: patch and label, no whole volume.

    Through the stream of training, with what an augmentation reads besides: `present`, `box`.
    """
    patch, names = data["patch"], ("image", "present", "box", "label")
    kinds = example_kinds(patch, index.whole, (), views=1)

    def read(counter: int, position: int) -> Batch:
        arrays = index.open(position)
        tiny = arrays.whole[:1, :1, :1]
        start = patch_start(
            example_generator(0, counter),
            shape=arrays.image.shape[:3],
            patch=patch,
            foreground=arrays.foreground,
            foreground_share=data["foreground"],
        )
        alone = dataclasses.replace(arrays, whole=tiny, whole_label=tiny[..., 0].astype(np.uint8))
        example = case_example(alone, start=start, patch=patch, shown=arrays.present)
        return {name: example[name] for name in names}

    return counter_batches(
        read,
        {name: kinds[name] for name in names},
        every_case_once(len(index.cases), seed=0),
        batch_size=data["batch_size"],
        start_step=0,
        process_index=0,
        process_count=1,
        workers=workers,
    )


def peer_arrays(index: PreparedIndex) -> list[Arrays]:
    """Returns all cases of a store in memory, as the peers take them."""
    cases = []
    for position in range(len(index.cases)):
        arrays = index.open(position)
        label = np.zeros(arrays.image.shape[:3], np.uint8) if arrays.label is None else arrays.label
        image = np.ascontiguousarray(np.moveaxis(arrays.image, -1, 0), np.float32)
        cases.append((image, np.array(label)))
    return cases
