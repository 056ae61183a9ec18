"""The voxels of a NIfTI file, read and scaled in pieces: memory holds the result once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from data_pipelines.nifti_header import FileError, Note, header_dtype

_MAX_OFFSET = 2**24
_PIECE = 2**18


class Voxels(NamedTuple):
    """What a file holds.

    Attributes:
        array: [i j k] in the axis order of the file, scaled by its slope and intercept, finite.
        low: Its least value, before a change of the dtype.
        high: Its largest value, before a change of the dtype.
    """

    array: np.ndarray
    low: Any
    high: Any


def read_voxels(
    path: Path,
    stream: BinaryIO,
    header: Any,
    shape: tuple[int, int, int],
    noticed: list[str],
    *,
    dtype: type[np.generic] | None = None,
) -> Voxels:
    """Reads exactly what the header promises, never more, and checks the stream to its end.

    Args:
        path: For messages.
        stream: At the end of the header.
        header: As `nifti_header.read_header` gives it.
        shape: As `nifti_header.header_shape` gives it.
        noticed: Receives what was noticed and not refused.
        dtype: Of the result; None for that of the file, or float64 where it is scaled.

    Raises:
        FileError: If the file ends early, its scaling is impossible, or voxels are not finite.
    """
    stored = header_dtype(path, header)
    slope, intercept = _scaling(path, header)
    native = stored.newbyteorder("=")
    scaled = (slope, intercept) != (1.0, 0.0)
    own = np.dtype(np.float64) if scaled else native
    result = np.dtype(own if dtype is None else dtype)
    content = bytearray()
    low = high = None
    nan = infinite = 0
    for piece in _pieces(path, stream, header, int(np.prod(shape)) * stored.itemsize, noticed):
        values = np.frombuffer(piece, stored).astype(native, copy=False)
        if scaled:
            values = values * np.float64(slope) + np.float64(intercept)
        if own.kind == "f":
            nan += int(np.isnan(values).sum())
            infinite += int(np.isinf(values).sum())
        least, most = values.min(), values.max()
        low = least if low is None else min(low, least)
        high = most if high is None else max(high, most)
        content += values.astype(result, copy=False).data
    if nan or infinite:
        raise FileError(
            f"{path}: {nan} voxels are NaN and {infinite} infinite, of {int(np.prod(shape))}; "
            "expected finite values. Replace them by 0 where they lie outside the brain, or export "
            "the file again.",
            kind="image.not_finite",
        )
    _check_range(path, low, high, slope)
    return Voxels(np.frombuffer(content, result).reshape(shape, order="F"), low, high)


def _pieces(
    path: Path, stream: BinaryIO, header: Any, expected: int, noticed: list[str]
) -> Iterator[bytes]:
    """Yields the bytes of the voxels, whole voxels at a time."""
    offset = float(header["vox_offset"])
    read = header.template_dtype.itemsize
    if not read <= offset <= _MAX_OFFSET or not offset.is_integer():
        raise FileError(
            f"{path}: the header says that voxels begin at byte {offset:g}; expected "
            f"{read} to {_MAX_OFFSET}. The header is damaged: copy or export the file again.",
            kind="file.header",
        )
    _ = _exactly(stream, int(offset) - read)
    there = 0
    while there < expected:
        size = min(expected - there, _PIECE)
        piece = _exactly(stream, size)
        there += len(piece)
        if len(piece) < size:
            raise FileError(
                f"{path}: truncated: {there} of {expected} bytes of voxels are there. Copy or "
                "download the file again.",
                kind="file.truncated",
            )
        yield piece
    # Reading on to the end makes gzip compare its checksum; two bytes bound what is inflated.
    if stream.read(2):
        noticed.append(
            Note(f"{path.name}: bytes after the last voxel are ignored", "file.trailing_bytes")
        )


def _exactly(stream: BinaryIO, size: int) -> bytes:
    """Reads `size` bytes, or fewer where the stream ends."""
    parts = []
    while size:
        part = stream.read(min(size, _PIECE))
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _scaling(path: Path, header: Any) -> tuple[float, float]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    # The standard: a slope of 0 means no scaling. NaN is what nibabel writes for the same.
    if slope == 0 or np.isnan(slope):
        return 1.0, 0.0
    if not (np.isfinite(slope) and np.isfinite(intercept)):
        raise FileError(
            f"{path}: scl_slope is {slope:g} and scl_inter {intercept:g}; expected finite numbers. "
            "Correct the header: 1 and 0 mean that voxels are stored as they are.",
            kind="image.scaling",
        )
    return slope, intercept


def _check_range(path: Path, low: Any, high: Any, slope: float) -> None:
    limit = float(np.finfo(np.float32).max)
    largest = max(abs(float(high)), abs(float(low)))
    if largest > limit:
        raise FileError(
            f"{path}: values up to {largest:g} (scl_slope {slope:g}); expected at most {limit:g}. "
            "Correct scl_slope in the header, or rescale the image.",
            kind="image.scaling",
        )
