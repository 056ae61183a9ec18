"""Two real native exams against their published versions, with the samples that users get."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from benchmarks.preprocessing import DATA, EXAMS, score
from data_pipelines.preprocess.atlas import load_atlas
from data_pipelines.preprocess.case import preprocess_case
from data_pipelines.preprocess.native import read_record, to_native
from data_pipelines.preprocess.settings import Settings


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real cases in {DATA}")
@pytest.mark.parametrize("exam", EXAMS)
def test_a_real_exam_comes_near_its_published_version(exam: str, tmp_path: Path):
    folder = DATA / exam / EXAMS[exam]
    images = {name: folder / f"{name}.nii.gz" for name in ("t1n", "t1c", "t2w", "t2f")}
    settings = Settings(brain_extraction="atlas")
    record = preprocess_case("case", images, tmp_path, load_atlas(), settings)
    assert record["verdict"] == "pass", record["faults"]
    native = to_native(np.ones(record["grid"]["shape"], np.uint8), tmp_path)
    for name, path in images.items():
        assert native[name].shape == nib.load(path).shape
    assert json.loads((tmp_path / "preprocess.json").read_text()) == read_record(tmp_path)
    found = score(record, tmp_path, DATA / exam / "atlas")
    assert found["dice"] >= 0.93
    # Registration is compared in the same native voxels, interpolated alike: the published volumes
    # were interpolated by another kernel and cut after it, which alone moves t2w of DU-7294 by 8 %.
    for name, row in found["resampled"].items():
        assert row["ratio"] >= 0.98, (name, row)
    for name, row in found["sequences"].items():
        assert row["ratio"] >= (0.9 if (exam, name) == ("tcga-du-7294", "t2w") else 0.98), row
