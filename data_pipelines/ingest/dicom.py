"""A tree of DICOM files to the four sequences of each exam."""

import csv
import hmac
import io
import os
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data_pipelines.ingest.dicom_convert import convert, converter
from data_pipelines.ingest.dicom_geometry import fault_of, is_dynamic, slice_distance
from data_pipelines.ingest.dicom_headers import Series, read_tree
from data_pipelines.ingest.dicom_series import Recognised, recognise
from data_pipelines.ingest.dicom_twins import without_copies
from data_pipelines.ingest.found import Found
from gmmas_jax.cases.files import output_folder, write_bytes, write_json, write_text
from gmmas_jax.cases.manifest import Row
from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.errors import UserError

PRIVATE = "private"
"""Folder under the volumes with what leads back to the patients: key and origins."""

_TOLD = 3
"""Series that a message tells of."""


@dataclass
class _Judged:
    """A series, what it is, and what became of it."""

    series: Series
    recognised: Recognised
    fault: str | None = None
    outcome: str = "left out"

    @property
    def title(self) -> str:
        name = f" {self.series.description!r}" if self.series.description else ""
        return f"series {self.series.number}{name} ({len(self.series.slices)} images)"


@dataclass
class _Exam:
    """One study of one patient."""

    case_id: str
    patient_id: str
    timepoint: str
    series: list[_Judged]
    notes: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def ingest_dicom(
    source: str | os.PathLike[str],
    *,
    volumes: str | os.PathLike[str],
    workers: int = 1,
    on_case: Callable[[int, int, str], None] | None = None,
) -> Found:
    """Finds the four sequences in a tree of DICOM files and converts them.

    A case is a study of a patient. Its id is a keyed hash of both: the key is made once and lies
    with the origins of the cases under `volumes/private`, readable by its owner alone. Neither
    names, ids nor dates of patients are written anywhere else.

    Args:
        source: A folder; its structure and file names do not matter.
        volumes: Receives `<case>/<sequence>.nii.gz` and `<case>/series.json`, which lists every
            series of the exam with what became of it and why.
        workers: Cases that are converted at a time.
        on_case: Called after each case with (cases done, all cases, case id).

    Returns:
        Rows with age, sex and time point; a note for each series; what could not be used.

    Raises:
        UserError: If there is no DICOM image, dcm2niix is missing, or the volumes cannot be
            written.
    """
    source, volumes = Path(source), output_folder(volumes)
    converter()
    if not source.is_dir():
        raise UserError(f"{source}: is no folder; expected one with DICOM files. Check the path.")
    tree = read_tree(source)
    if not tree.images:
        raise UserError(
            f"{source}: no DICOM image in it ({tree.ignored} other files); expected DICOM files, "
            "by whatever name. Check the path."
        )
    exams = _exams(tree.series, _key(volumes))
    _write_origins(volumes, exams, source)
    found = Found()
    if tree.ignored:
        found.notes.append(f"{tree.ignored} files that are no DICOM images were passed over.")
    with ThreadPoolExecutor(workers) as pool:
        rows = pool.map(lambda exam: _convert_exam(exam, volumes), exams)
        for done, (exam, row) in enumerate(zip(exams, rows, strict=True), 1):
            found.notes += exam.notes
            found.refused += exam.refused
            if row is not None:
                found.rows.append(row)
            if on_case is not None:
                on_case(done, len(exams), exam.case_id)
    return found


def _exams(series: Sequence[Series], key: bytes) -> list[_Exam]:
    """Groups series by patient and study, studies in the order of their dates."""
    studies: dict[tuple[str, str], list[Series]] = defaultdict(list)
    for one in series:
        studies[one.person.patient, one.person.study].append(one)
    exams = []
    seen: Counter[str] = Counter()
    for (patient, study), members in sorted(
        studies.items(), key=lambda item: (item[0][0], item[1][0].person.date, item[0][1])
    ):
        patient_id = f"p{_hash(key, patient or study)}"
        seen[patient_id] += 1
        exam = _Exam(
            case_id=f"{patient_id}-{_hash(key, patient, study)[:6]}",
            patient_id=patient_id,
            timepoint=str(seen[patient_id]),
            series=[],
        )
        if not patient:
            exam.notes.append(
                f"{exam.case_id}: no patient ID in the headers; the exam counts as a patient of "
                "its own."
            )
        for one in sorted(members, key=lambda one: (one.number, one.uid)):
            exam.series.append(_judged(one, exam))
        exams.append(exam)
    return exams


def _judged(series: Series, exam: _Exam) -> _Judged:
    series.slices, copies, clash = without_copies(series.slices)
    judged = _Judged(series, recognise(series.acquisition))
    padding = sum(plane.padding for plane in series.slices)
    if copies:
        exam.notes.append(f"{exam.case_id}: {judged.title}: {copies} copies of files passed over.")
    if padding:
        exam.notes.append(
            f"{exam.case_id}: {judged.title}: {padding} bytes behind the pixels passed over."
        )
    if judged.recognised.sequence is not None:
        if is_dynamic(series.slices):
            judged.recognised = Recognised(None, "several images at each position, no one volume")
        else:
            judged.fault = clash or fault_of(series.slices)
    return judged


