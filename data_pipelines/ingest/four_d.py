"""4-D NIfTI files taken apart: one 3-D file a sequence, every voxel and the geometry unchanged."""

import gzip
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from data_pipelines.ingest.label_names import read_json
from data_pipelines.nifti_header import MAX_VOXELS, header_dtype, read_header
from gmmas_jax.cases.files import atomic_path, write_json
from gmmas_jax.errors import UserError

_PIECE = 2**22
_COMPRESSION = 1
"""Higher levels take several times as long for a few per cent."""
_MAX_OFFSET = 2**24
_FREE_TEXT = ("descrip", "aux_file", "intent_name", "db_name", "data_type")


def count_volumes(path: Path) -> int:
    """Returns how many 3-D volumes a NIfTI file holds, by its header.

    Raises:
        UserError: If it cannot be read or is no NIfTI file.
    """
    with NiftiStream(path) as stream:
        sizes = _sizes(path, read_header(path, stream))
    return int(np.prod(sizes[3:]))


def split_volumes(path: Path, sequences: Sequence[str], folder: Path) -> dict[str, Path]:
    """Writes each volume of a 4-D file as a file of its own, or finds them written.

    One volume is in memory at a time. Voxels are copied as they are stored, byte for byte, with
    scaling, orientation and units of the source; its free text is not.

    Args:
        path: The file.
        sequences: What its volumes are, in their order.
        folder: Where to; gets `NAME-t1n.nii.gz` and so on, by the folder's name.

    Returns:
        Sequence to file.

    Raises:
        UserError: If the file is damaged or holds another number of volumes, or the folder cannot
            be written.
    """
    targets = {name: folder / f"{folder.name}-{name}.nii.gz" for name in sequences}
    record = folder / f"{folder.name}.json"
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Check the path.") from error
    facts = {
        "source": str(path.absolute()),
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "sequences": list(sequences),
    }
    written = all(target.is_file() for target in (record, *targets.values()))
    if written and read_json(record) == facts:
        return targets
    with NiftiStream(path) as stream:
        _copy(path, stream, [targets[name] for name in sequences])
    write_json(record, facts)
    return targets


def _copy(path: Path, stream: BinaryIO, targets: Sequence[Path]) -> None:
    header = read_header(path, stream)
    sizes = _sizes(path, header)
    count = int(np.prod(sizes[3:]))
    text = "x".join(map(str, sizes))
    if count != len(targets):
        raise UserError(
            f"{path}: {count} volumes ({text}); expected {len(targets)}, one for each sequence. "
            "Declare the order of channels that the file has."
        )
    voxels = int(np.prod(sizes[:3]))
    if voxels > MAX_VOXELS:
        raise UserError(
            f"{path}: the header promises {text}, {voxels} voxels a volume; the limit is "
            f"{MAX_VOXELS}. The header is damaged, or resample the file."
        )
    size = voxels * header_dtype(path, header).itemsize
    offset = float(header["vox_offset"])
    read = header.template_dtype.itemsize
    if not read <= offset <= _MAX_OFFSET or not offset.is_integer():
        raise UserError(
            f"{path}: the header says that voxels begin at byte {offset:g}; expected {read} to "
            f"{_MAX_OFFSET}. The header is damaged: copy the file again."
        )
    _ = stream.read(int(offset) - read)
    start = _volume_header(header)
    with ExitStack() as stack:
        # All appear or none: the temporary files take their names when the block ends.
        for target in targets:
            temporary = stack.enter_context(atomic_path(target))
            with temporary.open("wb") as raw:
                out = gzip.GzipFile(
                    filename="", fileobj=raw, mode="wb", compresslevel=_COMPRESSION, mtime=0
                )
                with out:
                    out.write(start)
                    _pass_on(path, stream, out, size)
        # Reading on to the end makes gzip compare its checksum.
        _ = stream.read(2)


def _pass_on(path: Path, stream: BinaryIO, out: Any, size: int) -> None:
    left = size
    while left:
        piece = stream.read(min(left, _PIECE))
        if not piece:
            raise UserError(
                f"{path}: truncated: {left} bytes of a volume are missing. Copy or download the "
                "file again."
            )
        out.write(piece)
        left -= len(piece)


def _volume_header(header: Any) -> bytes:
    """Returns header and empty extension of one volume, in the byte order of the source."""
    single = header.copy()
    dims = single["dim"].copy()
    dims[0], dims[4:] = 3, 1
    single["dim"] = dims
    single["pixdim"][4:] = 0
    single["vox_offset"] = single.template_dtype.itemsize + 4
    for name in _FREE_TEXT:
        if name in single.template_dtype.names:
            single[name] = b""
    return bytes(single.binaryblock) + b"\0\0\0\0"


def _sizes(path: Path, header: Any) -> list[int]:
    dims = [int(value) for value in header["dim"]]
    sizes = dims[1 : 1 + dims[0]] if 1 <= dims[0] <= 7 else []
    if len(sizes) < 3 or min(sizes) < 1:
        raise UserError(
            f"{path}: the header promises {'x'.join(map(str, sizes)) or f'dim = {dims}'} voxels; "
            "expected 3 or 4 axes. Export the file again."
        )
    return sizes


class NiftiStream:
    """Opens a NIfTI file, compressed or not; what a damaged stream raises becomes a UserError."""

    def __init__(self, path: Path):
        self._path = path

    def __enter__(self) -> BinaryIO:
        try:
            with self._path.open("rb") as raw:
                compressed = raw.read(2) == b"\x1f\x8b"
            opened = gzip.open(self._path, "rb") if compressed else self._path.open("rb")
        except OSError as error:
            raise UserError(
                f"{self._path}: cannot be read ({error.strerror}); expected a NIfTI file. Check "
                "the path and its permissions."
            ) from error
        self._stream = cast(BinaryIO, opened)
        return self._stream

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._stream.close()
        if isinstance(error, EOFError | zlib.error | gzip.BadGzipFile):
            raise UserError(
                f"{self._path}: the compressed data end early or are damaged ({error}); expected a "
                "complete gzip stream. Copy or download the file again."
            ) from error
