"""Trees of files for tests of layouts: a reader looks at names, so most files are empty."""

import json
from pathlib import Path
from typing import Any

from data_pipelines.ingest.found import Found
from data_pipelines.ingest.gather import Options
from data_pipelines.ingest.layouts import find_cases

CHANNELS = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
"""Of the Decathlon's Task01, as `dataset.json` gives them."""

BRATS_2023 = ("t1n", "t1c", "t2w", "t2f", "seg")
BRATS_2021 = ("t1", "t1ce", "t2", "flair", "seg")


def plant(root: Path, *names: str) -> Path:
    """Makes empty files below a folder, and returns the folder."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def plant_brats2023(root: Path, *ids: str, below: str = "") -> Path:
    """Makes the folders of cases as BraTS 2023 names them."""
    return plant(root, *(f"{below}{i}/{i}-{kind}.nii.gz" for i in ids for kind in BRATS_2023))


def plant_brats2021(root: Path, *ids: str, below: str = "") -> Path:
    """Makes the folders of cases as BraTS up to 2021 names them."""
    return plant(root, *(f"{below}{i}/{i}_{kind}.nii.gz" for i in ids for kind in BRATS_2021))


def plant_nnunet(root: Path, ids: dict[str, str], description: Any = None) -> Path:
    """Makes an nnU-Net data set.

    Args:
        root: The data set.
        ids: Case id to `Tr` or `Ts`.
        description: Content of `dataset.json`; None leaves it out.
    """
    for case_id, part in ids.items():
        plant(root, *(f"images{part}/{case_id}_{n:04d}.nii.gz" for n in range(4)))
        if part == "Tr":
            plant(root, f"labelsTr/{case_id}.nii.gz")
    if description is not None:
        (root / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    return root


def find(source: Path, layout: str, **options: Any) -> Found:
    """Finds the cases of a source."""
    return find_cases(source, layout, options=Options(**options))


def names(row: Any, source: Path) -> dict[str, str]:
    """Returns the files of a row, relative to the source."""
    files = row.images | ({"seg": row.seg} if row.seg else {})
    return {kind: Path(path).relative_to(source).as_posix() for kind, path in files.items()}
