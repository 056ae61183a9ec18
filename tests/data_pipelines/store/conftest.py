"""Manifests of small cases on disk."""

from collections.abc import Callable
from pathlib import Path

import pytest

from data_pipelines.store.build import StoreReport, build_store
from gmmas_jax.cases.manifest import Row


@pytest.fixture
def rows(tmp_path: Path, make_case, write_case) -> list[Row]:
    """Writes three cases as NIfTI and returns their rows, with paths relative to `tmp_path`."""
    found = []
    for case_id in ("one", "two", "three"):
        case = make_case(case_id, labelled=case_id != "three", tumour=case_id == "one")
        first = case_id == "one"
        answers = {"idh": "mutant" if first else None, "split": "train" if first else "val"}
        found.append(write_case(case, tmp_path, **answers))
    return found


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., StoreReport]:
    """Returns the function that builds the store of rows, in this process."""

    def run(rows, out: str = "store", **changes) -> StoreReport:
        settings = {"spacing_mm": 2.0, "whole": (6, 5, 4), "workers": 0}
        return build_store(rows, tmp_path, tmp_path / out, **settings | changes)

    return run
