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


class FileError(UserError):
    """A file that cannot be used.

    Attributes:
        kind: The code under which `gmmas check` reports it.
    """

    def __init__(self, message: str, kind: str = "file.unreadable"):
        super().__init__(message)
        self.kind = kind


class Note(str):
    """What was noticed about a file and not refused, in words.

    Attributes:
        code: The code under which `gmmas check` reports it.
    """

    code: str

    def __new__(cls, words: str, code: str) -> "Note":
        """Attaches the code to the words."""
        note = super().__new__(cls, words)
        note.code = code
        return note


def read_header(path: Path, stream: BinaryIO) -> Any:
    """Reads the fixed part of the header, raw: nibabel would repair some of what is refused.

    Raises:
        FileError: If it is not the header of a single-file NIfTI-1 or NIfTI-2.
    """
    start = stream.read(348)
    if start[:2] == b"\x1f\x8b":
        raise FileError(
            f"{path}: compressed twice; expected one gzip layer. Decompress it once (gunzip).",
            kind="file.compressed_twice",
        )
    kind: type[Any]
    if start[4:8] == b"n+2\x00" or start[4:8] == b"ni2\x00":
        kind, start = nib.Nifti2Header, start + stream.read(540 - 348)
    else:
        kind = nib.Nifti1Header
    size = kind.template_dtype.itemsize
    if len(start) < size:
        raise FileError(
            f"{path}: only {len(start)} bytes long; expected a NIfTI header of {size}. Copy the "
            "file again.",
            kind="file.truncated",
        )
    magic = start[4:8] if size == 540 else start[344:348]
    if magic in (b"ni1\x00", b"ni2\x00"):
        raise FileError(
            f"{path}: the header of a .hdr/.img pair; expected a single file. Convert the pair to "
            ".nii.gz.",
            kind="file.pair",
        )
    if magic not in (b"n+1\x00", b"n+2\x00"):
        raise FileError(
            f"{path}: no NIfTI file (no magic number in the header); expected NIfTI-1 or NIfTI-2. "
            "Convert it with the program that wrote it.",
            kind="file.not_nifti",
        )
    return kind(start, check=False)


def header_shape(path: Path, header: Any) -> tuple[int, int, int]:
    """Returns the shape of the volume.

    Raises:
        FileError: If it is no 3D volume, or larger than `MAX_VOXELS`.
    """
    dims = [int(value) for value in header["dim"]]
    sizes = dims[1 : 1 + dims[0]] if 1 <= dims[0] <= 7 else []
    text = "x".join(map(str, sizes)) or f"dim = {dims}"
    if len(sizes) < 3 or min(sizes) < 1 or min(sizes[:3]) < 2:
        raise FileError(
            f"{path}: the header promises {text} voxels; expected a 3D volume with at least two "
            "voxels along each axis. Export the whole volume.",
            kind="file.not_3d",
        )
    if any(size != 1 for size in sizes[3:]):
        raise FileError(
            f"{path}: {len(sizes)}D volume, {text}; expected 3D (trailing axes of length 1 are "
            "accepted). Split it into one file per sequence or time point.",
            kind="file.not_3d",
        )
    voxels = sizes[0] * sizes[1] * sizes[2]
    if voxels > MAX_VOXELS:
        raise FileError(
            f"{path}: the header promises {text} = {voxels} voxels; the limit is {MAX_VOXELS}. "
            "The header is damaged, or resample the volume to a coarser grid.",
            kind="file.too_large",
        )
    return (sizes[0], sizes[1], sizes[2])


def header_dtype(path: Path, header: Any) -> np.dtype:
    """Returns the voxel type, in the byte order of the file.

    Raises:
        FileError: If voxels are colours, complex, bits or wider than 64 bits.
    """
    try:
        dtype: np.dtype | None = header.get_data_dtype()
    except (HeaderDataError, KeyError):
        dtype = None
    if dtype is None or dtype.kind not in "iuf" or dtype.itemsize > 8:
        code = int(header["datatype"])
        name = nib.nifti1.data_type_codes.label.get(code, "unknown")
        raise FileError(
            f"{path}: voxels are of type {name} (datatype {code}); expected integers or floating "
            "point numbers of up to 64 bits. Convert the file to one value per voxel.",
            kind="file.voxel_type",
        )
    return dtype


def header_grid(path: Path, header: Any, shape: tuple[int, int, int], noticed: list[str]) -> Grid:
    """Returns the grid: by the sform if it has a code, else the qform, else the voxel sizes.

    Raises:
        FileError: If a voxel size is no positive number or no length in mm that a head MRI can
            have, or if the orientation is invalid.
    """
    sizes = [float(value) for value in header["pixdim"][1:4]]
    if not all(np.isfinite(size) and size > 0 for size in sizes):
        raise FileError(
            f"{path}: voxel size (pixdim) is {_joined(sizes)}; expected three positive numbers in "
            f"mm. {_REMEDY}",
            kind="geometry.voxel_size",
        )
    kept = {name: np.copy(header[name]) for name in GEOMETRY_FIELDS}
    kept["pixdim"] = np.copy(header["pixdim"][:4])
    if header["pixdim"][0] == 0:
        header["pixdim"][0] = 1.0  # The standard reads a missing sign of the qform as +1.
    affine = _affine(path, header)
    grid = Grid(shape, affine, kept)
    volume = abs(np.linalg.det(affine[:3, :3])) if np.isfinite(affine).all() else 0.0
    if not volume > 1e-3 * np.prod(grid.spacing):
        raise FileError(
            f"{path}: the affine is singular or not finite, {affine[:3].tolist()}; expected three "
            f"independent axes. {_REMEDY}",
            kind="geometry.affine",
        )
    low, high = _SPACING_MM
    if not all(low <= size <= high for size in grid.spacing):
        raise FileError(
            f"{path}: voxel size is {_joined(grid.spacing)}; expected {low:g} to {high:g} mm along "
            "each axis. The header probably holds metres or micrometres: correct it.",
            kind="geometry.voxel_size",
        )
    noticed.extend(_doubts(path, header, grid))
    return grid


def _affine(path: Path, header: Any) -> np.ndarray:
    try:
        return np.asarray(header.get_best_affine(), np.float64)
    except (HeaderDataError, np.linalg.LinAlgError, ValueError) as error:
        raise FileError(
            f"{path}: the qform in the header is invalid ({error}); expected a valid sform or "
            f"qform. {_REMEDY}",
            kind="geometry.affine",
        ) from error


def _doubts(path: Path, header: Any, grid: Grid) -> Iterator[str]:
    """Yields in what the ways to tell the orientation disagree."""
    if header["sform_code"] <= 0 and header["qform_code"] <= 0:
        words = f"{path.name}: no orientation in the header; left and right are assumed"
        yield Note(words, "geometry.no_orientation")
    if header["sform_code"] <= 0 or header["qform_code"] <= 0:
        return
    try:
        by_qform = Grid(grid.shape, np.asarray(header.get_qform(), np.float64))
    except (HeaderDataError, np.linalg.LinAlgError, ValueError):
        words = f"{path.name}: the qform is invalid; the sform is used"
        yield Note(words, "geometry.qform_sform")
        return
    apart = float(np.abs(grid.corners() - by_qform.corners()).max())
    if not apart <= _DIFFERENT_MM:
        words = f"{path.name}: sform and qform disagree by up to {apart:.1f} mm; the sform is used"
        yield Note(words, "geometry.qform_sform")


def _joined(sizes: Iterable[float]) -> str:
    return " x ".join(f"{size:g}" for size in sizes)
