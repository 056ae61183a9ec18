"""Whether the planes of a series make one volume."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from data_pipelines.ingest.dicom_slices import Slice

FEWEST = 5
"""Planes below which nothing is a volume of a head."""

_SAME_DIRECTION = 1e-3
_SAME_POSITION_MM = 0.05
_UNEVEN = 0.1
_TILT_DEGREES = 1.0


def fault_of(slices: Sequence[Slice]) -> str | None:
    """Returns why planes are no volume, or None where they are.

    Planes have to share matrix, voxel size and orientation, and to lie evenly (within a tenth of
    their distance) along the direction that they face.
    """
    for plane in slices:
        if plane.fault is not None:
            return f"image {plane.number}: {plane.fault}"
    if len(slices) < FEWEST:
        return f"only {len(slices)} images; expected a volume of at least {FEWEST}"
    matrices = Counter(plane.matrix for plane in slices)
    if len(matrices) > 1:
        return f"mixed matrices: {_listed(matrices, 'x')}"
    for name, values in (
        ("no position", [plane.position for plane in slices]),
        ("no orientation", [plane.orientation for plane in slices]),
        ("no pixel spacing", [plane.spacing for plane in slices]),
    ):
        if None in values:
            return f"{values.count(None)} of {len(values)} images have {name}"
    orientations = np.array([plane.orientation for plane in slices], np.float64)
    if np.abs(orientations - orientations[0]).max() > _SAME_DIRECTION:
        kinds = len(np.unique(orientations.round(2), axis=0))
        return f"mixed orientations ({kinds} of them)"
    spacings = Counter(plane.spacing for plane in slices if plane.spacing is not None)
    spread = np.array(list(spacings), np.float64)
    if np.abs(spread - spread[0]).max() > _SAME_DIRECTION:
        return f"mixed pixel spacings: {_listed(spacings, ' x ')} mm"
    return _stack_fault(slices, orientations[0])


def slice_distance(slices: Sequence[Slice]) -> float:
    """Returns the distance between neighbouring planes in mm; only for planes without a fault."""
    orientation = np.array(slices[0].orientation, np.float64)
    return float(np.median(np.diff(np.sort(_along(slices, orientation)))))


def header_affine(slices: Sequence[Slice]) -> np.ndarray:
    """Returns where the voxels lie by the headers; only for planes without a fault.

    Returns:
        float64 [4 4], from (column, row, plane), planes in the order of their positions along the
        direction that they face, to RAS millimetres.
    """
    orientation = np.array(slices[0].orientation, np.float64)
    order = np.argsort(_along(slices, orientation))
    first, last = (np.array(slices[index].position) for index in (order[0], order[-1]))
    assert slices[0].spacing is not None  # Else it has a fault.
    affine = np.eye(4)
    affine[:3, 0] = orientation[:3] * slices[0].spacing[1]
    affine[:3, 1] = orientation[3:] * slices[0].spacing[0]
    affine[:3, 2] = (last - first) / (len(slices) - 1)
    affine[:3, 3] = first
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # LPS to RAS.


def is_dynamic(slices: Sequence[Slice]) -> bool:
    """Returns whether every position was imaged equally often and more than once."""
    counts = Counter(plane.position for plane in slices)
    return None not in counts and len(set(counts.values())) == 1 and len(slices) > len(counts)


def _along(slices: Sequence[Slice], orientation: np.ndarray) -> np.ndarray:
    normal = np.cross(orientation[:3], orientation[3:])
    return np.array([plane.position for plane in slices], np.float64) @ normal


def _stack_fault(slices: Sequence[Slice], orientation: np.ndarray) -> str | None:
    along = _along(slices, orientation)
    order = np.argsort(along)
    along = along[order]
    steps = np.diff(along)
    numbers = [slices[index].number for index in order]
    if is_dynamic(slices):
        count = len({plane.position for plane in slices})
        return f"{len(slices) // count} images at each of {count} positions: not one volume"
    same = [f"{numbers[i]} and {numbers[i + 1]}" for i in np.flatnonzero(steps < _SAME_POSITION_MM)]
    if same:
        return f"duplicate slices: images {', '.join(same[:4])} lie at one position"
    step = float(np.median(steps))
    gaps = [
        f"{round(steps[i] / step) - 1} between images {numbers[i]} and {numbers[i + 1]}"
        for i in np.flatnonzero(steps > 1.5 * step)
    ]
    if gaps:
        return f"missing slices: {', '.join(gaps[:4])} (slices lie {step:.4g} mm apart)"
    if np.abs(steps - step).max() > _UNEVEN * step:
        return f"uneven slices: {steps.min():.4g} to {steps.max():.4g} mm apart"
    positions = np.array([slices[index].position for index in order], np.float64)
    along_stack = positions[-1] - positions[0]
    normal = np.cross(orientation[:3], orientation[3:])
    cosine = abs(along_stack @ normal) / np.linalg.norm(along_stack) / np.linalg.norm(normal)
    angle = float(np.degrees(np.arccos(min(cosine, 1.0))))
    if angle > _TILT_DEGREES:
        return f"tilted stack: slices are shifted sideways by {angle:.3g} degrees (gantry tilt)"
    return None


def _listed(counts: Counter[tuple[int, int]] | Counter[tuple[float, float]], join: str) -> str:
    return ", ".join(
        f"{join.join(f'{number:g}' for number in value)} ({count})"
        for value, count in counts.most_common(4)
    )
