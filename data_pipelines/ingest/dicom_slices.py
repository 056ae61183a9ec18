"""The planes of one DICOM file: where they lie, and whether the file holds their pixels."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import pydicom
from pydicom.errors import InvalidDicomError

from data_pipelines.ingest.dicom_values import get_number, get_size, get_text, get_value, to_vector

_DEFERRED = 4096
"""Bytes above which a value is passed over: what vendors hide in private elements."""

_UNDEFINED = 0xFFFFFFFF
_DEFLATED = "1.2.840.10008.1.2.1.99"
_PADDING = 2**16
"""Bytes after the pixels that are worth a word."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One image plane: a file, or a frame of one.

    Attributes:
        path: The file.
        uid: Its SOP instance UID.
        number: Instance number, or the frame's.
        position: Centre of the first voxel, LPS mm, or None.
        orientation: Directions of a row and of a column, or None.
        matrix: Rows and columns.
        spacing: Distance between rows and between columns in mm, or None.
        fault: What is wrong with the file itself, or None.
        padding: Bytes of the file behind its pixels, which mean nothing.
    """

    path: str
    uid: str
    number: int
    position: tuple[float, float, float] | None
    orientation: tuple[float, ...] | None
    matrix: tuple[int, int]
    spacing: tuple[float, float] | None
    fault: str | None = None
    padding: int = 0


class Pixels(NamedTuple):
    """Bytes of pixels that a file announces (None where they are compressed), and that follow."""

    announced: int | None
    there: int


def read_image_header(path: Path) -> tuple[pydicom.Dataset, Pixels] | None:
    """Returns the header of an image and the size of its pixels, or None for anything else."""
    try:
        with path.open("rb") as file:
            start = file.read(132)
            # Some archives leave the preamble out and begin with the first element of a group.
            bare = start[:2] in (b"\x02\x00", b"\x08\x00") and start[4:6].isalnum()
            if start[128:] != b"DICM" and not bare:
                return None
            file.seek(0)
            dataset = pydicom.dcmread(
                file, stop_before_pixels=True, defer_size=_DEFERRED, force=bare
            )
            if not get_text(dataset, "SOPClassUID") or not get_size(dataset, "Rows"):
                return None
            return dataset, _pixels(file, dataset)
    except (InvalidDicomError, OSError, EOFError, ValueError, KeyError, AttributeError):
        return None


def _pixels(file: BinaryIO, dataset: pydicom.Dataset) -> Pixels:
    """Reads the element of pixels without its value; the file stands at its tag."""
    syntax = str(dataset.file_meta.get("TransferSyntaxUID", ""))
    if syntax == _DEFLATED:
        return Pixels(None, 0)
    tag = file.read(4)
    order: Literal["big", "little"] = "big" if tag == b"\x7f\xe0\x00\x10" else "little"
    if order == "little" and tag != b"\xe0\x7f\x10\x00":
        return Pixels(0, 0)
    first = file.read(4)
    # Explicit: two letters, two empty bytes, then the length; implicit: the length at once.
    length = int.from_bytes(file.read(4) if first[:2].isalpha() else first, order)
    there = os.fstat(file.fileno()).st_size - file.tell()
    return Pixels(None if length == _UNDEFINED else length, there)


def read_slices(path: Path, dataset: pydicom.Dataset, pixels: Pixels) -> list[Slice]:
    """Returns the planes of a file: one, or as many as an enhanced image has frames."""
    uid = get_text(dataset, "SOPInstanceUID")
    matrix = (get_size(dataset, "Rows"), get_size(dataset, "Columns"))
    fault = _pixel_fault(dataset, pixels)
    padding = 0 if pixels.announced is None else max(pixels.there - pixels.announced, 0)
    frames = get_value(dataset, "PerFrameFunctionalGroupsSequence")
    if not frames:
        return [
            Slice(
                path=str(path),
                uid=uid,
                number=int(get_number(dataset, "InstanceNumber") or 0),
                position=to_vector(get_value(dataset, "ImagePositionPatient"), 3),
                orientation=to_vector(get_value(dataset, "ImageOrientationPatient"), 6),
                matrix=matrix,
                spacing=to_vector(get_value(dataset, "PixelSpacing"), 2),
                fault=fault,
                padding=padding if padding > _PADDING else 0,
            )
        ]
    shared = get_value(dataset, "SharedFunctionalGroupsSequence") or [pydicom.Dataset()]

    def value(frame: pydicom.Dataset, group: str, name: str, length: int) -> Any:
        for groups in (frame, shared[0]):
            if groups.get(group):
                return to_vector(get_value(groups[group].value[0], name), length)
        return None

    return [
        Slice(
            path=str(path),
            uid=f"{uid}#{number}",
            number=number,
            position=value(frame, "PlanePositionSequence", "ImagePositionPatient", 3),
            orientation=value(frame, "PlaneOrientationSequence", "ImageOrientationPatient", 6),
            matrix=matrix,
            spacing=value(frame, "PixelMeasuresSequence", "PixelSpacing", 2),
            fault=fault,
        )
        for number, frame in enumerate(frames, 1)
    ]


def _pixel_fault(dataset: pydicom.Dataset, pixels: Pixels) -> str | None:
    """Returns what is wrong with the length of the pixels, which the header foretells."""
    if pixels.announced is None:
        return None  # Compressed: the length tells nothing.
    if pixels.announced == 0:
        return "it has no pixels"
    bits = (get_size(dataset, "BitsAllocated") or 16) * (get_size(dataset, "SamplesPerPixel") or 1)
    frames = get_size(dataset, "NumberOfFrames") or 1
    plane = get_size(dataset, "Rows") * get_size(dataset, "Columns") * bits // 8
    expected = plane * frames
    if pixels.announced not in (expected, expected + expected % 2):
        return f"it holds {pixels.announced} bytes of pixels; its header says {expected}"
    if pixels.there < expected:
        return f"its file ends after {pixels.there} of {expected} bytes of pixels"
    return None
