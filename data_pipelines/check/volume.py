"""What is kept of one image once it has been read: numbers, a coarse copy and a signature."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from data_pipelines.check.signature import signature
from data_pipelines.exam_files import MOSTLY, content_hash
from gmmas_jax.cases.case import Grid
from gmmas_jax.cases.geometry import canonical_grid

COARSE_MM = 4.0
"""Spacing at which contrasts and alignment are judged: coarse enough that noise averages out, fine
enough for ventricles."""

_FOREGROUND = 0.02
_HUGE = 1e30
_HEAD_ML = 2800.0
"""Above any brain (one made as large as MNI152 or a little larger included), below any head."""


@dataclass(frozen=True, eq=False)
class Volume:
    """One image, reduced.

    Attributes:
        grid: The grid of the file.
        content_hash: Of the voxels in RAS order, whatever the file's type and axis order.
        signature: See `signature.signature`.
        coarse: float32 [d h w] in RAS, means over blocks.
        coarse_mm: Its spacing.
        stripped: Whether the background is 0 and the foreground no larger than a brain.
        filled: Share of non-zero voxels.
        negative: Share of negative voxels.
        foreground_ml: Volume of what is not background.
        faces_cm2: Foreground on the faces left, right, back, front, bottom, top of the grid.
    """

    grid: Grid
    content_hash: str
    signature: np.ndarray
    coarse: np.ndarray
    coarse_mm: tuple[float, float, float]
    stripped: bool
    filled: float
    negative: float
    foreground_ml: float
    faces_cm2: tuple[float, ...]


def reduce_volume(ras: np.ndarray, grid: Grid) -> tuple[Volume, np.ndarray]:
    """Reduces an image to what later comparisons need.

    Args:
        ras: float32 [d h w] in RAS, contiguous, not constant.
        grid: The grid of its file.

    Returns:
        The reduced image, and bool [d h w] in RAS where it is not 0.
    """
    canonical = canonical_grid(grid)
    # Sums of the largest floats would be infinite.
    largest = max(float(ras.max()), -float(ras.min()))
    shown = ras if largest < _HUGE else ras * np.float32(1 / _HUGE)
    coarse, coarse_mm = block_means(shown, canonical.spacing)
    level = _FOREGROUND * bright_level(coarse, 99)
    foreground = (shown > level) | (shown < -level)
    nonzero = ras != 0
    filled = float(np.count_nonzero(nonzero)) / ras.size
    foreground_ml = float(np.count_nonzero(foreground)) * canonical.voxel_ml
    volume = Volume(
        grid=grid,
        content_hash=content_hash(ras),
        signature=signature(coarse, coarse_mm),
        coarse=coarse,
        coarse_mm=coarse_mm,
        stripped=filled <= MOSTLY and foreground_ml <= _HEAD_ML,
        filled=filled,
        negative=float(np.count_nonzero(ras < 0)) / ras.size,
        foreground_ml=foreground_ml,
        faces_cm2=_faces_cm2(foreground, canonical.spacing),
    )
    return volume, nonzero


def block_means(
    ras: np.ndarray, spacing: tuple[float, float, float]
) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Returns means over blocks of whole voxels of about `COARSE_MM`, and their spacing.

    Args:
        ras: float32 [d h w], at least two voxels along each axis.
        spacing: In mm.
    """
    # At least two blocks remain along each axis; what does not fill a block is left out.
    factors = [
        max(1, min(round(COARSE_MM / mm), n // 2)) for mm, n in zip(spacing, ras.shape, strict=True)
    ]
    d, h, w = (n // factor for n, factor in zip(ras.shape, factors, strict=True))
    fd, fh, fw = factors
    blocks = ras[: d * fd, : h * fh, : w * fw].reshape(d, fd, h, fh, w, fw)
    # One axis after the other is several times as fast as all at once.
    coarse = blocks.mean(5).mean(3).mean(1)
    x, y, z = (mm * factor for mm, factor in zip(spacing, factors, strict=True))
    return coarse, (x, y, z)


def brain_of(coarse: np.ndarray) -> np.ndarray:
    """Returns bool [d h w]: where a coarse stripped image is well above its background."""
    return np.abs(coarse) > 0.05 * bright_level(coarse, 90)


def bright_level(coarse: np.ndarray, percentile: float) -> float:
    """Returns a percentile of the magnitude of what is not 0; 0 where everything is."""
    nonzero = np.abs(coarse[coarse != 0])
    return float(np.percentile(nonzero, percentile)) if nonzero.size else 0.0


def depth_mm(mask: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Returns float [d h w]: distance from outside of a mask; the grid's edge counts as outside."""
    inner = (slice(1, -1),) * 3
    return np.asarray(ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing)[inner])


def _faces_cm2(foreground: np.ndarray, spacing: tuple[float, float, float]) -> tuple[float, ...]:
    areas = []
    for axis in range(3):
        pixel_cm2 = float(np.prod(spacing)) / spacing[axis] / 100.0
        for index in (0, -1):
            areas.append(float(np.count_nonzero(foreground.take(index, axis))) * pixel_cm2)
    return tuple(areas)
