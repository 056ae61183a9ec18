"""DICOM files to series: headers alone, one file at a time."""

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
from pydicom.config import disable_value_validation

from data_pipelines.ingest.dicom_person import Person, read_person, without_secrets
from data_pipelines.ingest.dicom_slices import Slice, read_image_header, read_slices
from data_pipelines.ingest.dicom_values import get_number, get_text, get_value, get_words


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
        header = read_image_header(path)
        if header is None:
            ignored += 1
            continue
        dataset, pixels = header
        images += 1
        acquisition = _acquisition(dataset)
        person = read_person(dataset)
        component = [word for word in acquisition.image_type if word in ("P", "PHASE", "R", "I")]
        key = (
            person.patient,
            person.study,
            get_text(dataset, "SeriesInstanceUID") or str(path.parent),
            None if acquisition.echo_ms is None else round(acquisition.echo_ms),
            *component,
        )
        if key not in found:
            found[key] = Series(
                uid=get_text(dataset, "SeriesInstanceUID"),
                number=int(get_number(dataset, "SeriesNumber") or 0),
                description=without_secrets(get_text(dataset, "SeriesDescription"), person.secret),
                person=person,
                acquisition=acquisition,
            )
        found[key].slices += read_slices(path, dataset, pixels)
    return Tree(list(found.values()), images, ignored)


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if path.is_file():  # Opening a pipe would wait for ever.
                yield path


def _acquisition(dataset: pydicom.Dataset) -> Acquisition:
    # The protocol's name is the whole exam's with some vendors ("brain with and without contrast,
    # perfusion"): it counts only for a series without a description.
    texts = (
        get_text(dataset, "SeriesDescription") or get_text(dataset, "ProtocolName"),
        *(get_text(dataset, name) for name in ("SequenceName", "PulseSequenceName")),
    )
    agent = get_text(dataset, "ContrastBolusAgent")
    if not agent and "ContrastBolusAgentSequence" in dataset:
        agent = "named in a sequence" if get_value(dataset, "ContrastBolusAgentSequence") else ""
    inversion = get_number(dataset, "InversionTime")
    if inversion is None:
        inversion = get_number(dataset, "InversionTimes")
    date = get_text(dataset, "AcquisitionDate") or get_text(dataset, "SeriesDate")
    time = get_text(dataset, "AcquisitionTime") or get_text(dataset, "SeriesTime")
    return Acquisition(
        modality=get_text(dataset, "Modality").upper(),
        sop_class=get_text(dataset, "SOPClassUID"),
        body_part=get_text(dataset, "BodyPartExamined").upper(),
        image_type=tuple(word.upper() for word in get_words(dataset, "ImageType")),
        texts=tuple(text.casefold() for text in texts if text),
        scanning=_scanning(dataset),
        repetition_ms=get_number(dataset, "RepetitionTime"),
        echo_ms=_first(get_number(dataset, "EchoTime"), get_number(dataset, "EffectiveEchoTime")),
        inversion_ms=inversion or None,
        agent=agent,
        three_d="3D" in (get_text(dataset, "MRAcquisitionType").upper()),
        time=get_text(dataset, "AcquisitionDateTime") or date + time,
    )


def _scanning(dataset: pydicom.Dataset) -> frozenset[str]:
    """Returns the codes of ScanningSequence, which enhanced images spell out instead."""
    codes = set(get_words(dataset, "ScanningSequence"))
    codes |= {
        code
        for code, name, value in (
            ("SE", "EchoPulseSequence", "SPIN"),
            ("GR", "EchoPulseSequence", "GRADIENT"),
            ("IR", "InversionRecovery", "YES"),
            ("EP", "EchoPlanarPulseSequence", "YES"),
        )
        if get_text(dataset, name).upper() == value
    }
    return frozenset(codes)


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)
