"""Whole-region segmentation scores: Dice, HD95 and normalised surface Dice.

Protocol ``gmmas-whole-region-1`` (the name is written beside every number):

* A region is scored as one mask; its connected components are not matched one by one.
* Spacing comes from the reference's grid, never from the prediction's header.
* Dice is 2|P∩R| / (|P| + |R|) over voxels.
* The surface of a mask is the set of its voxels with at least one of the six face neighbours
  outside the mask; what lies beyond the edge of the volume counts as outside.
* HD95 is the larger of the two directed 95th percentiles of surface distance, in mm, as in Metrics
  Reloaded (Maier-Hein et al., Nature Methods 2024); NumPy's linear percentile.
* NSD is the share of both surfaces' voxels that lie within the tolerance of the other surface, in
  mm (Nikolov et al., J Med Internet Res 2021, counted in voxels instead of surface elements).
* Both masks empty: Dice 1, HD95 0, NSD 1. Exactly one empty: Dice 0, NSD 0, and HD95 is the
  diagonal of the volume's physical extent (373.1 mm for 240×240×155 at 1 mm), so that a missed
  tumour costs the same for every method.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from gmmas_jax.cases.labels import region_mask

PROTOCOL = "gmmas-whole-region-1"
REGION_NAMES = ("WT", "TC", "ET")
TOLERANCE_MM = 1.0

# Header spacings are float32: 0.99999994 mm must still count as within a tolerance of 1 mm.
_TOLERANCE_SLACK_MM = 1e-4


@dataclass(frozen=True)
class RegionScore:
    """Scores of one region of one case.

    Attributes:
        dice: in [0, 1].
        hd95: in mm.
        nsd: in [0, 1].
    """

    dice: float
    hd95: float
    nsd: float


def extent_diagonal(shape: Sequence[int], spacing: Sequence[float]) -> float:
    """Returns the diagonal in mm of a volume of `shape` [3] voxels at `spacing` [3] mm."""
    return float(np.linalg.norm(np.asarray(shape, float) * np.asarray(spacing, float)))


def dice_score(prediction: np.ndarray, reference: np.ndarray) -> float:
    """Returns the Dice coefficient of two masks [d h w] bool; 1 when both are empty."""
    total = int(np.count_nonzero(prediction)) + int(np.count_nonzero(reference))
    if total == 0:
        return 1.0
    return 2.0 * int(np.count_nonzero(prediction & reference)) / total


def surface_distances(
    prediction: np.ndarray, reference: np.ndarray, *, spacing: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distances of each surface to the other one.

    A k-d tree over the surface voxels gives the same distances as two Euclidean distance transforms
    of the joint bounding box and was six times faster on a glioblastoma-sized mask.

    Args:
        prediction: [d h w] bool, not empty.
        reference: [d h w] bool, not empty.
        spacing: voxel size in mm, [3].

    Returns:
        Distances in mm, [points of the prediction's surface] and [points of the reference's].
    """
    box = _joint_box(prediction, reference)
    scale = np.asarray(spacing, np.float64)
    ours = np.argwhere(_surface(prediction[box])) * scale
    theirs = np.argwhere(_surface(reference[box])) * scale
    to_reference, _ = cKDTree(theirs).query(ours)
    to_prediction, _ = cKDTree(ours).query(theirs)
    return to_reference, to_prediction


def score_masks(
    prediction: np.ndarray,
    reference: np.ndarray,
    *,
    spacing: Sequence[float],
    tolerance_mm: float = TOLERANCE_MM,
) -> RegionScore:
    """Scores one mask against another by the module's protocol.

    Args:
        prediction: [d h w] bool.
        reference: [d h w] bool, on the same grid.
        spacing: voxel size of the reference's grid in mm, [3].
        tolerance_mm: surface distance that counts as agreement.

    Returns:
        The three scores.

    Raises:
        ValueError: the shapes differ, are not 3D, or a spacing is not positive.
    """
    prediction, reference = np.asarray(prediction, bool), np.asarray(reference, bool)
    if prediction.shape != reference.shape or prediction.ndim != 3:
        raise ValueError(
            f"masks must be two 3D arrays of one shape, got {prediction.shape} and "
            f"{reference.shape}"
        )
    if len(spacing) != 3 or not all(np.isfinite(s) and s > 0 for s in spacing):
        raise ValueError(f"spacing must be three positive lengths in mm, got {tuple(spacing)}")
    if not prediction.any() and not reference.any():
        return RegionScore(dice=1.0, hd95=0.0, nsd=1.0)
    if not prediction.any() or not reference.any():
        return RegionScore(dice=0.0, hd95=extent_diagonal(reference.shape, spacing), nsd=0.0)
    forward, backward = surface_distances(prediction, reference, spacing=spacing)
    limit = tolerance_mm + _TOLERANCE_SLACK_MM
    within = int(np.count_nonzero(forward <= limit)) + int(np.count_nonzero(backward <= limit))
    return RegionScore(
        dice=dice_score(prediction, reference),
        hd95=float(max(np.percentile(forward, 95), np.percentile(backward, 95))),
        nsd=within / (forward.size + backward.size),
    )


def score_regions(
    prediction: np.ndarray,
    reference: np.ndarray,
    *,
    spacing: Sequence[float],
    regions: Iterable[str] = REGION_NAMES,
    tolerance_mm: float = TOLERANCE_MM,
) -> dict[str, RegionScore]:
    """Scores every region of a label map.

    Args:
        prediction: [d h w] uint8 label map in the project's labels.
        reference: [d h w] uint8 label map on the same grid.
        spacing: voxel size of the reference's grid in mm, [3].
        regions: names of `gmmas_jax.cases.labels.REGIONS`.
        tolerance_mm: surface distance that counts as agreement.

    Returns:
        Scores by region name.
    """
    return {
        region: score_masks(
            region_mask(prediction, region),
            region_mask(reference, region),
            spacing=spacing,
            tolerance_mm=tolerance_mm,
        )
        for region in regions
    }


def dice_regions(
    prediction: np.ndarray, reference: np.ndarray, *, regions: Iterable[str] = REGION_NAMES
) -> dict[str, float]:
    """Returns Dice alone by region, for tables where surfaces are not needed.

    Args:
        prediction: [d h w] uint8 label map.
        reference: [d h w] uint8 label map on the same grid.
        regions: names of `gmmas_jax.cases.labels.REGIONS`.
    """
    return {
        region: dice_score(region_mask(prediction, region), region_mask(reference, region))
        for region in regions
    }


def _joint_box(first: np.ndarray, second: np.ndarray) -> tuple[slice, ...]:
    """Returns the smallest box that holds both masks [d h w] bool."""
    either = first | second
    slices = []
    for axis in range(3):
        others = tuple(i for i in range(3) if i != axis)
        where = np.flatnonzero(either.any(axis=others))
        slices.append(slice(int(where[0]), int(where[-1]) + 1))
    return tuple(slices)


def _surface(mask: np.ndarray) -> np.ndarray:
    """Returns the mask's voxels [d h w] bool with a face neighbour outside of it."""
    return mask & ~ndimage.binary_erosion(mask, border_value=0)
