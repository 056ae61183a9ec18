"""Real cases where they lie, and prepared cases made of noise."""

import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from data_pipelines.prepared import PreparedCase, PreparedIndex, index_facts
from data_pipelines.store.one_case import Item, build_case
from gmmas_jax.cases.case import Case, Grid
from gmmas_jax.cases.manifest import Row
from gmmas_jax.cases.sequences import SEQUENCES

_BESIDE = Path(__file__).parents[2].parent / "shared" / "data"
WHOLE = (6, 5, 4)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real cases: $GMMAS_REAL_DATA, else ../shared/data beside the checkout."""
    folder = Path(os.environ.get("GMMAS_REAL_DATA", _BESIDE))
    if not folder.is_dir():
        pytest.skip(f"no real cases: {folder} is not there; set GMMAS_REAL_DATA to their folder")
    return folder


def _case(
    case_id: str,
    *,
    shape: tuple[int, int, int] = (12, 11, 10),
    sequences: tuple[str, ...] = SEQUENCES,
    labelled: bool = True,
    tumour: bool = True,
) -> Case:
    """Returns a case of noise that fills its grid, with a small cube of each label code inside."""
    generator = np.random.default_rng(list(case_id.encode()))
    images = {
        name: generator.normal(100, 10, shape).astype(np.float32).clip(50) for name in sequences
    }
    label = None
    if labelled:
        label = np.zeros(shape, np.uint8)
        if tumour:
            label[2:7, 2:7, 2:7] = 2
            label[3:6, 3:6, 3:6] = 1
            label[4, 4, 4] = 3
    grid = Grid(shape, np.eye(4))
    return Case(case_id, images, label, grid, grid)


@pytest.fixture
def make_case() -> Callable[..., Case]:
    """Returns the function that makes a case."""
    return _case


def _written(case: Case, folder: Path, **columns: str | None) -> Row:
    """Writes a case as NIfTI and returns its row, with paths relative to the folder."""
    folder.mkdir(exist_ok=True)
    paths = {}
    for name, array in {**case.images, "seg": case.label}.items():
        if array is not None:
            paths[name] = f"{case.case_id}-{name}.nii.gz"
            nib.save(nib.Nifti1Image(array, case.grid.affine), folder / paths[name])
    convention = "brats2023" if "seg" in paths else None
    return Row(
        **{"patient_id": case.case_id, "label_convention": convention} | paths | columns,
        case_id=case.case_id,
    )


@pytest.fixture
def write_case() -> Callable[..., Row]:
    """Returns the function that writes a case as NIfTI."""
    return _written


@pytest.fixture
def make_index(tmp_path: Path) -> Callable[..., PreparedIndex]:
    """Returns a function that stores cases and returns their index."""

    def make(*cases: Case, tasks: dict[str, dict[str, str]] | None = None) -> PreparedIndex:
        entries = []
        for case in cases:
            row = _written(case, tmp_path / "images", **(tasks or {}).get(case.case_id, {}))
            item = Item(
                row=row, root=tmp_path / "images", work=tmp_path, spacing_mm=1.0, whole=WHOLE
            )
            built = build_case(item)
            entries.append(
                PreparedCase(
                    case_id=case.case_id,
                    patient_id=case.case_id,
                    split="train",
                    file=built.path.name,
                    tasks=row.tasks,
                    **index_facts(built.facts.meta),
                )
            )
        return PreparedIndex(tmp_path, 1.0, WHOLE, tuple(entries))

    return make
