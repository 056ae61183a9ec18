"""Windows over a volume, and how their results become one.

Every window has the same shape, so that a network is compiled once. The sums are kept on the
host: a window's memory on an accelerator does not grow with the volume.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

_SIGMA = 1 / 8
"""Standard deviation of the weights in fractions of the window (nnU-Net)."""


class Tiling(NamedTuple):
    """Where the windows lie.

    Attributes:
        shape: Of the volume.
        window: Of every window.
        starts: First voxel of every window; negative where the volume is smaller than the window,
            which then lies around its middle, as in training.
    """

    shape: tuple[int, int, int]
    window: tuple[int, int, int]
    starts: tuple[tuple[int, int, int], ...]


class Windows(NamedTuple):
    """A batch of windows.

    Attributes:
        image: float32 [b d h w c]; zeros where a window reaches beyond the volume.
        box: float32 [b 2 3], lower and upper corner in fractions of the volume's extent.
    """

    image: np.ndarray
    box: np.ndarray


def make_tiling(shape: Sequence[int], window: Sequence[int], overlap: float) -> Tiling:
    """Spreads windows evenly, with the least number that overlaps by at least a fraction.

    Args:
        shape: d, h, w of the volume.
        window: Of every window.
        overlap: Fraction of a window's length that neighbours share, from 0 to below 1.
    """
    (d, h, w), (x, y, z) = shape, window
    starts = itertools.product(
        _starts(d, x, overlap), _starts(h, y, overlap), _starts(w, z, overlap)
    )
    return Tiling((d, h, w), (x, y, z), tuple(starts))


def gaussian_weights(window: Sequence[int]) -> np.ndarray:
    """Returns how much each voxel of a window counts: more where the network sees all around it.

    Source: Isensee et al., nnU-Net, Nature Methods 2021.

    Returns:
        float32 [window], positive, largest in the middle.
    """
    weights = np.ones((), np.float64)
    for length in window:
        distance = (np.arange(length) - (length - 1) / 2) / (_SIGMA * length)
        weights = np.multiply.outer(weights, np.exp(-0.5 * distance**2))
    return (weights / weights.max()).astype(np.float32)


def slide(
    volume: np.ndarray,
    tiling: Tiling,
    *,
    batch_size: int,
    run: Callable[[Windows], tuple[np.ndarray, Any]],
) -> tuple[np.ndarray, list[Any]]:
    """Runs a function on all windows of a volume and blends what it says about voxels.

    Args:
        volume: float32 [d h w c].
        tiling: From `make_tiling` for this volume.
        batch_size: Windows of one call. The last call is filled up with copies of its first.
        run: Windows to (real [b *window k], anything that belongs to these windows).

    Returns:
        float32 [d h w k], the mean of the windows weighted by `gaussian_weights`; and per call
        what `run` returned second.
    """
    weights = gaussian_weights(tiling.window)
    total: np.ndarray | None = None
    share = np.zeros(tiling.shape, np.float32)
    others = []
    for first in range(0, len(tiling.starts), batch_size):
        starts = tiling.starts[first : first + batch_size]
        filled = starts + starts[:1] * (batch_size - len(starts))
        values, other = run(_windows(volume, tiling, filled))
        others.append(other)
        if total is None:
            total = np.zeros((*tiling.shape, values.shape[-1]), np.float32)
        for start, value in zip(starts, np.asarray(values, np.float32), strict=False):
            inside, target = overlap_slices(start, tiling)
            total[target] += value[inside] * weights[inside][..., None]
            share[target] += weights[inside]
    assert total is not None  # There is at least one window.
    total /= share[..., None]
    return total, others


def overlap_slices(
    start: Sequence[int], tiling: Tiling
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Returns the part of a window that lies in the volume: within the window, in the volume."""
    inside, target = [], []
    for first, extent, size in zip(start, tiling.window, tiling.shape, strict=True):
        low, high = max(first, 0), min(first + extent, size)
        inside.append(slice(low - first, high - first))
        target.append(slice(low, high))
    return tuple(inside), tuple(target)


def _starts(size: int, length: int, overlap: float) -> list[int]:
    if size <= length:
        return [(size - length) // 2]
    # At least one voxel further, and no step lost to the rounding of 1 - overlap.
    step = max(1.0, round(length * (1 - overlap), 6))
    count = math.ceil((size - length) / step) + 1
    return [round(index * (size - length) / (count - 1)) for index in range(count)]


def _windows(volume: np.ndarray, tiling: Tiling, starts: Sequence[tuple[int, ...]]) -> Windows:
    image = np.zeros((len(starts), *tiling.window, volume.shape[-1]), np.float32)
    for index, start in enumerate(starts):
        inside, source = overlap_slices(start, tiling)
        image[index][inside] = volume[source]
    lower = np.asarray(starts, np.float64)
    corners = np.stack([lower, lower + np.asarray(tiling.window)], axis=1)
    return Windows(image, (corners / np.asarray(tiling.shape)).astype(np.float32))
