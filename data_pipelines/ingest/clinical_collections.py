"""The clinical tables of public collections: which columns they have and what their ids mean."""

import re
from collections.abc import Callable
from typing import NamedTuple

from data_pipelines.ingest.clinical_cns5 import integrate, read_diagnosis
from data_pipelines.ingest.clinical_entry import Cells, Entry, column_key, make_entry
from data_pipelines.ingest.clinical_tcga import TCGA_COLUMNS, read_tcga
from data_pipelines.ingest.clinical_values import spelled
from data_pipelines.ingest.sites import brats_site

_BRATS_SUBJECT = re.compile(r"brats20\d\dsubjectid")
_SAME_NAMES = ("BraTS18", "BraTS19")
_BRATS_ID = re.compile(r"brats\d\did")


class Kind(NamedTuple):
    """A kind of table.

    Attributes:
        fits: Whether a header is of this kind, from its comparison keys.
        read: One row to an entry.
        expected: The columns that tell the kind, for messages.
        renames: Whether its patient ids replace those of a manifest, because the table knows that
            several collections have the same person.
    """

    fits: Callable[[set[str]], bool]
    read: Callable[[Cells], Entry]
    expected: str
    renames: bool = False


def _ucsf_pdgm(cells: Cells) -> Entry:
    """UCSF-PDGM: three digits here, four in the folders; a BraTS 2021 id names the same person."""
    name = cells.required("id")
    brats = cells.known("brats21id")
    own = re.sub(r"_.*", "", name)  # A follow-up's name is the patient's with more behind it.
    idh = cells.word("idh", "idh")
    codel = cells.word("codel_1p19q", "1p19q")
    if "relative" in cells.text("1p19q"):
        cells.notes.of(name, "'relative co-deletion' is read as codeleted")
    if brats:
        cells.notes.counted[
            "BraTS 2021 names the same person: its id becomes the patient id, so that both "
            "cohorts stay in one split"
        ] += 1
    integrated = integrate(
        cells.diagnosis("finalpathologicdiagnosiswho2021"),
        idh=idh,
        codel=codel,
        grade=cells.word("grade", "whocnsgrade"),
    )
    values = {
        "idh": idh,
        "codel_1p19q": codel,
        **cells.told(name, integrated),
        "mgmt": cells.word("mgmt", "mgmtstatus"),
        "age": cells.number("age", "ageatmri"),
        "sex": cells.word("sex", "sex"),
        "survival_days": cells.number("survival_days", "os"),
        "survival_event": cells.event("1dead0alive"),
        "site": "UCSF",
    }
    return make_entry(
        cells,
        name,
        brats or None,
        values,
        patient_names=(own, brats) if brats else (own,),
        of_exam=own != name,
    )


def _upenn_gbm(cells: Cells) -> Entry:
    """UPENN-GBM: `_11` is the exam before surgery, `_21` the one before a second surgery."""
    name = cells.required("id")
    patient, _, timepoint = name.partition("_")
    idh = cells.word("idh", "idh1")
    integrated = integrate(read_diagnosis("glioblastoma"), idh=idh, codel=None, grade="4")
    status = spelled(cells.text("survivalstatus"))
    event: int | None
    days = cells.number(
        "survival_days", "survivalfromsurgerydaysupdated", "survivalfromsurgerydays"
    )
    if status == "deceased - uncertain date of death":
        # The patient died some day after the last day on which he was seen.
        days, event = cells.number("survival_days", "survivalcensor"), 0
        cells.notes.of(
            name, "died on an unknown day; read as last seen alive on the day of censoring"
        )
    else:
        event = cells.event("survivalstatus")
        if event == 0:
            days = cells.number("survival_days", "survivalcensor")
    if cells.known("psptpscore"):
        cells.notes.counted[
            "PsP_TP_score grades the tissue of a second surgery from 1 to 6; the table draws no "
            "line between pseudoprogression and progression: outcome is left empty"
        ] += 1
    for note in integrated.notes:
        cells.notes.counted[f"a glioblastoma by the collection's name: {note}"] += 1
    values = {
        "timepoint": timepoint or None,
        "idh": idh,
        "histology": integrated.histology,
        "grade": integrated.grade,
        "mgmt": cells.word("mgmt", "mgmt"),
        "age": cells.number("age", "ageatscanyears"),
        "sex": cells.word("sex", "gender"),
        "survival_days": days,
        "survival_event": event,
        "site": "UPENN",
    }
    return make_entry(cells, name, patient, values, of_exam=True)


def _prognosais(cells: Cells) -> Entry:
    """PrognosAIs: 0, 1 and -1 for unknown; patients of seven collections."""
    name = cells.required("patient")
    idh = cells.word("idh", "idhmutated", flag=True)
    codel = cells.word("codel_1p19q", "1p19qcodeleted", flag=True)
    grade = cells.word("grade", "grade")
    integrated = integrate(None, idh=idh, codel=codel, grade=grade)
    values = {
        "idh": idh,
        "codel_1p19q": codel,
        **cells.told(name, integrated),
    }
    return make_entry(cells, name, None, values)


