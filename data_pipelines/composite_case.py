"""A case with a composite in the place of its tumour, the whole volume beside the patch included.

Only what the composite touches is computed: the volume of the case stays where it is stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from data_pipelines.cutmix import (
    Box,
    Composite,
    Partners,
    TumourVoxels,
    combine,
    composite_voxels,
    tumour_voxels,
)
from data_pipelines.prepared import CaseArrays, PreparedIndex
from data_pipelines.sampling import example_generator
from gmmas_jax.cases.geometry import linear_weights, mix_along
from gmmas_jax.cases.labels import LABELS


@dataclass(frozen=True, eq=False)
class Mixed:
    """A composite, the first case as it shows it, and the position of the second case."""

    composite: Composite
    arrays: CaseArrays
    partner: int


class Mixer:
    """Draws which examples are composites, and makes them."""

    def __init__(
        self, index: PreparedIndex, *, seed: int, share: float, tasks: Sequence[str], feather: int
    ) -> None:
        """Tabulates which cases may be combined; with a share of 0 it does nothing.

        Raises:
            UserError: As `Partners`.
        """
        self._index, self._seed, self._share, self._feather = index, seed, share, feather
        self._partners = Partners(index.cases, tasks) if share else None

    def draw(self, counter: int, position: int, arrays: CaseArrays) -> Mixed | None:
        """Returns the composite of an example, None if it is to show its case as it is.

        Args:
            counter: Of the example.
            position: Of its case.
            arrays: Of its case.
        """
        if self._partners is None:
            return None
        generator = example_generator(self._seed, counter, "cutmix")
        if generator.random() >= self._share:
            return None
        candidates = self._partners.of(position)
        if not candidates.size:
            return None
        partner = int(candidates[generator.integers(candidates.size)])
        other = self._index.open(partner)
        voxels = tumour_voxels(self._index.cases[position], arrays)
        others = tumour_voxels(self._index.cases[partner], other)
        composite = combine(generator, (arrays, voxels), (other, others), feather=self._feather)
        if composite is None:
            return None
        return Mixed(composite, with_composite(arrays, voxels, composite, partner=other), partner)


@dataclass(frozen=True, eq=False)
class _Window:
    """The part of one axis of the whole volume that a box reaches, and what it is made from.

    Attributes:
        target: Of the whole volume.
        source: Of the case: all voxels that the target depends on.
        weights: float32 [target source]; None where the axis is not resampled.
    """

    target: slice
    source: slice
    weights: np.ndarray | None


def with_composite(
    arrays: CaseArrays, voxels: TumourVoxels, composite: Composite, *, partner: CaseArrays
) -> CaseArrays:
    """Returns a case that shows the composite in its whole volume and knows its tumour voxels.

    `image` and `label` stay those of the case on disk: `paste` puts the composite into a patch.
    It has the sequences that both cases have.

    Args:
        arrays: Of the first case.
        voxels: Of the first case, by code.
        composite: Of both.
        partner: The second case.
    """
    shape = arrays.image.shape[:3]
    windows = [
        _window(size, new_size, side)
        for size, new_size, side in zip(shape, arrays.whole.shape, composite.box, strict=False)
    ]
    source = tuple(window.source for window in windows)
    target = tuple(window.target for window in windows)
    start = tuple(side.start for side in source)
    image = np.array(arrays.image[source])
    paste(image, start, composite.box, composite.image)
    assert arrays.label is not None  # It has a tumour.
    label = np.array(arrays.label[source])
    paste(label, start, composite.box, composite.label)
    whole, whole_label = np.array(arrays.whole), np.array(arrays.whole_label)
    whole[target] = _resampled(image.astype(np.float32), windows)
    whole_label[target] = _most_probable(label, windows)
    return replace(
        arrays,
        whole=whole,
        whole_label=whole_label,
        foreground=tuple(composite_voxels(composite, voxels, shape).values()),
        present=arrays.present * partner.present,
    )


def paste(patch: np.ndarray, start: Sequence[int], box: Box, values: np.ndarray) -> None:
    """Puts the values of a box of a case into a patch of it, as far as they overlap, in place.

    Args:
        patch: [d h w ...].
        start: First voxel of the patch in the case; may be negative.
        box: Of the case.
        values: [... as the box, then as the patch].
    """
    into, of = [], []
    for first, extent, side in zip(start, patch.shape, box, strict=False):
        low, high = max(first, side.start), min(first + extent, side.stop)
        if low >= high:
            return
        into.append(slice(low - first, high - first))
        of.append(slice(low - side.start, high - side.start))
    patch[tuple(into)] = values[tuple(of)]


def _window(size: int, new_size: int, side: slice) -> _Window:
    # As `geometry.resample` does it for the whole axis, so that window and whole agree.
    if size == new_size:
        return _Window(side, side, None)
    weights = linear_weights(size, new_size, new_size / size)
    target = _extent(weights[:, side])
    source = _extent(weights[target].T)
    return _Window(target, source, weights[target, source])


def _extent(weights: np.ndarray) -> slice:
    """Returns the rows from the first to the last that is not all zero."""
    places = np.flatnonzero(weights.any(axis=1))
    return slice(int(places[0]), int(places[-1]) + 1)


def _length(side: slice) -> int:
    return side.stop - side.start


def _resampled(array: np.ndarray, windows: Sequence[_Window]) -> np.ndarray:
    # Where it becomes coarser first: the later products are then the smaller ones.
    for axis in sorted(range(3), key=lambda a: _length(windows[a].target) / array.shape[a]):
        weights = windows[axis].weights
        if weights is not None:
            array = mix_along(array, weights, axis=axis)
    return array


def _most_probable(label: np.ndarray, windows: Sequence[_Window]) -> np.ndarray:
    """Resamples as `prepare.whole_label` does: class by class, the first of equals."""
    best = _resampled((label == 0).astype(np.float32), windows)
    winner = np.zeros(best.shape, np.uint8)
    for code in range(1, len(LABELS)):
        mask = label == code
        if mask.any():
            share = _resampled(mask.astype(np.float32), windows)
            winner[share > best] = code
            best = np.maximum(best, share)
    return winner
