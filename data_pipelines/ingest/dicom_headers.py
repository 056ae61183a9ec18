"""DICOM files to series: headers alone, one file at a time."""

import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import pydicom
from pydicom.config import disable_value_validation
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue

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


@dataclass(frozen=True)
class Acquisition:
    """What the headers say about how a series was made; None or "" where they do not.

    Attributes:
        modality, sop_class, body_part: As written.
        image_type: Its values, in capitals.
        texts: Descriptions that people and vendors wrote, in small letters.
        scanning: Codes of the sequence: SE, GR, IR, EP.
        repetition_ms, echo_ms, inversion_ms: TR, TE, TI.
        agent: Contrast agent.
        three_d: Whether the acquisition was of a volume.
        time: Date and time of acquisition, for the order within an exam alone.
    """

    modality: str = ""
    sop_class: str = ""
    body_part: str = ""
    image_type: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    scanning: frozenset[str] = frozenset()
    repetition_ms: float | None = None
    echo_ms: float | None = None
    inversion_ms: float | None = None
    agent: str = ""
    three_d: bool = False
    time: str = ""


@dataclass(frozen=True)
class Person:
    """Who and when, for grouping and hashing; nothing of it is written but age and sex.

    Attributes:
        patient: Patient ID.
        study: Study instance UID.
        date: Study date and time.
        age: Years, or None.
        sex: A value of the manifest, or None.
        secret: Words that no message may repeat: names, ids, dates.
    """

    patient: str
    study: str
    date: str
    age: float | None
    sex: str | None
    secret: frozenset[str]


@dataclass
class Series:
    """The planes of one series that share echo time and kind of image."""

    uid: str
    number: int
    description: str
    person: Person
    acquisition: Acquisition
    slices: list[Slice] = field(default_factory=list)


@dataclass
class Tree:
    """The series of a folder, and how many files of it were none."""

    series: list[Series]
    images: int
    ignored: int


def read_tree(source: str | os.PathLike[str]) -> Tree:
    """Reads the headers of all DICOM files under a folder.

    Files are told by their content: names do not matter. Pixels are not read. What is kept of a
    file takes about a kilobyte.
    """
    # Headers of real archives break the standard in small ways by the thousand, and what pydicom
    # says about that quotes them.
    with warnings.catch_warnings(), disable_value_validation():
        warnings.filterwarnings("ignore", module="pydicom")
        return _read_tree(Path(source))


def _read_tree(source: Path) -> Tree:
    found: dict[tuple[Any, ...], Series] = {}
    images = ignored = 0
    for path in _files(source):
        header = _header(path)
        if header is None:
            ignored += 1
            continue
        dataset, pixels = header
        images += 1
        acquisition = _acquisition(dataset)
        person = _person(dataset)
        component = [word for word in acquisition.image_type if word in ("P", "PHASE", "R", "I")]
        key = (
            person.patient,
            person.study,
            _text(dataset, "SeriesInstanceUID") or str(path.parent),
            None if acquisition.echo_ms is None else round(acquisition.echo_ms),
            *component,
        )
        if key not in found:
            found[key] = Series(
                uid=_text(dataset, "SeriesInstanceUID"),
                number=int(_number(dataset, "SeriesNumber") or 0),
                description=_clean(_text(dataset, "SeriesDescription"), person.secret),
                person=person,
                acquisition=acquisition,
            )
        found[key].slices += _slices(path, dataset, pixels)
    return Tree(list(found.values()), images, ignored)


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if path.is_file():  # Opening a pipe would wait for ever.
                yield path


class _Pixels(NamedTuple):
    """What the file says about its pixels: bytes announced, bytes there and bytes behind them."""

    announced: int | None
    there: int


def _header(path: Path) -> tuple[pydicom.Dataset, _Pixels] | None:
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
            if not _text(dataset, "SOPClassUID") or not _size(dataset, "Rows"):
                return None
            return dataset, _pixels(file, dataset)
    except (InvalidDicomError, OSError, EOFError, ValueError, KeyError, AttributeError):
        return None


