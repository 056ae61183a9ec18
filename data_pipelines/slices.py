"""Axial slices for networks in two dimensions, such as MU-Net's: t1c and t2f, with lesion.

The split is that of the patients: slices are drawn from cases, never dealt out themselves.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from data_pipelines.batches import Batch, counter_batches
from data_pipelines.cutmix import has_tumour, tumour_voxels
from data_pipelines.host_tensorflow import tf
from data_pipelines.index_stream import every_case_once
from data_pipelines.prepared import CaseArrays, PreparedIndex
from data_pipelines.sampling import example_generator
from gmmas_jax.cases.fit import fit
from gmmas_jax.cases.labels import REGIONS
from gmmas_jax.cases.sequences import SEQUENCES, presence
from gmmas_jax.errors import UserError

SliceLabel = Literal["WT", "labels"]
SLICE_LABELS: tuple[SliceLabel, ...] = ("WT", "labels")


def slice_batches(
    index: PreparedIndex,
    *,
    seed: int,
    batch_size: int,
    size: tuple[int, int] = (256, 256),
    sequences: Sequence[str] = ("t1c", "t2f"),
    label: SliceLabel = "WT",
    lesion_only: bool = True,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 2,
) -> Iterator[Batch]:
    """Returns an endless iterator over the batches of one process.

    Each example is one slice of one case: every case once an epoch, so that a large tumour does not
    count more than a small one, and one of its slices, each equally probable. As in
    `pipeline.train_batches`, all of it follows from (seed, step).

    Args:
        index: Cases to train on. Those that have none of the sequences are left out.
        seed: Of order and slices.
        batch_size: Examples of a step over all processes.
        size: Rows and columns: the axes from left to right and from posterior to anterior.
        sequences: Channels of the image, in this order.
        label: "WT": 1 where there is tumour, else 0; "labels": codes of `LABELS`.
        lesion_only: Only slices with tumour, of the cases that have a mask with tumour.
        start_step: Steps that were already done.
        process_index: This process.
        process_count: Number of processes.
        workers: Threads that read.

    Returns:
        Batches of NumPy arrays, b = batch_size / process_count, c sequences:
        image float32 [b rows columns c], z-scores of the whole volume as stored, resized with its
        proportions kept, 0 around it and where absent; present float32 [b c];
        label int32 [b rows columns], label_valid float32 [b];
        case_index int32 [b], into `index.cases`; slice_index int32 [b], from inferior on.

    Raises:
        UserError: If no case is left, or an argument does not fit.
    """
    channels = _channels(sequences)
    if label not in SLICE_LABELS:
        raise UserError(f"label is {label!r}; expected one of {', '.join(SLICE_LABELS)}.")
    if len(size) != 2 or min(size) < 1:
        raise UserError(f"size is {tuple(size)}; expected rows and columns of at least 1.")
    usable = _usable(index, sequences, lesion_only=lesion_only)

    def read(counter: int, place: int) -> Batch:
        position = int(usable[place])
        arrays = index.open(position)
        candidates = slice_numbers(index, position, arrays, lesion_only=lesion_only)
        chosen = example_generator(seed, counter, "slices").choice(candidates)
        return _slice(arrays, int(chosen), channels=channels, size=size, label=label) | {
            "case_index": np.array(position, np.int32)
        }

    return counter_batches(
        read,
        _kinds(size, len(channels)),
        every_case_once(len(usable), seed=seed),
        batch_size=batch_size,
        start_step=start_step,
        process_index=process_index,
        process_count=process_count,
        workers=workers,
    )


def case_slices(
    index: PreparedIndex,
    position: int,
    *,
    size: tuple[int, int] = (256, 256),
    sequences: Sequence[str] = ("t1c", "t2f"),
    label: SliceLabel = "WT",
    lesion_only: bool = False,
) -> Batch:
    """Returns the slices of one case as one batch, for evaluation by case.

    Args:
        index: See `slice_batches`, as for the others.
        position: Of the case.
        size: Rows and columns.
        sequences: Channels.
        label: Kind of label.
        lesion_only: Only slices with tumour; scores over these alone are too high, since nothing
            can be found where nothing is.

    Returns:
        As a batch of `slice_batches`; b, the number of slices, may be 0.
    """
    channels = _channels(sequences)
    arrays = index.open(position)
    numbers = slice_numbers(index, position, arrays, lesion_only=lesion_only)
    slices = [
        _slice(arrays, number, channels=channels, size=size, label=label)
        for number in numbers.tolist()
    ]
    kinds = _kinds(size, len(channels))
    batch = {
        name: np.array([one[name] for one in slices], kind.dtype.as_numpy_dtype).reshape(
            (len(slices), *kind.shape)
        )
        for name, kind in kinds.items()
        if name != "case_index"
    }
    return batch | {"case_index": np.full(len(slices), position, np.int32)}


def slice_numbers(
    index: PreparedIndex, position: int, arrays: CaseArrays, *, lesion_only: bool
) -> np.ndarray:
    """Returns which slices of a case may be drawn, int64 [n], ascending.

    Args:
        index: That has the case.
        position: Of the case.
        arrays: Of the case.
        lesion_only: Only those with tumour; a cavity alone is none.
    """
    slices = arrays.image.shape[2]
    if not lesion_only:
        return np.arange(slices)
    voxels = tumour_voxels(index.cases[position], arrays)
    found = np.zeros(slices, bool)
    for code in REGIONS["WT"]:
        # Flat indices in C order: the slice is the last axis.
        found[voxels.get(code, np.zeros(0, np.int32)) % slices] = True
    return np.flatnonzero(found)


def _slice(
    arrays: CaseArrays,
    number: int,
    *,
    channels: Sequence[int],
    size: tuple[int, int],
    label: SliceLabel,
) -> dict[str, np.ndarray]:
    image = np.asarray(arrays.image[:, :, number])[..., list(channels)].astype(np.float32)
    codes = np.zeros(image.shape[:2], np.int32)
    if arrays.label is not None:
        codes = arrays.label[:, :, number].astype(np.int32)
    if label == "WT":
        codes = np.isin(codes, REGIONS["WT"]).astype(np.int32)
    return {
        "image": fit(image, size),
        "present": arrays.present[list(channels)],
        "label": fit(codes, size, linear=False),
        "label_valid": np.array(arrays.label is not None, np.float32),
        "slice_index": np.array(number, np.int32),
    }


def _kinds(size: tuple[int, int], channels: int) -> dict[str, Any]:
    return {
        "image": tf.TensorSpec((*size, channels), tf.float32),
        "present": tf.TensorSpec((channels,), tf.float32),
        "label": tf.TensorSpec(size, tf.int32),
        "label_valid": tf.TensorSpec((), tf.float32),
        "slice_index": tf.TensorSpec((), tf.int32),
        "case_index": tf.TensorSpec((), tf.int32),
    }


def _channels(sequences: Sequence[str]) -> list[int]:
    presence(sequences)  # Refuses what is no sequence.
    if not sequences:
        raise UserError(f"sequences is empty; expected some of {', '.join(SEQUENCES)}.")
    return [SEQUENCES.index(name) for name in sequences]


def _usable(index: PreparedIndex, sequences: Sequence[str], *, lesion_only: bool) -> np.ndarray:
    """Returns the positions of the cases that slices can be drawn from, int64 [n]."""
    found = [
        position
        for position, case in enumerate(index.cases)
        if set(case.sequences) & set(sequences) and (has_tumour(case) or not lesion_only)
    ]
    if index.cases and not found:
        raise UserError(
            f"none of {len(index.cases)} cases has {' or '.join(sequences)}"
            f"{' and a mask with tumour' if lesion_only else ''}; expected some. Choose other "
            "sequences, or other cases."
        )
    return np.array(found, np.int64)
