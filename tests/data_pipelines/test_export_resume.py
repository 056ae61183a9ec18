"""An export that is interrupted, repeated, refused in part, or has no room."""

import errno
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from data_pipelines.exporting import export as exporting
from data_pipelines.exporting.export import export_cohort
from data_pipelines.exporting.journal import FORMAT
from data_pipelines.ingest.companion import COMPANION
from data_pipelines.readers import read_row
from gmmas_jax.cases.manifest import read_manifest, write_manifest
from gmmas_jax.errors import UserError
from tests.cli.cohorts import head, save
from tests.data_pipelines.export_cohorts import AFFINE, OURS, change, ingest_back, write_cases


@pytest.fixture(name="cohort")
def _cohort(tmp_path) -> Path:
    return write_cases(tmp_path / "my cohort")


def test_a_case_that_fails_halfway_leaves_nothing(cohort, tmp_path):
    """Its mask is written already when the grid for the zeros cannot be read."""
    change(cohort, 1, t1n=None)
    path = cohort.parent / "1" / "t1c.nii.gz"
    path.write_bytes(path.read_bytes()[:40])
    done = export_cohort(cohort, layout="nnunet", out=tmp_path / "out", fill_missing=True)
    assert [text.split(":")[0] for text in done.refused] == ["übung 2 a"]
    assert not list((tmp_path / "out").rglob("übung_2_a*"))


def test_bad_cases_are_named_and_the_others_kept(cohort, tmp_path):
    (cohort.parent / "0" / "t2w.nii.gz").unlink()
    save(cohort.parent / "1" / "seg.nii.gz", np.full((12, 11, 10), 9, np.uint8), AFFINE)
    change(cohort, 2, quality="fail")
    out = tmp_path / "out"
    done = export_cohort(cohort, layout="bids", out=out)
    assert [case.row.case_id for case in done.cases] == ["BraTS-GLI-00000-001"]
    assert "t2w.nii.gz: no such file" in done.refused[0]
    assert done.refused[1].startswith("übung 2 a: ")
    assert "label values {9}" in done.refused[1]
    assert "quality fail" in done.notes[0]
    assert not list(out.rglob("*before*.nii.gz"))
    change(cohort, 2, label_convention=None, quality=None)
    done = export_cohort(cohort, layout="monai", out=tmp_path / "other")
    assert [case.row.case_id for case in done.cases] == ["007", "BraTS-GLI-00000-001"]


def test_links(cohort, tmp_path):
    out = tmp_path / "out"
    export_cohort(cohort, layout="nnunet", out=out, link=True)
    source, target = cohort.parent / "0" / "t1n.nii.gz", out / "imagesTr" / "übung_2_b_0000.nii.gz"
    assert os.path.samefile(source, target)
    mask = cohort.parent / "0" / "seg.nii.gz"
    assert not os.path.samefile(mask, out / "labelsTr" / "übung_2_b.nii.gz")
    assert os.path.samefile(cohort.parent / "2" / "seg.nii.gz", out / "labelsTr" / "007.nii.gz")
    (out / ".gmmas-export.jsonl").write_text(
        json.dumps({"format": FORMAT, "layout": "nnunet"}) + "\n", encoding="utf-8"
    )
    export_cohort(cohort, layout="nnunet", out=out, link=True)
    assert os.path.samefile(source, target)
    assert not [path for path in out.rglob(".*") if path.name != ".gmmas-export.jsonl"]


