"""The header of a NIfTI file, checked before any voxel is read."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from gmmas_jax.cases.case import Grid
from gmmas_jax.errors import UserError

MAX_VOXELS = 2**27
"""Largest volume that is read, about 512 x 512 x 512: far above any head MRI, and far below what a
forged header could ask for. Checked before any voxel is read."""

_SPACING_MM = (0.01, 50.0)
_DIFFERENT_MM = 0.5
_REMEDY = "Correct the header, or convert the exam from DICOM again."
GEOMETRY_FIELDS = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)


def read_header(path: Path, stream: BinaryIO) -> Any:
    """Reads the fixed part of the header, raw: nibabel would repair some of what is refused.

    Raises:
        UserError: If it is not the header of a single-file NIfTI-1 or NIfTI-2.
    """
    start = stream.read(348)
    if start[:2] == b"\x1f\x8b":
        raise UserError(
            f"{path}: compressed twice; expected one gzip layer. Decompress it once (gunzip)."
        )
    kind: type[Any]
    if start[4:8] == b"n+2\x00" or start[4:8] == b"ni2\x00":
        kind, start = nib.Nifti2Header, start + stream.read(540 - 348)
    else:
        kind = nib.Nifti1Header
    size = kind.template_dtype.itemsize
    if len(start) < size:
        raise UserError(
            f"{path}: only {len(start)} bytes long; expected a NIfTI header of {size}. Copy the "
            "file again."
        )
    magic = start[4:8] if size == 540 else start[344:348]
    if magic in (b"ni1\x00", b"ni2\x00"):
        raise UserError(
            f"{path}: the header of a .hdr/.img pair; expected a single file. Convert the pair to "
            ".nii.gz."
        )
    if magic not in (b"n+1\x00", b"n+2\x00"):
        raise UserError(
            f"{path}: no NIfTI file (no magic number in the header); expected NIfTI-1 or NIfTI-2. "
            "Convert it with the program that wrote it."
        )
    return kind(start, check=False)


def header_shape(path: Path, header: Any) -> tuple[int, int, int]:
    """Returns the shape of the volume.

    Raises:
        UserError: If it is no 3D volume, or larger than `MAX_VOXELS`.
    """
    dims = [int(value) for value in header["dim"]]
    sizes = dims[1 : 1 + dims[0]] if 1 <= dims[0] <= 7 else []
    text = "x".join(map(str, sizes)) or f"dim = {dims}"
    if len(sizes) < 3 or min(sizes) < 1 or min(sizes[:3]) < 2:
        raise UserError(
            f"{path}: the header promises {text} voxels; expected a 3D volume with at least two "
            "voxels along each axis. Export the whole volume."
        )
    if any(size != 1 for size in sizes[3:]):
        raise UserError(
            f"{path}: {len(sizes)}D volume, {text}; expected 3D (trailing axes of length 1 are "
            "accepted). Split it into one file per sequence or time point."
        )
    voxels = sizes[0] * sizes[1] * sizes[2]
    if voxels > MAX_VOXELS:
        raise UserError(
            f"{path}: the header promises {text} = {voxels} voxels; the limit is {MAX_VOXELS}. "
            "The header is damaged, or resample the volume to a coarser grid."
        )
    return (sizes[0], sizes[1], sizes[2])


def header_dtype(path: Path, header: Any) -> np.dtype:
    """Returns the voxel type, in the byte order of the file.

    Raises:
        UserError: If voxels are colours, complex, bits or wider than 64 bits.
    """
    try:
        dtype: np.dtype | None = header.get_data_dtype()
    except (HeaderDataError, KeyError):
        dtype = None
    if dtype is None or dtype.kind not in "iuf" or dtype.itemsize > 8:
        code = int(header["datatype"])
        name = nib.nifti1.data_type_codes.label.get(code, "unknown")
        raise UserError(
            f"{path}: voxels are of type {name} (datatype {code}); expected integers or floating "
            "point numbers of up to 64 bits. Convert the file to one value per voxel."
        )
    return dtype


def header_grid(path: Path, header: Any, shape: tuple[int, int, int], noticed: list[str]) -> Grid:
    """Returns the grid: by the sform if it has a code, else the qform, else the voxel sizes.

    Raises:
        UserError: If a voxel size is no positive number or no length in mm that a head MRI can
            have, or if the orientation is invalid.
    """
    sizes = [float(value) for value in header["pixdim"][1:4]]
    if not all(np.isfinite(size) and size > 0 for size in sizes):
        raise UserError(
            f"{path}: voxel size (pixdim) is {_joined(sizes)}; expected three positive numbers in "
            f"mm. {_REMEDY}"
        )
    kept = {name: np.copy(header[name]) for name in GEOMETRY_FIELDS}
    kept["pixdim"] = np.copy(header["pixdim"][:4])
    if header["pixdim"][0] == 0:
        header["pixdim"][0] = 1.0  # The standard reads a missing sign of the qform as +1.
    affine = _affine(path, header)
    grid = Grid(shape, affine, kept)
    volume = abs(np.linalg.det(affine[:3, :3])) if np.isfinite(affine).all() else 0.0
    if not volume > 1e-3 * np.prod(grid.spacing):
        raise UserError(
            f"{path}: the affine is singular or not finite, {affine[:3].tolist()}; expected three "
            f"independent axes. {_REMEDY}"
        )
    low, high = _SPACING_MM
    if not all(low <= size <= high for size in grid.spacing):
        raise UserError(
            f"{path}: voxel size is {_joined(grid.spacing)}; expected {low:g} to {high:g} mm along "
            "each axis. The header probably holds metres or micrometres: correct it."
        )
    noticed.extend(_doubts(path, header, grid))
    return grid


def _affine(path: Path, header: Any) -> np.ndarray:
    try:
        return np.asarray(header.get_best_affine(), np.float64)
    except (HeaderDataError, np.linalg.LinAlgError, ValueError) as error:
        raise UserError(
            f"{path}: the qform in the header is invalid ({error}); expected a valid sform or "
            f"qform. {_REMEDY}"
        ) from error


def _doubts(path: Path, header: Any, grid: Grid) -> Iterator[str]:
    """Yields in what the ways to tell the orientation disagree."""
    if header["sform_code"] <= 0 and header["qform_code"] <= 0:
        yield f"{path.name}: no orientation in the header; left and right are assumed"
    if header["sform_code"] <= 0 or header["qform_code"] <= 0:
        return
    try:
        by_qform = Grid(grid.shape, np.asarray(header.get_qform(), np.float64))
    except (HeaderDataError, np.linalg.LinAlgError, ValueError):
        yield f"{path.name}: the qform is invalid; the sform is used"
        return
    apart = float(np.abs(grid.corners() - by_qform.corners()).max())
    if not apart <= _DIFFERENT_MM:
        yield f"{path.name}: sform and qform disagree by up to {apart:.1f} mm; the sform is used"


def _joined(sizes: Iterable[float]) -> str:
    return " x ".join(f"{size:g}" for size in sizes)