def _brats_mapping(cells: Cells) -> Entry:
    """BraTS 2017 to 2020: one exam's names in each year, and the TCGA patient if there is one."""
    keys = [f"brats20{year}subjectid" for year in (20, 19, 18, 17)]
    names = tuple(cells.known(key) for key in keys if cells.known(key))
    if not names:
        cells.required(*[key for key in keys if cells.has(key)])
    person = cells.known("tcgatciasubjectid")
    grade = cells.known("grade")
    if grade.upper() in ("HGG", "LGG"):
        cells.notes.counted[f"{grade} is no WHO grade: grade is left empty"] += 1
        grade = ""
    values = {
        "grade": cells.word("grade", "grade") if grade else None,
        "site": brats_site(names[0]),
    }
    return make_entry(cells, names[0], person or None, values, case_names=names)


def _brats_survival(cells: Cells) -> Entry:
    """BraTS survival: days, and for one patient of 2020 the words ALIVE (n days later)."""
    keys = [f"brats{year}id" for year in (20, 19, 18, 17)]
    name = cells.required(*keys)
    survival = cells.survival("survival", "survivaldays")
    if survival.days is not None and survival.event is None:
        cells.notes.counted[
            "the table does not say who of those with days of survival died: survival_event is "
            "left empty"
        ] += 1
    values = {
        "age": cells.number("age", "age"),
        "survival_days": survival.days,
        "survival_event": survival.event,
    }
    # 2018 and 2019 differ in the year alone.
    names = [re.sub("^brats1[89]", year, name, flags=re.IGNORECASE) for year in _SAME_NAMES]
    return make_entry(cells, name, None, values, case_names=tuple(dict.fromkeys([name, *names])))


def _brats2021_mapping(cells: Cells) -> Entry:
    """BraTS 2021 to the collections it was made of; also the MGMT labels of its second task."""
    name = cells.required("brats2021id", "brats21id")
    if name.isdigit():
        name = f"BraTS2021_{int(name):05d}"  # The MGMT list gives the number alone.
    origin = cells.known("tciapatientid", "tciapatientidname")
    # UCSF-PDGM's own table knows BraTS 2021's ids, and its patients are called by them.
    person = origin if origin and not origin.upper().startswith("UCSF") else None
    values = {
        "mgmt": cells.word("mgmt", "mgmtvalue", flag=True),
        "site": cells.known("siteid") or None,
    }
    names = (origin, name) if origin else (name,)
    return make_entry(cells, name, person, values, patient_names=names)


def _has(*keys: str) -> Callable[[set[str]], bool]:
    return lambda header: set(keys) <= header


KINDS: dict[str, Kind] = {
    "ucsf-pdgm": Kind(
        _has("id", "1p19q", "finalpathologicdiagnosiswho2021"),
        _ucsf_pdgm,
        "ID, 1p/19q, Final pathologic diagnosis (WHO 2021)",
        renames=True,
    ),
    "upenn-gbm": Kind(
        lambda header: (
            {"id", "idh1", "survivalstatus"} <= header
            and bool(header & {"survivalfromsurgerydaysupdated", "survivalfromsurgerydays"})
        ),
        _upenn_gbm,
        "ID, IDH1, Survival_Status, Survival_from_surgery_days",
    ),
    "prognosais": Kind(
        _has("patient", "idhmutated", "1p19qcodeleted"),
        _prognosais,
        "Patient, IDH_mutated, 1p19q_codeleted",
    ),
    "brats-mapping": Kind(
        lambda header: any(map(_BRATS_SUBJECT.fullmatch, header)),
        _brats_mapping,
        "BraTS_2019_subject_ID or another year's",
        renames=True,
    ),
    "brats-survival": Kind(
        lambda header: (
            any(map(_BRATS_ID.fullmatch, header)) and bool(header & {"survival", "survivaldays"})
        ),
        _brats_survival,
        "BraTS19ID or another year's, Survival",
    ),
    "brats2021-mapping": Kind(
        lambda header: (
            "brats2021id" in header or ({"brats21id", "mgmtvalue"} <= header and "id" not in header)
        ),
        _brats2021_mapping,
        "BraTS2021 ID, or BraTS21ID and MGMT_value",
        renames=True,
    ),
    "tcga": Kind(
        lambda header: (
            bool(header & set(TCGA_COLUMNS["id"]))
            and bool(
                header & {*TCGA_COLUMNS["subtype"], *TCGA_COLUMNS["idh"], *TCGA_COLUMNS["codel"]}
            )
        ),
        read_tcga,
        "Patient ID and IDH_STATUS, IDH/codel subtype or 1p/19q codeletion",
    ),
}
"""The kinds that a header tells; `generic` is for everything else."""


def fitting_kinds(columns: tuple[str, ...]) -> list[str]:
    """Returns the kinds that a header may be of."""
    header = {column_key(column) for column in columns}
    return [name for name, kind in KINDS.items() if kind.fits(header)]