def _pixels(file: BinaryIO, dataset: pydicom.Dataset) -> _Pixels:
    """Reads the element of pixels without its value; the file stands at its tag."""
    syntax = str(dataset.file_meta.get("TransferSyntaxUID", ""))
    if syntax == _DEFLATED:
        return _Pixels(None, 0)
    tag = file.read(4)
    order: Literal["big", "little"] = "big" if tag == b"\x7f\xe0\x00\x10" else "little"
    if order == "little" and tag != b"\xe0\x7f\x10\x00":
        return _Pixels(0, 0)
    first = file.read(4)
    # Explicit: two letters, two empty bytes, then the length; implicit: the length at once.
    length = int.from_bytes(file.read(4) if first[:2].isalpha() else first, order)
    there = os.fstat(file.fileno()).st_size - file.tell()
    return _Pixels(None if length == _UNDEFINED else length, there)


def _acquisition(dataset: pydicom.Dataset) -> Acquisition:
    # The protocol's name is the whole exam's with some vendors ("brain with and without contrast,
    # perfusion"): it counts only for a series without a description.
    texts = (
        _text(dataset, "SeriesDescription") or _text(dataset, "ProtocolName"),
        *(_text(dataset, name) for name in ("SequenceName", "PulseSequenceName")),
    )
    agent = _text(dataset, "ContrastBolusAgent")
    if not agent and "ContrastBolusAgentSequence" in dataset:
        agent = "named in a sequence" if _get(dataset, "ContrastBolusAgentSequence") else ""
    inversion = _number(dataset, "InversionTime")
    if inversion is None:
        inversion = _number(dataset, "InversionTimes")
    date = _text(dataset, "AcquisitionDate") or _text(dataset, "SeriesDate")
    time = _text(dataset, "AcquisitionTime") or _text(dataset, "SeriesTime")
    return Acquisition(
        modality=_text(dataset, "Modality").upper(),
        sop_class=_text(dataset, "SOPClassUID"),
        body_part=_text(dataset, "BodyPartExamined").upper(),
        image_type=tuple(word.upper() for word in _words(dataset, "ImageType")),
        texts=tuple(text.casefold() for text in texts if text),
        scanning=_scanning(dataset),
        repetition_ms=_number(dataset, "RepetitionTime"),
        echo_ms=_first(_number(dataset, "EchoTime"), _number(dataset, "EffectiveEchoTime")),
        inversion_ms=inversion or None,
        agent=agent,
        three_d="3D" in (_text(dataset, "MRAcquisitionType").upper()),
        time=_text(dataset, "AcquisitionDateTime") or date + time,
    )


def _scanning(dataset: pydicom.Dataset) -> frozenset[str]:
    """Returns the codes of ScanningSequence, which enhanced images spell out instead."""
    codes = set(_words(dataset, "ScanningSequence"))
    codes |= {
        code
        for code, name, value in (
            ("SE", "EchoPulseSequence", "SPIN"),
            ("GR", "EchoPulseSequence", "GRADIENT"),
            ("IR", "InversionRecovery", "YES"),
            ("EP", "EchoPlanarPulseSequence", "YES"),
        )
        if _text(dataset, name).upper() == value
    }
    return frozenset(codes)


def _person(dataset: pydicom.Dataset) -> Person:
    birth, date = _text(dataset, "PatientBirthDate"), _text(dataset, "StudyDate")
    name, patient = _text(dataset, "PatientName"), _text(dataset, "PatientID")
    secret = {*name.casefold().replace("^", " ").split(), patient.casefold(), birth}
    return Person(
        patient=patient,
        study=_text(dataset, "StudyInstanceUID"),
        date=date + _text(dataset, "StudyTime"),
        age=_age(_text(dataset, "PatientAge"), birth, date),
        sex={"F": "female", "M": "male"}.get(_text(dataset, "PatientSex").upper()),
        secret=frozenset(word for word in secret if len(word) > 1),
    )


def _age(written: str, birth: str, date: str) -> float | None:
    """Returns years, from the age or the dates; 90 for all who are older, as is usual."""
    units = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
    years = None
    if len(written) == 4 and written[:3].isdigit() and written[3] in units:
        years = int(written[:3]) * units[written[3]]
    elif len(birth) == len(date) == 8 and (birth + date).isdigit():
        years = int(date[:4]) - int(birth[:4]) - (date[4:] < birth[4:])
    if years is None or not 0 <= years <= 120:
        return None
    return min(round(float(years), 1), 90.0)


