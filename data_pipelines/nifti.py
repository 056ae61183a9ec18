"""NIfTI files in and out: everything that a header or a stream can get wrong is refused here."""

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import nibabel as nib
import numpy as np

from data_pipelines.nifti_header import (
    GEOMETRY_FIELDS,
    FileError,
    header_grid,
    header_shape,
    read_header,
)
from data_pipelines.nifti_voxels import Voxels, read_voxels
from gmmas_jax.cases.case import Grid
from gmmas_jax.cases.files import atomic_path


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
    voxels, grid = _read(path, notes, np.float32)
    if voxels.low == voxels.high:
        kind = "zero" if voxels.low == 0 else f"the same value ({voxels.low:g})"
        raise FileError(
            f"{path}: every voxel is {kind}; expected an image. Export it again, or leave this "
            "sequence out: a missing sequence is allowed.",
            kind="image.constant",
        )
    return voxels.array, grid


def read_mask(
    path: str | os.PathLike[str], *, notes: list[str] | None = None
) -> tuple[np.ndarray, Grid]:
    """Reads a label volume; as `read_volume`, but the dtype stays and one value is allowed.

    Returns:
        Real [i j k], and its grid.
    """
    voxels, grid = _read(Path(path), notes)
    return voxels.array, grid


def read_grid(path: str | os.PathLike[str]) -> Grid:
    """Returns the grid that a file's header promises; no voxel is read.

    Raises:
        FileError: If the header cannot be read, is not that of a 3D volume, or has no usable
            geometry.
    """
    path = Path(path)
    _check_name(path)
    with _told(path), _opened(path) as stream, np.errstate(all="ignore"):
        header = read_header(path, stream)
        return header_grid(path, header, header_shape(path, header), [])


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


def _read(
    path: Path, notes: list[str] | None, dtype: type[np.generic] | None = None
) -> tuple[Voxels, Grid]:
    _check_name(path)
    noticed: list[str] = []
    # What is not finite is refused in words, not warned about on the way.
    with _told(path), _opened(path) as stream, np.errstate(all="ignore"):
        header = read_header(path, stream)
        shape = header_shape(path, header)
        grid = header_grid(path, header, shape, noticed)
        voxels = read_voxels(path, stream, header, shape, noticed, dtype=dtype)
    if notes is not None:
        notes.extend(noticed)
    return voxels, grid


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
