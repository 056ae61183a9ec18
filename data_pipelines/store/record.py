"""One case as one record: a TFRecord file with a `tf.train.Example`, laid out to be mapped.

A file holds one record, so that a case is found without a scan, is replaced without touching
another, and appears whole or not at all. TensorFlow and TFDS read it as they read any TFRecord
file. Training does not parse it: the arrays lie in it uncompressed, each at a multiple of 64 bytes,
and where they lie stands at its beginning. So a patch costs the reading of its own voxels
(docs/explanation/the-store.md has the measurements).

    TFRecord frame         length (8 bytes), CRC of the length (4)
    Example                outer tag and length (6)
      feature "head"       magic, format, where `meta` lies, where the arrays begin: 28 bytes
      feature "meta"       JSON: identity, answers, provenance; shape, dtype, place of each array
      other small features
      features             each array, after a feature of padding
    TFRecord frame         CRC of the Example (4)
"""

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from gmmas_jax.cases.files import atomic_path
from gmmas_jax.errors import UserError

FORMAT = 2
"""Raised whenever `gmmas_jax.cases.prepare` or the layout here changes: what was built by another
format is refused."""

PROGRAM = version("gmmas-jax")
"""The version of the program, for messages and the provenance of a record."""

_ALIGNMENT = 64
_HEAD = struct.Struct("<8sIIIQ")
_MAGIC = b"gmmascas"
_FRAME = 12
_OUTER = 6
_FIRST_READ = 1 << 14
_PIECE = 1 << 22


@dataclass(frozen=True)
class RecordFacts:
    """What a record says of itself.

    Attributes:
        meta: See `write_record`; with "arrays": name to dtype, shape, place after `base`, sha256.
        base: Where in the file the arrays begin.
        sha256: Of the meta, which holds the hashes of the arrays: equal content, equal hash.
    """

    meta: dict[str, Any]
    base: int
    sha256: str


def write_record(
    path: Path,
    meta: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    features: Mapping[str, bytes | list[int]],
) -> RecordFacts:
    """Writes the record of a case; equal arguments give equal bytes.

    Args:
        path: The file, which appears whole or not at all.
        meta: JSON-able, without time or place of the writing.
        arrays: Name to array, little-endian. Each becomes a feature of its bytes, and the shape of
            more than one axis another, as `tfds.features.Tensor(encoding="bytes")` expects it.
        features: More features, for readers that know nothing of `meta`: text or integers.

    Raises:
        OSError: If the file cannot be written.
        UserError: As `atomic_path`.
    """
    arrays = dict(sorted(arrays.items()))
    places: dict[str, dict[str, Any]] = {}
    end = 0
    for name, array in arrays.items():
        prefix = _prefix(_key(name, array), array.nbytes)
        start = _aligned(end + len(_padding(name, 0)) + len(prefix))
        places[name] = {
            "dtype": array.dtype.name,
            "shape": list(array.shape),
            "place": start,
            "sha256": hashlib.sha256(_buffer(array)).hexdigest(),
        }
        end = start + array.nbytes
    text = _canonical(dict(meta) | {"arrays": places})
    small = b"".join(_entry(name, value) for name, value in features.items())
    small += b"".join(
        _entry(f"{name}/shape", list(array.shape))
        for name, array in arrays.items()
        if array.ndim > 1
    )
    meta_entry = _entry("meta", text)
    # Its length does not depend on what it says.
    size_of_head = len(_entry("head", bytes(_HEAD.size)))
    after = _FRAME + _OUTER + size_of_head + len(meta_entry)
    base = _aligned(after + len(small))
    head = _HEAD.pack(_MAGIC, FORMAT, len(text), after - len(text), base)
    parts: list[bytes | memoryview] = [_entry("head", head), meta_entry, small]
    position = after + len(small)
    for name, array in arrays.items():
        payload = _buffer(array)
        prefix = _prefix(_key(name, array), len(payload))
        room = base + places[name]["place"] - position - len(prefix) - len(_padding(name, 0))
        parts += [_padding(name, room), prefix, payload]
        position = base + places[name]["place"] + len(payload)
    _write_framed(path, parts)
    return RecordFacts(json.loads(text), base, hashlib.sha256(text).hexdigest())