def _clean(text: str, secret: frozenset[str]) -> str:
    """Returns a description without words that name the patient and without long numbers."""
    words = text.replace("^", " ").replace("_", " ").split()
    kept = [
        word
        for word in words
        if word.casefold().strip(",;:()") not in secret and sum(map(str.isdigit, word)) < 6
    ]
    return " ".join(kept)[:64]


def _slices(path: Path, dataset: pydicom.Dataset, pixels: _Pixels) -> list[Slice]:
    uid = _text(dataset, "SOPInstanceUID")
    matrix = (_size(dataset, "Rows"), _size(dataset, "Columns"))
    fault = _pixel_fault(dataset, pixels)
    padding = 0 if pixels.announced is None else max(pixels.there - pixels.announced, 0)
    frames = _get(dataset, "PerFrameFunctionalGroupsSequence")
    if not frames:
        return [
            Slice(
                path=str(path),
                uid=uid,
                number=int(_number(dataset, "InstanceNumber") or 0),
                position=_vector(_get(dataset, "ImagePositionPatient"), 3),
                orientation=_vector(_get(dataset, "ImageOrientationPatient"), 6),
                matrix=matrix,
                spacing=_vector(_get(dataset, "PixelSpacing"), 2),
                fault=fault,
                padding=padding if padding > _PADDING else 0,
            )
        ]
    shared = _get(dataset, "SharedFunctionalGroupsSequence") or [pydicom.Dataset()]

    def value(frame: pydicom.Dataset, group: str, name: str, length: int) -> Any:
        for groups in (frame, shared[0]):
            if groups.get(group):
                return _vector(_get(groups[group].value[0], name), length)
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


def _pixel_fault(dataset: pydicom.Dataset, pixels: _Pixels) -> str | None:
    """Returns what is wrong with the length of the pixels, which the header foretells."""
    if pixels.announced is None:
        return None  # Compressed: the length tells nothing.
    if pixels.announced == 0:
        return "it has no pixels"
    bits = (_size(dataset, "BitsAllocated") or 16) * (_size(dataset, "SamplesPerPixel") or 1)
    frames = _size(dataset, "NumberOfFrames") or 1
    plane = _size(dataset, "Rows") * _size(dataset, "Columns") * bits // 8
    expected = plane * frames
    if pixels.announced not in (expected, expected + expected % 2):
        return f"it holds {pixels.announced} bytes of pixels; its header says {expected}"
    if pixels.there < expected:
        return f"its file ends after {pixels.there} of {expected} bytes of pixels"
    return None


def _get(dataset: pydicom.Dataset, name: str) -> Any:
    """Returns a value, or None where it is absent or written as its kind must not be."""
    try:
        return dataset.get(name)
    except (ValueError, TypeError, OverflowError, NotImplementedError):
        return None


def _size(dataset: pydicom.Dataset, name: str) -> int:
    """Returns a count, or 0 where there is none."""
    value = _get(dataset, name)
    return int(value) if isinstance(value, int) and value > 0 else 0


def _value(dataset: pydicom.Dataset, name: str) -> Any:
    """Returns a value of the file, or in an enhanced one of its first frame."""
    if name in dataset:
        return _get(dataset, name)
    for holder in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for groups in (_get(dataset, holder) or [])[:1]:
            for group in groups:
                if group.VR == "SQ" and group.value and name in group.value[0]:
                    return _get(group.value[0], name)
    return None


def _text(dataset: pydicom.Dataset, name: str) -> str:
    value = _value(dataset, name)
    return "" if value is None else str(value).strip()


def _words(dataset: pydicom.Dataset, name: str) -> list[str]:
    value = _value(dataset, name)
    if value is None:
        return []
    values = value if isinstance(value, MultiValue | list | tuple) else [value]
    return [str(word).strip() for word in values if str(word).strip()]


def _number(dataset: pydicom.Dataset, name: str) -> float | None:
    words = _words(dataset, name)
    try:
        number = float(words[0]) if words else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _vector(value: Any, length: int) -> Any:
    try:
        numbers = tuple(float(number) for number in value or ())
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == length and all(map(math.isfinite, numbers)) else None