def test_an_interrupted_export_goes_on(cohort, tmp_path, monkeypatch):
    out, place_case, placed = tmp_path / "out", exporting.place_case, []

    def interrupted(case, *rest, **options):
        if case.row.case_id == "007":
            raise KeyboardInterrupt
        placed.append(case.row.case_id)
        place_case(case, *rest, **options)

    monkeypatch.setattr(exporting, "place_case", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_cohort(cohort, layout="nnunet", out=out, workers=1)
    assert placed[:2] == ["übung 2 b", "übung 2 a"]
    assert not (out / "dataset.json").exists()
    # As a killed one leaves it: half a line, half a file.
    with (out / ".gmmas-export.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"name": "00')
    (out / "imagesTr" / ".0123abcd.007_0000.nii.gz").write_bytes(b"half")

    def counted(case, *rest, **options):
        placed.append(case.row.case_id)
        place_case(case, *rest, **options)

    monkeypatch.setattr(exporting, "place_case", counted)
    placed.clear()
    done = export_cohort(cohort, layout="nnunet", out=out, workers=1)
    assert done.before == 2
    assert placed == ["007", "BraTS-GLI-00000-001"]
    assert not list(out.rglob(".0123abcd*"))
    assert len(ingest_back(out, "nnunet")) == 4
    placed.clear()
    export_cohort(cohort, layout="nnunet", out=out)
    assert placed == []


def test_what_changed_is_written_again(cohort, tmp_path):
    out = tmp_path / "out"
    export_cohort(cohort, layout="nnunet", out=out)
    save(cohort.parent / "2" / "t1n.nii.gz", head(99), AFFINE)
    change(cohort, 1, label_convention="brats2023")
    assert export_cohort(cohort, layout="nnunet", out=out).before == 2
    np.testing.assert_array_equal(
        nib.load(out / "imagesTr" / "007_0000.nii.gz").get_fdata(), head(99)
    )
    # What was read as oedema before is necrosis now.
    row = ingest_back(out, "nnunet")[1]
    assert read_row(row, out).label[4, 5, 5] != OURS[::-1, ::-1][4, 5, 5]


@pytest.mark.parametrize(
    ("layout", "old", "new"),
    [
        ("nnunet", "imagesTr/007_0000.nii.gz", "imagesTs/007_0000.nii.gz"),
        ("brats2023", "val/BraTS-GLI-00002-000/", "test/BraTS-GLI-00002-000/"),
    ],
)
def test_a_case_that_moves_to_the_test_split_leaves_the_training_folder(
    cohort, tmp_path, layout, old, new
):
    """nnU-Net trains on what lies in its folder."""
    out = tmp_path / "out"
    export_cohort(cohort, layout=layout, out=out)
    before = {path.relative_to(out).as_posix() for path in out.rglob("*.nii.gz")}
    assert any(path.startswith(old) for path in before)
    change(cohort, 2, split="test")
    assert export_cohort(cohort, layout=layout, out=out).before == 3
    after = {path.relative_to(out).as_posix() for path in out.rglob("*.nii.gz")}
    assert len(after) == len(before)
    assert not any(path.startswith(old) for path in after)
    assert any(path.startswith(new) for path in after)


def test_folders_of_something_else_are_refused(cohort, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"holds thesis\.tex; expected an empty folder"):
        export_cohort(cohort, layout="bids", out=tmp_path / "full")
    export_cohort(cohort, layout="bids", out=tmp_path / "out")
    with pytest.raises(UserError, match="of another export"):
        export_cohort(cohort, layout="monai", out=tmp_path / "out")
    write_manifest(cohort, read_manifest(cohort)[1:])
    with pytest.raises(UserError, match="of an earlier export"):
        export_cohort(cohort, layout="bids", out=tmp_path / "out")


def test_a_full_disk_stops_the_export(cohort, tmp_path, monkeypatch):
    place_case = exporting.place_case

    def full(case, *rest, **options):
        if case.row.case_id != "007":
            return place_case(case, *rest, **options)
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise UserError("cannot be written (No space left on device)") from error

    monkeypatch.setattr(exporting, "place_case", full)
    with pytest.raises(UserError, match="No space left"):
        export_cohort(cohort, layout="bids", out=tmp_path / "out", workers=1)
    assert not (tmp_path / "out" / COMPANION).exists()
    monkeypatch.undo()
    assert len(export_cohort(cohort, layout="bids", out=tmp_path / "out").cases) == 4
