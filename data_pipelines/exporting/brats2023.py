"""Export in the layout of BraTS 2023 and later."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_pipelines.exporting.plan import Plan, PlannedCase
from data_pipelines.ingest.brats import ID_2023
from gmmas_jax.cases.manifest import Row
from gmmas_jax.errors import UserError

_AFTER_TREATMENT = 100
_MAX_PATIENTS = 100_000


def plan_brats2023(rows: Sequence[Row], *, fill_missing: bool) -> Plan:
    """Plans `BraTS-GLI-00000-000/BraTS-GLI-00000-000-t1n.nii.gz` and so on, below the split.

    A case whose id has this form keeps it; any other gets a number of its own, patients and their
    time points in the order of the manifest. Masks of after treatment (convention `brats2024`) get
    time points from 100 on, as in the challenge, and keep code 4 for the cavity.

    Args:
        rows: Of the manifest.
        fill_missing: Must be false: the layout leaves absent sequences out.

    Raises:
        UserError: If filling is asked for, or there are too many cases to number.
    """
    if fill_missing:
        raise UserError(
            "--fill-missing: the layout brats2023 leaves absent sequences out; expected it with "
            "nnunet or monai. Leave it out."
        )
    cases = []
    renamed = 0
    for row, name in zip(rows, _numbered(rows), strict=True):
        renamed += name != row.case_id
        folder = f"{row.split}/{name}" if row.split else name
        cases.append(
            PlannedCase(
                row=row,
                name=name,
                images={sequence: f"{folder}/{name}-{sequence}.nii.gz" for sequence in row.images},
                seg=f"{folder}/{name}-seg.nii.gz" if row.seg else None,
                convention="brats2024" if _may_have_cavity(name) else "brats2023",
            )
        )
    plan = Plan(cases, _nothing_more)
    if renamed:
        plan.notes.append(f"{renamed} cases were numbered; gmmas-cases.csv tells which is which")
    return plan


def _may_have_cavity(name: str) -> bool:
    return name.startswith("BraTS-GLI-") and int(name[-3:]) >= _AFTER_TREATMENT


def _numbered(rows: Sequence[Row]) -> Iterator[str]:
    taken = {row.case_id for row in rows if ID_2023.fullmatch(row.case_id)}
    used = {int(match["patient"]) for name in taken if (match := ID_2023.fullmatch(name))}
    free = (number for number in range(_MAX_PATIENTS) if number not in used)
    patients: dict[str, int] = {}
    exams: Counter[tuple[str, bool]] = Counter()
    for row in rows:
        if row.case_id in taken:
            yield row.case_id
            continue
        if row.patient_id not in patients:
            patients[row.patient_id] = next(free, _MAX_PATIENTS)
        after = row.label_convention == "brats2024"
        exam = exams[row.patient_id, after] + (_AFTER_TREATMENT if after else 0)
        exams[row.patient_id, after] += 1
        if patients[row.patient_id] >= _MAX_PATIENTS or exam >= 1000:
            raise UserError(
                f"{row.case_id}: no number is left for it; expected at most {_MAX_PATIENTS} "
                "patients and 100 exams of each before treatment. Export in parts."
            )
        yield f"BraTS-GLI-{patients[row.patient_id]:05d}-{exam:03d}"


def _nothing_more(out: Path, cases: Sequence[PlannedCase]) -> None:
    """The layout describes itself by its names."""