def read_facts(path: Path) -> RecordFacts:
    """Reads what a record says of itself, without its arrays.

    Raises:
        UserError: If the file is missing, is no such record, or was made by another format.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(_FIRST_READ)
            skipped = len(_prefix("head", _HEAD.size)) + _FRAME + _OUTER
            if len(start) < skipped + _HEAD.size:
                raise _not_a_record(path)
            magic, form, length, place, base = _HEAD.unpack_from(start, skipped)
            if magic != _MAGIC:
                raise _not_a_record(path)
            if form != FORMAT:
                raise UserError(
                    f"{path}: a record of format {form}; this version of gmmas reads format "
                    f"{FORMAT}. Build the store again with `gmmas build`, in an empty folder."
                )
            if place + length > size:
                raise _damaged(path, f"{size} bytes, expected {place + length} at least")
            if place + length > len(start):
                start += file.read(place + length - len(start))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); expected a case of the store. Run "
            "`gmmas build` again: it makes what is missing."
        ) from error
    text = start[place : place + length]
    try:
        facts = RecordFacts(json.loads(text), base, hashlib.sha256(text).hexdigest())
        expected = _size(facts)
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, "what it says of itself cannot be read") from error
    if size != expected:
        raise _damaged(path, f"{size} bytes, expected {expected}")
    return facts


def map_record(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Maps a record: returns its meta and its arrays, which are read where they are used.

    Raises:
        UserError: As `read_facts`.
    """
    facts = read_facts(path)
    content = np.memmap(path, np.uint8, "r")
    arrays = {}
    for name, place in facts.meta["arrays"].items():
        dtype, shape = np.dtype(place["dtype"]), tuple(place["shape"])
        start = facts.base + place["place"]
        size = dtype.itemsize * math.prod(shape)
        arrays[name] = content[start : start + size].view(dtype).reshape(shape)
    return facts.meta, arrays


def verify_record(path: Path) -> bool:
    """Returns whether all bytes of a record are what was written (CRC and hash of each array)."""
    content = np.memmap(path, np.uint8, "r")
    (stored,) = struct.unpack("<I", content[-4:].tobytes())
    if stored != _masked_crc(content[_FRAME:-4].data):
        return False
    meta, arrays = map_record(path)
    return all(
        hashlib.sha256(_buffer(array)).hexdigest() == meta["arrays"][name]["sha256"]
        for name, array in arrays.items()
    )


def _size(facts: RecordFacts) -> int:
    ends = [
        place["place"] + np.dtype(place["dtype"]).itemsize * math.prod(place["shape"])
        for place in facts.meta["arrays"].values()
    ]
    return facts.base + max(ends) + 4


def _key(name: str, array: np.ndarray) -> str:
    # As TFDS names a tensor whose shape differs from case to case.
    return f"{name}/value" if array.ndim > 1 else name


def _write_framed(path: Path, parts: list[bytes | memoryview]) -> None:
    """Writes the TFRecord frame and the Example around its feature entries."""
    inner = sum(len(part) for part in parts)
    # A length of five bytes whatever it is, so that all places are known before it.
    outer = b"\x0a" + _fixed_varint(inner)
    length = struct.pack("<Q", len(outer) + inner)
    checksum = google_crc32c.value(outer)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(length + struct.pack("<I", _masked(google_crc32c.value(length))) + outer)
        for part in parts:
            # In pieces, since the checksum takes copies.
            for start in range(0, len(part), _PIECE):
                piece = bytes(part[start : start + _PIECE])
                checksum = google_crc32c.extend(checksum, piece)
                file.write(piece)
        file.write(struct.pack("<I", _masked(checksum)))


def _entry(key: str, value: bytes | list[int]) -> bytes:
    """Returns one feature of an Example, in the wire format of protocol buffers."""
    if isinstance(value, bytes):
        return _prefix(key, len(value)) + value
    packed = b"".join(_varint(number % 2**64) for number in value)
    feature = _field(3, _field(1, packed))
    return _field(1, _field(1, key.encode()) + _field(2, feature))


def _prefix(key: str, size: int) -> bytes:
    """Returns what stands before the value of a feature of one byte string."""
    value = b"\x0a" + _varint(size)
    values = b"\x0a" + _varint(len(value) + size)
    feature = b"\x12" + _varint(len(values) + len(value) + size)
    name = _field(1, key.encode())
    return (
        b"\x0a"
        + _varint(len(name) + len(feature) + len(values) + len(value) + size)
        + (name + feature + values + value)
    )


def _padding(name: str, more: int) -> bytes:
    """Returns a feature that nobody reads, `more` (less than 64) bytes longer than the shortest."""
    return _prefix(f"pad/{name}", more) + bytes(more)


def _field(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def _fixed_varint(number: int) -> bytes:
    return bytes(
        (number >> shift) & 0x7F | (0x80 if shift < 28 else 0) for shift in range(0, 35, 7)
    )


def _aligned(number: int) -> int:
    return -(-number // _ALIGNMENT) * _ALIGNMENT


def _buffer(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def _masked_crc(content: memoryview) -> int:
    return _masked(google_crc32c.value(bytes(content)))


def _masked(checksum: int) -> int:
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _damaged(path: Path, found: str) -> UserError:
    return UserError(
        f"{path}: damaged: {found}. Remove it, and run `gmmas build` again, or copy the store "
        "again."
    )


def _not_a_record(path: Path) -> UserError:
    return UserError(
        f"{path}: not a case of a store of gmmas; expected a file that `gmmas build` wrote. Remove "
        "it, and run `gmmas build` again: it makes what is missing."
    )
