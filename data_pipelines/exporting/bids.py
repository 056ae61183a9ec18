"""Export as a BIDS derivative."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data_pipelines.exporting.journal import JOURNAL
from data_pipelines.exporting.plan import Names, Plan, PlannedCase, common_convention, ending
from data_pipelines.ingest.companion import COMPANION
from gmmas_jax.cases.files import write_json, write_text
from gmmas_jax.cases.labels import CONVENTIONS, LABELS
from gmmas_jax.cases.manifest import Row
from gmmas_jax.cases.tasks import TASKS
from gmmas_jax.errors import UserError

_SUFFIXES = {
    "t1n": "T1w",
    "t1c": "ce-gadolinium_T1w",
    "t2w": "T2w",
    "t2f": "FLAIR",
}
_LONG_NAMES = {
    "NCR": "necrotic and non-enhancing tumor core",
    "ED": "edema",
    "ET": "enhancing tumor",
    "RC": "resection cavity",
}
_VERSION = "1.10.0"
_ABSENT = "n/a"
_README = """Images and tumor masks, written by `gmmas export-cohort`.

The codes of the masks (desc-tumor_dseg) are in desc-tumor_dseg.tsv.
"""


def plan_bids(rows: Sequence[Row], *, fill_missing: bool, with_skull: bool = False) -> Plan:
    """Plans `sub-X/ses-Y/anat/sub-X_ses-Y_T1w.nii.gz` and so on, masks as `dseg`.

    Labels are made of the patient's and time point's names by leaving out what BIDS does not allow.
    A session is written where the manifest gives a time point, or a patient has several cases.

    Args:
        rows: Of the manifest.
        fill_missing: Must be false: the layout leaves absent sequences out.
        with_skull: Whether the images still show the skull; BIDS demands to know it.

    Raises:
        UserError: If filling is asked for.
    """
    if fill_missing:
        raise UserError(
            "--fill-missing: the layout bids leaves absent sequences out; expected it with nnunet "
            "or monai. Leave it out."
        )
    subjects: dict[str, str] = {}
    subject_names = Names("A-Za-z0-9", "")
    session_names: dict[str, Names] = {}
    convention = common_convention(rows)
    exams = Counter(row.patient_id for row in rows)
    cases = []
    for row in rows:
        if row.patient_id not in subjects:
            text = row.patient_id.removeprefix("sub-")
            subjects[row.patient_id] = f"sub-{subject_names.of(text)}"
        subject = subjects[row.patient_id]
        name, folder = subject, f"{subject}/anat"
        if row.timepoint is not None or exams[row.patient_id] > 1:
            sessions = session_names.setdefault(subject, Names("A-Za-z0-9", ""))
            session = f"ses-{sessions.of(row.timepoint or row.case_id)}"
            name, folder = f"{subject}_{session}", f"{subject}/{session}/anat"
        cases.append(
            PlannedCase(
                row=row,
                name=name,
                images={
                    sequence: f"{folder}/{name}_{_SUFFIXES[sequence]}{ending(path)}"
                    for sequence, path in row.images.items()
                },
                seg=f"{folder}/{name}_desc-tumor_dseg{ending(row.seg)}" if row.seg else None,
                convention=convention,
            )
        )
    return Plan(cases, partial(_describe, with_skull=with_skull))


def _describe(out: Path, cases: Sequence[PlannedCase], *, with_skull: bool) -> None:
    write_json(
        out / "dataset_description.json",
        {
            "Name": out.absolute().name,
            "BIDSVersion": _VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "gmmas export-cohort", "Version": version("gmmas-jax")}],
        },
    )
    write_text(out / "README", _README)
    for suffix in ("T1w", "T2w", "FLAIR"):
        write_json(out / f"{suffix}.json", {"SkullStripped": not with_skull})
    # The same for all cases, whether they have a mask or not.
    codes = [code for code in CONVENTIONS[cases[0].convention].values() if code]
    lines = [f"{code}\t{_LONG_NAMES[LABELS[code]]}\t{LABELS[code]}" for code in codes]
    write_text(
        out / "desc-tumor_dseg.tsv",
        "\n".join(["index\tname\tabbreviation", "0\tbackground\tBG", *lines]) + "\n",
    )
    columns = ("age", "sex", "site", *TASKS)
    people: dict[str, list[Row]] = {}
    for case in cases:
        people.setdefault(case.name.partition("_")[0], []).append(case.row)
    used = [c for c in columns if any(getattr(case.row, c) is not None for case in cases)]
    table = ["\t".join(["participant_id", *used])]
    for subject, rows in people.items():
        table.append("\t".join([subject, *(_agreed(rows, column) for column in used)]))
    write_text(out / "participants.tsv", "\n".join(table) + "\n")
    write_json(out / "participants.json", {column: _column(column) for column in used})
    write_text(out / ".bidsignore", f"{COMPANION}\n{JOURNAL}\n")


def _agreed(rows: Sequence[Row], column: str) -> str:
    """Returns what all exams of a patient say, or that there is no such thing."""
    values = {getattr(row, column) for row in rows}
    value = values.pop() if len(values) == 1 else None
    if value is None:
        return _ABSENT
    if isinstance(value, float):
        return f"{value:g}"
    return " ".join(str(value).split())


def _column(column: str) -> Mapping[str, Any]:
    if column == "age":
        return {"Description": "age at the exam", "Units": "year"}
    if column in TASKS:
        return {
            "Description": f"{column} of the tumor",
            "Levels": {name: name for name in TASKS[column]},
        }
    return {"Description": column}
