"""Preparing a cohort: once, resumable, and every bad case named."""

import dataclasses
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from data_pipelines import cohort
from data_pipelines.prepared import read_index
from gmmas_jax.cases.manifest import Row
from gmmas_jax.cases.prepare import prepare, whole_label, whole_volume
from gmmas_jax.errors import UserError

SETTINGS = {"spacing_mm": 2.0, "whole": (6, 5, 4)}


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
def reads(monkeypatch) -> list[str]:
    """Returns the ids of the cases that were read, in a list that grows."""
    read_row, ids = cohort.read_row, []

    def counted(row: Row, root: Path):
        ids.append(row.case_id)
        return read_row(row, root)

    monkeypatch.setattr(cohort, "read_row", counted)
    return ids


def run(rows, root: Path, **changes):
    return cohort.prepare_cohort(rows, root, **{"out": root / "prepared"} | SETTINGS | changes)


def test_the_index_holds_what_preparing_each_case_gives(rows, tmp_path):
    index = run(rows, tmp_path)
    assert [case.case_id for case in index.cases] == ["one", "two", "three"]
    for position, row in enumerate(rows):
        expected = prepare(cohort.read_row(row, tmp_path), spacing_mm=2.0)
        arrays, entry = index.open(position), index.cases[position]
        assert arrays.image.dtype == np.float16
        np.testing.assert_array_equal(arrays.image, expected.image.astype(np.float16))
        np.testing.assert_array_equal(
            arrays.whole, whole_volume(expected.image, (6, 5, 4)).astype(np.float16)
        )
        assert entry.shape == expected.image.shape[:3]
        if row.case_id == "three":
            assert entry.foreground is None
            assert arrays.label is None
            assert arrays.foreground == ()
        else:
            np.testing.assert_array_equal(arrays.label, expected.label)
            np.testing.assert_array_equal(
                arrays.whole_label, whole_label(expected.label, (6, 5, 4))
            )
    assert index.cases[1].foreground == (0, 0, 0, 0)
    assert index.open(1).foreground == ()
    assert index.cases[0].tasks == {"idh": "mutant"}
    assert [case.case_id for case in index.select("val").cases] == ["two", "three"]


def test_foreground_lists_the_voxels_of_each_class(rows, tmp_path):
    index = run(rows, tmp_path, spacing_mm=1.0)
    arrays = index.open(0)
    codes = [code for code, count in enumerate(index.cases[0].foreground, 1) if count]
    assert codes == [1, 2, 3]
    for code, indices in zip(codes, arrays.foreground, strict=True):
        np.testing.assert_array_equal(indices, np.flatnonzero(arrays.label == code))


def test_what_is_prepared_is_not_read_again(rows, tmp_path, reads):
    first = run(rows, tmp_path, workers=1)
    assert reads == ["one", "two", "three"]
    again = run(rows, tmp_path)
    assert len(reads) == 3
    assert again.cases == first.cases == read_index(tmp_path / "prepared").cases


def test_a_changed_file_or_setting_is_prepared_anew(rows, tmp_path, reads):
    before = run(rows, tmp_path)
    image = nib.load(tmp_path / "two-t1c.nii.gz")
    changed = nib.Nifti1Image(image.get_fdata(dtype=np.float32) * 1.5 + 60, image.affine)
    nib.save(changed, tmp_path / "two-t1c.nii.gz")
    reads.clear()
    after = run(rows, tmp_path)
    assert reads == ["two"]
    assert after.cases[0] == before.cases[0]
    assert after.cases[1].folder != before.cases[1].folder
    reads.clear()
    run(rows, tmp_path, whole=(5, 5, 5))
    assert sorted(reads) == ["one", "three", "two"]


def test_a_touched_file_is_not_prepared_anew(rows, tmp_path, reads):
    run(rows, tmp_path)
    os.utime(tmp_path / "one-t1n.nii.gz", (1, 1))
    reads.clear()
    run(rows, tmp_path)
    assert reads == []


def test_changed_answers_in_the_manifest_need_no_reading(rows, tmp_path, reads):
    run(rows, tmp_path)
    reads.clear()
    rows[1] = dataclasses.replace(rows[1], idh="wildtype", split="test")
    index = run(rows, tmp_path)
    assert reads == []
    assert (index.cases[1].tasks, index.cases[1].split) == ({"idh": "wildtype"}, "test")


def test_an_incomplete_case_is_made_again(rows, tmp_path, reads):
    """As a run leaves it that was killed before the last file of a case."""
    index = run(rows, tmp_path)
    folder = index.root / index.cases[0].folder
    (folder / "case.json").unlink()
    (folder / "whole.npy").unlink()
    reads.clear()
    assert run(rows, tmp_path).open(0).whole.shape == (6, 5, 4, 4)
    assert reads == ["one"]


def test_every_bad_case_is_named_and_the_others_are_kept(rows, tmp_path, reads):
    (tmp_path / "one-t2w.nii.gz").unlink()
    image = nib.load(tmp_path / "three-t1n.nii.gz")
    nib.save(
        nib.Nifti1Image(np.zeros(image.shape, np.float32), image.affine),
        tmp_path / "three-t1n.nii.gz",
    )
    with pytest.raises(UserError) as told:
        run(rows, tmp_path)
    message = str(told.value)
    assert "2 of 3 cases" in message
    assert "one: " in message
    assert "one-t2w.nii.gz" in message
    assert "three: " in message
    assert not (tmp_path / "prepared" / "index.json").exists()
    reads.clear()
    run(rows[1:2], tmp_path)
    assert reads == []


def test_progress_is_told_case_by_case(rows, tmp_path):
    told = []
    run(rows, tmp_path, on_case=lambda *facts: told.append(facts))
    assert told == [(1, 3, "one"), (2, 3, "two"), (3, 3, "three")]


def test_a_folder_without_an_index_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"index\.json: missing"):
        read_index(tmp_path)
