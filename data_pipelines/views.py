"""Two views of one example, for objectives that compare them (SimSiam and its kin)."""

from collections.abc import Sequence

import numpy as np

from gmmas_jax.cases.sequences import SEQUENCES

_LEAST_SHOWN = 2


def two_subsets(
    generator: np.random.Generator, present: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draws which sequences each of two views shows: two different subsets, each of two or more.

    Every ordered pair is equally probable. A case with two sequences has only one such subset: its
    views may then show a single sequence. A case with one sequence shows it twice.

    Args:
        generator: Of this example.
        present: float32 [4], 1 where the case has the sequence.

    Returns:
        Two of float32 [4], 1 where the sequence is shown.
    """
    having = np.flatnonzero(present)
    subsets = _subsets(having, _LEAST_SHOWN)
    if len(subsets) < 2:
        subsets = _subsets(having, 1)
    if len(subsets) < 2:
        return present, present
    first, second = generator.choice(len(subsets), size=2, replace=False)
    return subsets[first], subsets[second]


def near_start(
    generator: np.random.Generator,
    start: Sequence[int],
    *,
    shape: Sequence[int],
    patch: Sequence[int],
    overlap: float,
) -> tuple[int, int, int]:
    """Draws where the second of two overlapping patches begins.

    Args:
        generator: Of this example.
        start: First voxel of the first patch.
        shape: d, h, w of the case.
        patch: d, h, w of both patches.
        overlap: Share of its extent along each axis that the second shares with the first at
            least, above 0 up to 1.

    Returns:
        The first voxel. Along an axis where the case is smaller than the patch it is that of the
        first patch.
    """
    result = []
    for first, size, extent in zip(start, shape, patch, strict=True):
        reach = int((1 - overlap) * extent)
        low, high = max(first - reach, 0), min(first + reach, size - extent)
        # Always drawn, so that each axis has a draw of its own.
        drawn = generator.random()
        result.append(low + int(drawn * (high - low + 1)) if size > extent else first)
    x, y, z = result
    return (x, y, z)


def view_keys(generator: np.random.Generator) -> np.ndarray:
    """Draws the key of each view, uint32 [2 2], for `jax.random.wrap_key_data` on the device."""
    return generator.integers(0, 2**32, size=(2, 2), dtype=np.uint32)


def _subsets(having: np.ndarray, least: int) -> list[np.ndarray]:
    """Returns all subsets of at least so many of some sequences, float32 [4] each."""
    subsets = []
    for bits in range(1 << len(having)):
        chosen = having[[bool(bits >> i & 1) for i in range(len(having))]]
        if len(chosen) >= least:
            shown = np.zeros(len(SEQUENCES), np.float32)
            shown[chosen] = 1.0
            subsets.append(shown)
    return subsets
