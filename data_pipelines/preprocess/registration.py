"""Linear alignment by mutual information, coarse to fine, and how good it is."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk

from data_pipelines.preprocess.images import (
    centre,
    coarser,
    to_array,
    to_matrix,
    to_transform,
)

_BINS = 32
_SAMPLES = 40_000
_SEED = 7
_MEASURED = 64
"""Bins along each axis of the histogram by which a result is measured."""


def align(
    fixed: sitk.Image,
    moving: sitk.Image,
    *,
    initial: np.ndarray,
    affine: bool,
    levels_mm: Sequence[float],
    mask: sitk.Image | None = None,
    iterations: int = 120,
) -> tuple[np.ndarray, float]:
    """Finds the rigid or affine map that maximises Mattes' mutual information.

    Args:
        fixed: float32.
        moving: float32.
        initial: float64 [4 4], where to start; points of `fixed` to points of `moving`, RAS mm.
        affine: Twelve degrees of freedom instead of six.
        levels_mm: Spacing of the images at each level, coarse to fine.
        mask: uint8, where on the fixed image the two are compared; None: everywhere.
        iterations: At most, per level.

    Returns:
        The map, as `initial`, and the mutual information at the finest level as the optimiser
        saw it, from 0 on, more is better; 0 and how far it came where the images do not meet.
    """
    matrix, value = initial, 0.0
    for spacing in levels_mm:
        small = coarser(fixed, spacing)
        method = _method(small, mask)
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=min(spacing, 2.0),
            minStep=0.002 * spacing,
            numberOfIterations=iterations,
            gradientMagnitudeTolerance=1e-5,
        )
        method.SetOptimizerScalesFromPhysicalShift()
        transform = _linear(matrix, small, affine=affine)
        method.SetInitialTransform(transform, inPlace=True)
        try:
            method.Execute(small, coarser(moving, spacing))
        except RuntimeError:
            return matrix, 0.0
        matrix, value = to_matrix(transform), -method.GetMetricValue()
    return matrix, value


def similarity(
    fixed: sitk.Image,
    moving: sitk.Image,
    matrix: np.ndarray,
    *,
    spacing_mm: float,
    mask: sitk.Image | None = None,
) -> float:
    """Returns the mutual information that `align` would begin with; 0 where they do not meet."""
    small = coarser(fixed, spacing_mm)
    method = _method(small, mask)
    method.SetInitialTransform(to_transform(matrix))
    try:
        return -float(method.MetricEvaluate(small, coarser(moving, spacing_mm)))
    except RuntimeError:
        return 0.0


def mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the mutual information of two samples, in nats.

    Each sample's range is cut to its percentiles 0.5 and 99.5 and divided into 64 bins.

    Args:
        a: [n], real.
        b: [n], real, of the same places.
    """
    if a.size < _MEASURED:
        return 0.0
    counts, _, _ = np.histogram2d(_binned(a), _binned(b), bins=_MEASURED)
    joint = counts / counts.sum()
    independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    filled = joint > 0
    return float((joint[filled] * np.log(joint[filled] / independent[filled])).sum())


def rigid_part(matrix: np.ndarray, about: np.ndarray) -> np.ndarray:
    """Returns the rotation nearest to an affine map, moving a point as the map does.

    Args:
        matrix: float64 [4 4].
        about: Point, [3].
    """
    left, _, right = np.linalg.svd(matrix[:3, :3])
    rotation = left @ right
    if np.linalg.det(rotation) < 0:
        left[:, -1] *= -1
        rotation = left @ right
    rigid = np.eye(4)
    rigid[:3, :3] = rotation
    rigid[:3, 3] = centre(about, matrix) - rotation @ about
    return rigid


def _method(fixed: sitk.Image, mask: sitk.Image | None) -> Any:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(_BINS)
    voxels = fixed.GetNumberOfPixels()
    if mask is not None:
        near = sitk.Resample(mask, fixed, sitk.Transform(), sitk.sitkNearestNeighbor)
        method.SetMetricFixedMask(near)
        voxels = max(1, int(np.count_nonzero(to_array(near))))
    share = min(1.0, _SAMPLES / voxels)
    if share < 1.0:
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(share, _SEED)
    method.SetInterpolator(sitk.sitkLinear)
    # The default, gradients smoothed by the coarsest voxel size (5 mm across thick slices), are not
    # those of the interpolated image: descents then end beside the optimum, an affine one shrunk.
    method.MetricUseFixedImageGradientFilterOff()
    method.MetricUseMovingImageGradientFilterOff()
    return method


def _linear(matrix: np.ndarray, fixed: sitk.Image, *, affine: bool) -> sitk.Transform:
    start = to_transform(matrix)
    transform: Any = sitk.AffineTransform(3) if affine else sitk.Euler3DTransform()
    size = np.array(fixed.GetSize())
    middle = fixed.TransformContinuousIndexToPhysicalPoint(((size - 1) / 2).tolist())
    transform.SetCenter(middle)
    if affine:
        transform.SetMatrix(start.GetMatrix())
    else:
        transform.SetMatrix(start.GetMatrix(), 1e-4)
    transform.SetTranslation((np.array(start.TransformPoint(middle)) - middle).tolist())
    return transform


def _binned(values: np.ndarray) -> np.ndarray:
    low, high = np.percentile(values, (0.5, 99.5))
    return np.clip(values, low, high)
