"""A cohort to export: three conventions, two exams of one patient, names of all sorts."""

import dataclasses
from pathlib import Path

import numpy as np

from data_pipelines.ingest.gather import Options
from data_pipelines.ingest.layouts import find_cases
from gmmas_jax.cases.labels import convert_back
from gmmas_jax.cases.manifest import Row, read_manifest, write_manifest
from gmmas_jax.cases.sequences import SEQUENCES
from tests.cli.cohorts import head, save

LAYOUTS = ("nnunet", "brats2023", "bids", "monai")
AFFINE = np.array([[-1, 0, 0, 90], [0, -1, 0, 126], [0, 0, 1.5, -72], [0, 0, 0, 1.0]])
CASES: tuple[dict, ...] = (
    {
        **{"case_id": "übung 2 b", "patient_id": "übung 2", "timepoint": "after", "split": "train"},
        **{"label_convention": "brats2021", "idh": "mutant", "grade": "4", "fold": 1, "site": "A"},
    },
    {
        **{"case_id": "übung 2 a", "patient_id": "übung 2", "timepoint": "before"},
        **{"split": "train", "label_convention": "msd", "idh": "mutant", "age": 61.5, "fold": 1},
    },
    {
        **{"case_id": "007", "patient_id": "007", "split": "val", "sex": "female", "fold": 0},
        **{"label_convention": "brats2023", "survival_days": 300.0, "survival_event": 1},
    },
    {"case_id": "BraTS-GLI-00000-001", "patient_id": "BraTS-GLI-00000", "split": "test"},
)
OURS = np.zeros((12, 11, 10), np.uint8)
OURS[3:8, 3:8, 3:8], OURS[4:7, 4:7, 4:7], OURS[5, 5, 5] = 2, 1, 3


def write_cases(folder: Path) -> Path:
    """Writes a manifest of four cases in three conventions, the last without a mask."""
    rows = []
    for number, cells in enumerate(CASES):
        paths = {}
        for channel, sequence in enumerate(SEQUENCES):
            path = folder / f"{number}" / f"{sequence}.nii.gz"
            save(path, head(10 * number + channel), AFFINE)
            paths[sequence] = path.relative_to(folder).as_posix()
        if convention := cells.get("label_convention"):
            save(folder / f"{number}" / "seg.nii.gz", convert_back(OURS, convention), AFFINE)
            paths["seg"] = f"{number}/seg.nii.gz"
        rows.append(Row(**cells, **paths))
    write_manifest(folder / "cohort.csv", rows)
    return folder / "cohort.csv"


def change(cohort: Path, number: int, **cells: object) -> None:
    """Changes cells of one row of a manifest."""
    rows = read_manifest(cohort)
    rows[number] = dataclasses.replace(rows[number], **cells)
    write_manifest(cohort, rows)


def ingest_back(out: Path, layout: str) -> list[Row]:
    source = out / "datalist.json" if layout == "monai" else out
    found = find_cases(source, layout, options=Options())
    assert not found.refused
    return found.rows
