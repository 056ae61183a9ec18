"""N4: the slow change of brightness that the coils leave in an image."""

import numpy as np
import SimpleITK as sitk

from data_pipelines.preprocess.images import coarser

_SPACING_MM = 4.0
_ITERATIONS = (30, 20, 10)
_MIN_VOXELS = 500


def without_bias(image: sitk.Image, mask: sitk.Image | None = None) -> sitk.Image:
    """Divides an image by its bias field (N4ITK, Tustison et al. 2010).

    The field is smooth, so it is estimated on a coarse copy and evaluated on the image's grid.

    Args:
        image: float32.
        mask: uint8 on the same grid, where the field is estimated; None takes what is brighter
            than the background (Otsu).

    Returns:
        float32; the image itself where too little of it is bright to tell a field.
    """
    small = sitk.Cast(coarser(image, _SPACING_MM), sitk.sitkFloat32)
    if mask is None:
        inside = sitk.OtsuThreshold(small, 0, 1, 128)
    else:
        inside = sitk.Resample(mask, small, sitk.Transform(), sitk.sitkNearestNeighbor)
    # The logarithm is taken of it; interpolation leaves a few negative voxels.
    inside = sitk.And(sitk.Cast(inside, sitk.sitkUInt8), sitk.Cast(small > 0, sitk.sitkUInt8))
    if np.count_nonzero(sitk.GetArrayViewFromImage(inside)) < _MIN_VOXELS:
        return image
    method = sitk.N4BiasFieldCorrectionImageFilter()
    method.SetMaximumNumberOfIterations(_ITERATIONS)
    method.Execute(small, inside)
    field = method.GetLogBiasFieldAsImage(image)
    return sitk.Cast(image / sitk.Exp(sitk.Cast(field, sitk.sitkFloat32)), sitk.sitkFloat32)
