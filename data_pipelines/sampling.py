"""What is drawn for one training example: where its patch lies and which sequences it shows.

All of it is a function of (seed, global example counter): `example_generator` makes the generator
that the other functions draw from.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from gmmas_jax.cases.sequences import SEQUENCES, SUBSETS, presence

SequenceDrop = Literal["none", "published", "uniform"]
SEQUENCE_DROPS: tuple[SequenceDrop, ...] = ("none", "published", "uniform")

STREAMS = ("patch", "cutmix", "views", "slices")
"""What is drawn for an example, each from a generator of its own."""

_DROP_ONE = 0.30
_DROP_TWO = 0.14
"""The rates that GMMAS's code comes to: one drawn event of 0.3, else an independent one of 0.2."""

_SUBSETS = np.stack([presence(subset) for subset in SUBSETS])

Foreground = tuple[np.ndarray, ...]
"""Per label code from 1 on: flat voxel indices, int32 [n], C order."""


def example_generator(seed: int, counter: int, stream: str = "patch") -> np.random.Generator:
    """Returns a generator of one example; equal arguments give equal draws on every machine.

    Args:
        seed: Of the run; its lowest 64 bits count.
        counter: Of the example.
        stream: A name of `STREAMS`. What is drawn from one does not depend on the others, so that
            an option that draws leaves all else as it was without it.
    """
    # Philox maps (key, position) to bits without a state to carry: each example is a key, and each
    # stream begins where the one before would end after 2**192 draws.
    key = np.array([seed % 2**64, counter], np.uint64)
    position = np.array([0, 0, 0, STREAMS.index(stream)], np.uint64)
    return np.random.Generator(np.random.Philox(counter=position, key=key))


def patch_start(
    generator: np.random.Generator,
    *,
    shape: Sequence[int],
    patch: Sequence[int],
    foreground: Foreground,
    foreground_share: float,
) -> tuple[int, int, int]:
    """Draws where a patch begins.

    With probability `foreground_share` it is centred on a tumour voxel, as far as the edges of the
    case allow: a class is drawn from those that the case has, then one of its voxels (as nnU-Net
    does), so that small parts are seen as often as large ones. Else, and where the case has no
    tumour or no label, every place inside the case is equally probable.

    Args:
        generator: Of this example.
        shape: d, h, w of the case.
        patch: d, h, w of the patch.
        foreground: The tumour voxels of the case; empty without.
        foreground_share: 0 to 1.

    Returns:
        The first voxel. Along an axis where the case is smaller than the patch it is
        negative, and the case lies in the middle.
    """
    size, extent = np.asarray(shape), np.asarray(patch)
    # Always drawn, so that what follows is the same with and without a tumour.
    centred = generator.random() < foreground_share
    room = np.maximum(size - extent, 0)
    start = generator.integers(0, room, endpoint=True)
    if centred and foreground:
        voxels = foreground[generator.integers(len(foreground))]
        centre = np.unravel_index(voxels[generator.integers(len(voxels))], tuple(shape))
        start = np.clip(np.array(centre) - extent // 2, 0, room)
    x, y, z = np.where(size < extent, (size - extent) // 2, start).tolist()
    return (x, y, z)


def cut(volume: np.ndarray, start: Sequence[int], patch: Sequence[int]) -> np.ndarray:
    """Returns the patch of a volume that begins at a voxel; zeros where it reaches beyond.

    Args:
        volume: [d h w ...], may lie on disk.
        start: First voxel; may be negative.
        patch: d, h, w of the result.

    Returns:
        A copy [patch ...] in memory.
    """
    result = np.zeros((*patch, *volume.shape[3:]), volume.dtype)
    source, target = [], []
    for first, extent, size in zip(start, patch, volume.shape, strict=False):
        low, high = max(int(first), 0), min(int(first) + extent, size)
        source.append(slice(low, high))
        target.append(slice(low - int(first), high - int(first)))
    result[tuple(target)] = volume[tuple(source)]
    return result


def patch_box(start: Sequence[int], patch: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """Returns where a patch lies in its case.

    Returns:
        float32 [2 3], lower and upper corner (voxel edges) in fractions of the extent of the case;
        below 0 and above 1 where the patch reaches beyond it.
    """
    lower = np.asarray(start, np.float64)
    corners = np.stack([lower, lower + np.asarray(patch)]) / np.asarray(shape, np.float64)
    return corners.astype(np.float32)


def shown_sequences(
    generator: np.random.Generator, present: np.ndarray, *, drop: SequenceDrop
) -> np.ndarray:
    """Draws which of the sequences of a case one example shows; at least one.

    Args:
        generator: Of this example.
        present: float32 [4], 1 where the case has the sequence.
        drop: "none" shows all; "published" hides one sequence with probability 0.30 and two with
            0.14, as GMMAS does; "uniform" draws one of the 15 subsets, as RFNet and mmFormer do.
            A draw that would leave nothing of this case shows all that it has.

    Returns:
        float32 [4], 1 where the sequence is shown.
    """
    if drop == "none":
        return present
    if drop == "uniform":
        kept = _SUBSETS[generator.integers(len(_SUBSETS))]
    else:
        hidden = int(generator.choice(3, p=[1 - _DROP_ONE - _DROP_TWO, _DROP_ONE, _DROP_TWO]))
        kept = np.ones(len(SEQUENCES), np.float32)
        # Among those that the case has, so that the rates hold for incomplete cases too.
        kept[generator.permutation(np.flatnonzero(present))[:hidden]] = 0.0
    shown = present * kept
    return shown if shown.any() else present
