"""Manifests of small cases on disk."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from data_pipelines.store.build import StoreReport, build_store
from gmmas_jax.cases.manifest import Row


@pytest.fixture
def rows(tmp_path: Path, make_case) -> list[Row]:
    """Writes three cases as NIfTI and returns their rows, with paths relative to `tmp_path`."""
    found = []
    for case_id in ("one", "two", "three"):
        case = make_case(case_id, labelled=case_id != "three", tumour=case_id == "one")
        paths = {}
        arrays = {**case.images, "seg": case.label}
        for name, array in arrays.items():
            if array is not None:
                paths[name] = f"{case_id}-{name}.nii.gz"
                nib.save(nib.Nifti1Image(array, np.diag([1.0, 1, 1, 1])), tmp_path / paths[name])
        found.append(
            Row(
                case_id=case_id,
                patient_id=case_id,
                label_convention="brats2023" if "seg" in paths else None,
                idh="mutant" if case_id == "one" else None,
                split="train" if case_id == "one" else "val",
                **paths,
            )
        )
    return found


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., StoreReport]:
    """Returns the function that builds the store of rows, in this process."""

    def run(rows, out: str = "store", **changes) -> StoreReport:
        settings = {"spacing_mm": 2.0, "whole": (6, 5, 4), "workers": 0}
        return build_store(rows, tmp_path, tmp_path / out, **settings | changes)

    return run
