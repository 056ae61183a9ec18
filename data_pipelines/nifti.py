"""NIfTI files in and out: everything that a header or a stream can get wrong is refused here."""

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np

from data_pipelines.nifti_header import (
    GEOMETRY_FIELDS,
    FileError,
    Note,
    header_dtype,
    header_grid,
    header_shape,
    read_header,
)
from gmmas_jax.cases.case import Grid
from gmmas_jax.cases.files import atomic_path

_MAX_OFFSET = 2**24


def read_volume(
    path: str | os.PathLike[str], *, notes: list[str] | None = None
) -> tuple[np.ndarray, Grid]:
    """Reads an image.

    Args:
        path: A `.nii` or `.nii.gz` file, NIfTI-1 or -2 of either byte order.
        notes: Receives what was noticed and not refused.

    Returns:
        float32 [i j k] in the axis order of the file, scaled by its slope and intercept, and its
        grid: the sform if it has a code, else the qform, else the voxel sizes alone.

    Raises:
        FileError: If the file cannot be read whole, is no real-valued 3D volume, is larger than
            `MAX_VOXELS`, has no usable geometry, or holds NaN, infinity or one value only.
    """
    path = Path(path)
    array, grid = _read(path, notes)
    if array.min() == array.max():
        kind = "zero" if array.flat[0] == 0 else f"the same value ({array.flat[0]:g})"
        raise FileError(
            f"{path}: every voxel is {kind}; expected an image. Export it again, or leave this "
            "sequence out: a missing sequence is allowed.",
            kind="image.constant",
        )
    return array.astype(np.float32), grid


def read_mask(
    path: str | os.PathLike[str], *, notes: list[str] | None = None
) -> tuple[np.ndarray, Grid]:
    """Reads a label volume; as `read_volume`, but the dtype stays and one value is allowed.

    Returns:
        Real [i j k], and its grid.
    """
    return _read(Path(path), notes)


def read_shape(path: str | os.PathLike[str]) -> tuple[int, int, int]:
    """Returns the shape that a file's header promises; no voxel is read.

    Raises:
        FileError: If the header cannot be read, or is not that of a 3D volume.
    """
    path = Path(path)
    _check_name(path)
    with _told(path), _opened(path) as stream, np.errstate(all="ignore"):
        return header_shape(path, read_header(path, stream))


def write_volume(
    path: str | os.PathLike[str],
    array: np.ndarray,
    grid: Grid,
    *,
    dtype: type[np.generic],
    compression: int = 4,
) -> None:
    """Writes a volume atomically, in millimetres, with qform and sform.

    On a grid that was read from a file, the geometry fields of that file are copied unchanged, so
    that the result has its affine bit for bit. Nothing of the file's free text is copied.

    Args:
        path: Ends with `.nii` or `.nii.gz`.
        array: [i j k] or [i j k c], in the axis order of the grid.
        grid: Where the voxels lie.
        dtype: What the file holds, without scaling.
        compression: Level of gzip, 1 (fast) to 9 (small), for `.nii.gz`.

    Raises:
        UserError: If the file cannot be written.
        ValueError: If the array does not fit the grid or the dtype.
    """
    path = Path(path)
    if array.shape[:3] != grid.shape or array.ndim not in (3, 4):
        raise ValueError(f"array of shape {array.shape} on a grid of {grid.shape} voxels")
    stored = array.astype(dtype)
    if np.issubdtype(dtype, np.integer) and not np.array_equal(stored, array):
        raise ValueError(f"the array holds values that {np.dtype(dtype)} cannot express")
    image = nib.Nifti1Image(stored, grid.affine)
    header = image.header
    header.set_xyzt_units("mm")
    if grid.header is None:
        image.set_qform(grid.affine, code=1)
        image.set_sform(grid.affine, code=1)
    else:
        for field in GEOMETRY_FIELDS:
            header[field] = grid.header[field]
        header["pixdim"][:4] = grid.header["pixdim"]
    content = image.to_bytes()
    if path.name.endswith(".gz"):
        content = gzip.compress(content, compresslevel=compression, mtime=0)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _read(path: Path, notes: list[str] | None) -> tuple[np.ndarray, Grid]:
    _check_name(path)
    noticed: list[str] = []
    # What is not finite is refused in words below, not warned about on the way.
    with _told(path), _opened(path) as stream, np.errstate(all="ignore"):
        header = read_header(path, stream)
        shape = header_shape(path, header)
        grid = header_grid(path, header, shape, noticed)
        array = _voxels(path, stream, header, shape, noticed)
    with np.errstate(all="ignore"):
        array = _scaled(path, array, header)
    if not np.issubdtype(array.dtype, np.integer):
        finite = np.isfinite(array)
        if not finite.all():
            raise FileError(
                f"{path}: {int(np.isnan(array).sum())} voxels are NaN and "
                f"{int(np.isinf(array).sum())} infinite, of {array.size}; expected finite values. "
                "Replace them by 0 where they lie outside the brain, or export the file again.",
                kind="image.not_finite",
            )
    if notes is not None:
        notes.extend(noticed)
    return array, grid


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turns what goes wrong with a stream into a message for the user."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileError(
            f"{path}: no such file; expected a NIfTI file. Check the path.", kind="file.missing"
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FileError(
            f"{path}: the compressed data end early or are damaged ({error}); expected a complete "
            "gzip stream. Copy or download the file again.",
            kind="file.truncated",
        ) from error
    except OSError as error:
        raise FileError(
            f"{path}: cannot be read ({error.strerror or error}); expected a readable NIfTI file. "
            "Check the path and its permissions.",
            kind="file.unreadable",
        ) from error


