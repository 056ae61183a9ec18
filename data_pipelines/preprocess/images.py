"""Between NumPy arrays in RAS millimetres and SimpleITK images, which count in LPS."""

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from gmmas_jax.cases.case import Grid

_WIDTH = 2 * np.sqrt(2 * np.log(2))
"""Full width at half maximum of a Gaussian, in deviations."""

_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def to_image(array: np.ndarray, grid: Grid) -> sitk.Image:
    """Returns an array as an image that lies where its grid says.

    Args:
        array: [i j k], bool or any real dtype.
        grid: Its grid; a sheared one is allowed.
    """
    stored = array.astype(np.uint8) if array.dtype == bool else array
    image = sitk.GetImageFromArray(np.ascontiguousarray(stored.transpose(2, 1, 0)))
    affine = _LPS @ grid.affine
    spacing = np.array(grid.spacing)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    return image


def to_array(image: sitk.Image) -> np.ndarray:
    """Returns a copy of an image's voxels, [i j k]."""
    array: np.ndarray = sitk.GetArrayFromImage(image)
    return array.transpose(2, 1, 0)


def grid_of(image: sitk.Image) -> Grid:
    """Returns where the voxels of an image lie."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    i, j, k = image.GetSize()
    return Grid((i, j, k), _LPS @ affine)


def to_transform(matrix: np.ndarray) -> sitk.AffineTransform:
    """Returns a map of points as a transform.

    Args:
        matrix: float64 [4 4], RAS mm to RAS mm.
    """
    lps = _LPS @ matrix @ _LPS
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(lps[:3, :3].ravel().tolist())
    transform.SetTranslation(lps[:3, 3].tolist())
    return transform


def to_matrix(transform: sitk.Transform) -> np.ndarray:
    """Returns a linear transform as float64 [4 4], RAS mm to RAS mm."""
    points = np.vstack([np.zeros(3), np.eye(3)])
    mapped = np.array([transform.TransformPoint(point.tolist()) for point in points])
    lps = np.eye(4)
    lps[:3, 3] = mapped[0]
    lps[:3, :3] = (mapped[1:] - mapped[0]).T
    return _LPS @ lps @ _LPS


def resampled(
    image: sitk.Image,
    grid: Grid,
    matrix: np.ndarray | None = None,
    *,
    interpolator: int = sitk.sitkLinear,
) -> sitk.Image:
    """Samples an image on a grid, once; 0 where it does not reach.

    Args:
        image: What is sampled.
        grid: Where the result lies.
        matrix: float64 [4 4], points of the grid to points of the image, RAS mm; None: the same.
        interpolator: Of SimpleITK.
    """
    i, j, k = grid.shape
    affine = _LPS @ grid.affine
    spacing = np.array(grid.spacing)
    method = sitk.ResampleImageFilter()
    method.SetSize([i, j, k])
    method.SetOutputSpacing(spacing.tolist())
    method.SetOutputOrigin(affine[:3, 3].tolist())
    method.SetOutputDirection((affine[:3, :3] / spacing).ravel().tolist())
    method.SetTransform(to_transform(np.eye(4) if matrix is None else matrix))
    method.SetInterpolator(interpolator)
    return method.Execute(image)


def coarser(image: sitk.Image, spacing_mm: float) -> sitk.Image:
    """Averages blocks of voxels, so that no axis is finer than about a spacing.

    Axes that are coarse already, as across thick slices, stay as they are.
    """
    factors = [
        max(1, min(int(spacing_mm / size + 0.25), count // 4))
        for size, count in zip(image.GetSpacing(), image.GetSize(), strict=True)
    ]
    return sitk.BinShrink(image, factors) if max(factors) > 1 else image


def antialiased(array: np.ndarray, grid: Grid, spacing_mm: float) -> np.ndarray:
    """Smooths axes that are finer than a spacing, which sampling at it would alias.

    The Gaussian takes a voxel's blur from its own size to the spacing (Cardoso et al. 2015, both
    taken as full widths at half maximum); axes that are coarser stay as they are.

    Args:
        array: float32 [i j k].
        grid: Of the array.
        spacing_mm: At which it will be sampled.
    """
    ratio = np.maximum(spacing_mm / np.array(grid.spacing), 1.0)
    deviation = np.sqrt(ratio**2 - 1) / _WIDTH
    smooth: np.ndarray = ndimage.gaussian_filter(array, deviation.tolist())
    return smooth


def regridded(grid: Grid, spacing_mm: float) -> Grid:
    """Returns the grid with the same extent and axes at an isotropic spacing."""
    spacing = np.array(grid.spacing)
    if np.allclose(spacing, spacing_mm, atol=1e-4):
        return grid
    shape = [max(1, round(n * s / spacing_mm)) for n, s in zip(grid.shape, spacing, strict=True)]
    affine = grid.affine.copy()
    affine[:3, :3] = grid.affine[:3, :3] / spacing * spacing_mm
    centre = (np.array(grid.shape) - 1) / 2
    offset = grid.affine[:3, :3] @ centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    affine[:3, 3] = grid.affine[:3, 3] + offset
    return Grid((shape[0], shape[1], shape[2]), affine)


def centre(points: Sequence[float] | np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Returns a point, RAS mm, mapped by a matrix."""
    return matrix[:3, :3] @ np.asarray(points) + matrix[:3, 3]
