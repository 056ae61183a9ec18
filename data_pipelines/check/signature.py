"""Which images show nearly the same: signatures that a matrix product compares.

The local detail of a brain (what lies between 3 and 9 mm: sulci, ventricles, tumour) differs
between people far more than its outline or its mean brightness. A signature is that detail on a
6 mm grid about the brain's centre, clipped, projected onto 256 numbers by random signs, and scaled
to length 1. The product of two is the correlation of their detail, within about 0.06.

Measured on nine real and 282 generated patients (all pairs, per sequence): two people reach 0.52
at most; one image against its copy keeps 1.00 after scaling, 0.99 after 5 % noise or another field
of view, 0.88 after gamma 0.7, 0.81 after a shift of half a 4 mm voxel, 0.69 after a turn by
4 degrees. `SAME` lies between.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import ndimage

LENGTH = 256
SAME = 0.8
"""Correlation from which two images count as nearly the same."""

_SHAPE = (26, 32, 26)
_STEP_MM = 6.0
_FINE_MM, _BROAD_MM = 3.0, 9.0
_CLIP = 3.0
_LEAST_DETAIL = 1e-4
"""Of the largest value; below is what rounding leaves of an even image."""

_BLOCK = 2048
"""Rows of one matrix product: 2048 x 2048 correlations are 16 MiB."""


def signature(coarse: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Returns the signature of an image.

    Args:
        coarse: float32 [d h w] in RAS.
        spacing: In mm.

    Returns:
        float16 [256] of length 1; zeros where the image has no detail.
    """
    if not coarse.any():
        return np.zeros(LENGTH, np.float16)
    magnitude = np.abs(coarse)
    mask = magnitude > 0.05 * np.percentile(magnitude[magnitude > 0], 90)
    weights = mask.astype(np.float32)
    values = np.clip(coarse, *np.percentile(coarse[mask], [1, 99])) * weights

    def smoothed(mm: float) -> np.ndarray:
        sigma = [mm / step for step in spacing]
        share = ndimage.gaussian_filter(weights, sigma)
        return np.asarray(ndimage.gaussian_filter(values, sigma) / np.maximum(share, 0.05))

    detail = (smoothed(_FINE_MM) - smoothed(_BROAD_MM)) * weights
    step = np.array([_STEP_MM / mm for mm in spacing])
    offset = np.array(ndimage.center_of_mass(weights)) - step * (np.array(_SHAPE) - 1) / 2
    inside = ndimage.affine_transform(weights, step, offset, _SHAPE, order=1) > 0.5
    sampled = ndimage.affine_transform(detail, step, offset, _SHAPE, order=1)[inside]
    spread = float(np.sqrt((sampled**2).mean())) if sampled.size else 0.0
    if spread <= _LEAST_DETAIL * float(np.abs(values).max()):
        return np.zeros(LENGTH, np.float16)
    clipped = np.clip(sampled / spread, -_CLIP, _CLIP)
    buckets, signs = _projection()
    place = np.flatnonzero(inside)
    projected = np.bincount(buckets[place], clipped * signs[place], LENGTH)
    length = float(np.sqrt((projected**2).sum()))
    return (projected / max(length, 1e-12)).astype(np.float16)


def similar_pairs(
    signatures: np.ndarray, others: np.ndarray | None = None, *, least: float = SAME
) -> Iterator[tuple[int, int, float]]:
    """Yields the pairs whose correlation reaches a limit.

    Every pair is compared, by matrix products of blocks: 50,000 images take 0.6 million million
    multiplications, about a minute of one core, and 16 MiB beside the signatures.

    Args:
        signatures: float16 [n 256].
        others: float16 [m 256]; None compares the signatures among themselves.
        least: The limit.

    Yields:
        Index into `signatures`, index into `others` (the larger, among themselves), correlation.
    """
    against = signatures if others is None else others
    for first in range(0, len(signatures), _BLOCK):
        rows = signatures[first : first + _BLOCK].astype(np.float32)
        for second in range(first if others is None else 0, len(against), _BLOCK):
            product = rows @ against[second : second + _BLOCK].astype(np.float32).T
            for i, j in zip(*np.nonzero(product >= least), strict=True):
                left, right = first + int(i), second + int(j)
                if others is not None or left < right:
                    yield left, right, float(product[i, j])


def _projection() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(20211)
    size = int(np.prod(_SHAPE))
    return generator.integers(0, LENGTH, size), generator.choice([-1.0, 1.0], size)