def _check_name(path: Path) -> None:
    name = path.name.lower()
    if path.is_dir():
        raise FileError(
            f"{path}: is a folder; expected a NIfTI file. Name the file in it.",
            kind="file.unreadable",
        )
    if not name.endswith((".nii", ".nii.gz")):
        raise FileError(
            f"{path}: the name ends neither with .nii nor .nii.gz; expected a NIfTI file. Convert "
            "it first (for DICOM, for example with dcm2niix).",
            kind="file.not_nifti",
        )


def _opened(path: Path) -> BinaryIO:
    with path.open("rb") as stream:
        start = stream.read(2)
    if not start:
        raise FileError(
            f"{path}: the file is empty; expected a NIfTI file. Copy it again.",
            kind="file.truncated",
        )
    compressed = start == b"\x1f\x8b"
    if path.name.lower().endswith(".gz") != compressed:
        found, name = ("gzip", ".nii.gz") if compressed else ("no gzip", ".nii")
        raise FileError(
            f"{path}: the content is {found} data, which the name does not say. Rename the file "
            f"to {name} if it is a whole NIfTI file, else copy it again.",
            kind="file.not_gzip",
        )
    return cast(BinaryIO, gzip.open(path, "rb")) if compressed else path.open("rb")


def _voxels(
    path: Path,
    stream: BinaryIO,
    header: Any,
    shape: tuple[int, int, int],
    noticed: list[str],
) -> np.ndarray:
    """Reads exactly what the header promises, never more, and checks the stream to its end."""
    dtype = header_dtype(path, header)
    offset = float(header["vox_offset"])
    read = header.template_dtype.itemsize
    if not read <= offset <= _MAX_OFFSET or not offset.is_integer():
        raise FileError(
            f"{path}: the header says that voxels begin at byte {offset:g}; expected "
            f"{read} to {_MAX_OFFSET}. The header is damaged: copy or export the file again.",
            kind="file.header",
        )
    expected = int(np.prod(shape)) * dtype.itemsize
    _ = _exactly(stream, int(offset) - read)
    content = _exactly(stream, expected)
    if len(content) < expected:
        raise FileError(
            f"{path}: truncated: {len(content)} of {expected} bytes of voxels are there. Copy or "
            "download the file again.",
            kind="file.truncated",
        )
    # Reading on to the end makes gzip compare its checksum; two bytes bound what is inflated.
    if stream.read(2):
        noticed.append(
            Note(f"{path.name}: bytes after the last voxel are ignored", "file.trailing_bytes")
        )
    return np.frombuffer(content, dtype).reshape(shape, order="F")


def _exactly(stream: BinaryIO, size: int) -> bytearray:
    """Reads up to `size` bytes in pieces, so that a forged size alone claims no memory."""
    content = bytearray()
    while len(content) < size:
        piece = stream.read(min(size - len(content), 2**22))
        if not piece:
            break
        content += piece
    return content


def _scaled(path: Path, array: np.ndarray, header: Any) -> np.ndarray:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    # The standard: a slope of 0 means no scaling. NaN is what nibabel writes for the same.
    if slope == 0 or np.isnan(slope):
        slope, intercept = 1.0, 0.0
    if not (np.isfinite(slope) and np.isfinite(intercept)):
        raise FileError(
            f"{path}: scl_slope is {slope:g} and scl_inter {intercept:g}; expected finite numbers. "
            "Correct the header: 1 and 0 mean that voxels are stored as they are.",
            kind="image.scaling",
        )
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if (slope, intercept) != (1.0, 0.0):
        array = array * np.float64(slope) + np.float64(intercept)
    limit = float(np.finfo(np.float32).max)
    largest = max(abs(float(array.max())), abs(float(array.min())))
    if np.isfinite(largest) and largest > limit:
        raise FileError(
            f"{path}: values up to {largest:g} (scl_slope {slope:g}); expected at most {limit:g}. "
            "Correct scl_slope in the header, or rescale the image.",
            kind="image.scaling",
        )
    return array
