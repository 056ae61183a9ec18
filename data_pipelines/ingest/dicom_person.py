"""Who was imaged: read to group exams, and kept out of everything that is written."""

from dataclasses import dataclass

import pydicom

from data_pipelines.ingest.dicom_values import get_text


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


def read_person(dataset: pydicom.Dataset) -> Person:
    """Returns whom and which study a header names."""
    birth, date = get_text(dataset, "PatientBirthDate"), get_text(dataset, "StudyDate")
    name, patient = get_text(dataset, "PatientName"), get_text(dataset, "PatientID")
    secret = {*name.casefold().replace("^", " ").split(), patient.casefold(), birth}
    return Person(
        patient=patient,
        study=get_text(dataset, "StudyInstanceUID"),
        date=date + get_text(dataset, "StudyTime"),
        age=_age(get_text(dataset, "PatientAge"), birth, date),
        sex={"F": "female", "M": "male"}.get(get_text(dataset, "PatientSex").upper()),
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


def without_secrets(text: str, secret: frozenset[str]) -> str:
    """Returns a description without words that name the patient and without long numbers."""
    words = text.replace("^", " ").replace("_", " ").split()
    kept = [
        word
        for word in words
        if word.casefold().strip(",;:()") not in secret and sum(map(str.isdigit, word)) < 6
    ]
    return " ".join(kept)[:64]