def _convert_exam(exam: _Exam, volumes: Path) -> Row | None:
    """Converts the best series of each sequence; the next best where one cannot be converted."""
    folder = volumes / exam.case_id
    images: dict[str, Any] = {}
    for sequence in SEQUENCES:
        candidates = [judged for judged in exam.series if judged.recognised.sequence == sequence]
        for judged in candidates:
            if judged.fault is not None:
                _refuse(exam, judged, judged.fault)
        sound = sorted(
            (judged for judged in candidates if judged.fault is None), key=_rank, reverse=True
        )
        for judged in sound:
            if sequence in images:
                judged.outcome = "not chosen"
                continue
            path = folder / f"{sequence}.nii.gz"
            try:
                convert(judged.series, path)
            except UserError as error:
                _refuse(exam, judged, str(error))
                continue
            judged.outcome = "used"
            images[sequence] = str(path.absolute())
    _tell(exam)
    listed = {"case_id": exam.case_id, "series": [_listed(judged) for judged in exam.series]}
    write_json(folder / "series.json", listed)
    if not images:
        said = [f"{judged.title}: {judged.recognised.reason}" for judged in exam.series]
        more = f"; and {len(said) - _TOLD} more, see series.json" if len(said) > _TOLD else ""
        exam.refused.append(
            f"{exam.case_id}: none of its {len(said)} series became one of {', '.join(SEQUENCES)} "
            f"({'; '.join(said[:_TOLD])}{more})."
        )
        return None
    person = exam.series[0].series.person
    row = Row(
        case_id=exam.case_id,
        patient_id=exam.patient_id,
        timepoint=exam.timepoint,
        age=person.age,
        sex=person.sex,
    )
    return replace(row, **images)


def _rank(judged: _Judged) -> tuple[Any, ...]:
    """Returns what makes a series better than another of the same sequence, most telling first."""
    acquisition, planes = judged.series.acquisition, judged.series.slices
    return (
        "DERIVED" not in acquisition.image_type,
        acquisition.three_d,
        -round(slice_distance(planes), 1),
        len(planes),
        acquisition.time,  # Later after contrast; and a repeated series was repeated for a reason.
        judged.series.number,
    )


def _refuse(exam: _Exam, judged: _Judged, problem: str) -> None:
    judged.outcome, judged.fault = "refused", problem
    exam.refused.append(
        f"{exam.case_id}: {judged.title} would be {judged.recognised.sequence}, but: {problem}. "
        "Not converted; export the series again."
    )


def _tell(exam: _Exam) -> None:
    for judged in exam.series:
        sequence = judged.recognised.sequence
        reason = judged.recognised.reason
        if judged.outcome == "not chosen":
            reason += "; another series of the exam is better (a volume, thinner, larger or later)"
        said = f"{sequence}, {judged.outcome}" if sequence else "left out"
        exam.notes.append(f"{exam.case_id}: {judged.title}: {said}: {reason}.")
    plain = [
        judged
        for judged in exam.series
        if judged.outcome in ("used", "not chosen")
        and judged.recognised.reason.endswith("no word of contrast")
    ]
    sequences = {judged.recognised.sequence for judged in exam.series if judged.outcome == "used"}
    if len(plain) > 1 and "t1c" not in sequences:
        exam.notes.append(
            f"{exam.case_id}: {len(plain)} T1 series without a word of contrast, and none after "
            "it: look whether the later one is t1c."
        )


def _listed(judged: _Judged) -> dict[str, Any]:
    return {
        "number": judged.series.number,
        "description": judged.series.description,
        "images": len(judged.series.slices),
        "sequence": judged.recognised.sequence,
        "outcome": judged.outcome,
        "reason": judged.recognised.reason,
        "fault": judged.fault,
    }


def _hash(key: bytes, *texts: str) -> str:
    """Returns ten letters that lead back to the texts only with the key."""
    return hmac.digest(key, "\0".join(texts).encode(), "sha256").hex()[:10]


def _key(volumes: Path) -> bytes:
    """Returns the key of the case ids, made at the first ingest into this folder."""
    path = volumes / PRIVATE / "key"
    if not path.exists():
        _private(path, secrets.token_bytes(32))
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); expected the key of the case ids. Mend "
            "its permissions, or choose another folder for the volumes."
        ) from error


def _write_origins(volumes: Path, exams: Sequence[_Exam], source: Path) -> None:
    """Writes where each case came from, for the owner of the data alone."""
    path = volumes / PRIVATE / "origins.csv"
    known: dict[str, str] = {}
    if path.exists():
        content = io.StringIO(path.read_text("utf-8"), newline="")
        known = {row["case_id"]: row["folder"] for row in csv.DictReader(content)}
    for exam in exams:
        files = [plane.path for judged in exam.series for plane in judged.series.slices]
        folders = {str(Path(file).parent) for file in files}
        known[exam.case_id] = os.path.commonpath(folders) if folders else str(source)
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("case_id", "folder"))
    writer.writerows(sorted(known.items()))
    _private(path, buffer.getvalue().encode())


def _private(path: Path, content: bytes) -> None:
    if not path.parent.exists():
        write_text(path.parent / "README", "What leads back to the patients. Never give it away.\n")
        path.parent.chmod(0o700)
    write_bytes(path, content)
    path.chmod(0o600)
