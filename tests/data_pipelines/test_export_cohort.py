"""Export and ingest are each other's inverse, and images stay bit for bit."""

import dataclasses
import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from data_pipelines.exporting.export import export_cohort
from data_pipelines.ingest.companion import COMPANION
from data_pipelines.ingest.gather import Options
from data_pipelines.ingest.layouts import find_cases
from data_pipelines.nifti import read_mask
from data_pipelines.readers import read_row
from gmmas_jax.cases.labels import convert_labels
from gmmas_jax.cases.manifest import read_manifest, write_manifest
from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.errors import UserError
from tests.cli.cohorts import save
from tests.data_pipelines.export_cohorts import (
    AFFINE,
    LAYOUTS,
    OURS,
    change,
    ingest_back,
    write_cases,
)


@pytest.fixture(name="cohort")
def _cohort(tmp_path) -> Path:
    return write_cases(tmp_path / "my cohort")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_export_then_ingest_gives_the_same_rows(cohort, tmp_path, layout):
    out = tmp_path / "out"
    done = export_cohort(cohort, layout=layout, out=out)
    assert (len(done.cases), done.before, done.refused) == (4, 0, [])
    before, after = read_manifest(cohort), ingest_back(out, layout)
    without_files = dict.fromkeys((*SEQUENCES, "seg", "label_convention"))
    assert [dataclasses.replace(row, **without_files) for row in after] == [
        dataclasses.replace(row, **without_files) for row in before
    ]
    for old, new in zip(before, after, strict=True):
        assert set(new.images) == set(old.images)
        for sequence, path in new.images.items():
            source = cohort.parent / old.images[sequence]
            assert Path(path).read_bytes() == source.read_bytes()
        first, second = read_row(old, cohort.parent), read_row(new, out)
        if old.seg is None:
            assert new.seg is None
        else:
            np.testing.assert_array_equal(first.label, second.label)
            assert nib.load(new.seg).get_data_dtype() == np.uint8
    assert [row.case_id for row in read_manifest(out / COMPANION)] == [
        row.case_id for row in before
    ]
    read_row(read_manifest(out / COMPANION)[0], out)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_alone_tells_files_and_codes(cohort, tmp_path, layout):
    """Without the companion, as after other hands; what the layout can hold stays."""
    out = tmp_path / "out"
    export_cohort(cohort, layout=layout, out=out)
    (out / COMPANION).unlink()
    rows = {row.case_id: row for row in ingest_back(out, layout)}
    expected = {
        "nnunet": {"übung_2_b", "übung_2_a", "007", "BraTS-GLI-00000-001"},
        "monai": {"übung 2 b", "übung 2 a", "007", "BraTS-GLI-00000-001"},
        "bids": {"sub-bung2_ses-after", "sub-bung2_ses-before", "sub-007", "sub-BraTSGLI00000"},
        "brats2023": {f"BraTS-GLI-{n}" for n in ("00001-000", "00001-001", "00002-000")}
        | {"BraTS-GLI-00000-001"},
    }[layout]
    assert set(rows) == expected
    for case_id, row in rows.items():
        if row.seg is None:
            continue
        assert row.label_convention == "brats2023"
        (
            np.testing.assert_array_equal(
                read_row(row, out).label, read_row(read_manifest(cohort)[0], cohort.parent).label
            ),
            case_id,
        )
    splits = sorted(str(row.split) for row in rows.values())
    assert (
        splits
        == {
            "nnunet": ["test", "train", "train", "train"],
            "monai": ["test", "train", "train", "val"],
            "bids": ["None"] * 4,
            "brats2023": ["test", "train", "train", "val"],
        }[layout]
    )
    if layout in ("bids", "brats2023"):
        assert len({row.patient_id for row in rows.values()}) == 3


def test_nnunet_describes_itself(cohort, tmp_path):
    out = tmp_path / "Dataset501_Glioma"
    export_cohort(cohort, layout="nnunet", out=out)
    described = json.loads((out / "dataset.json").read_text(encoding="utf-8"))
    assert described["channel_names"] == {"0": "t1n", "1": "t1c", "2": "t2w", "3": "t2f"}
    assert described["labels"] == {
        "background": 0,
        "whole tumor": [1, 2, 3],
        "tumor core": [1, 3],
        "enhancing tumor": [3],
    }
    assert (described["numTraining"], described["file_ending"]) == (3, ".nii.gz")
    # Regions drawn over one another in this order give the codes back, as nnU-Net does it.
    drawn = np.zeros_like(OURS)
    regions = list(described["labels"].values())[1:]
    for codes, code in zip(regions, described["regions_class_order"], strict=True):
        drawn[np.isin(OURS, codes)] = code
    np.testing.assert_array_equal(drawn, OURS)
    assert json.loads((out / "splits_final.json").read_text(encoding="utf-8")) == [
        {"train": ["übung_2_b", "übung_2_a"], "val": ["007"]},
        {"train": ["007"], "val": ["übung_2_b", "übung_2_a"]},
    ]
    assert sorted(path.name for path in (out / "labelsTr").iterdir()) == [
        "007.nii.gz",
        "übung_2_a.nii.gz",
        "übung_2_b.nii.gz",
    ]


def test_bids_describes_itself(cohort, tmp_path):
    out = tmp_path / "out"
    export_cohort(cohort, layout="bids", out=out)
    described = json.loads((out / "dataset_description.json").read_text(encoding="utf-8"))
    assert (described["DatasetType"], described["Name"]) == ("derivative", "out")
    assert (out / "desc-tumor_dseg.tsv").read_text(encoding="utf-8").splitlines() == [
        "index\tname\tabbreviation",
        "0\tbackground\tBG",
        "1\tnecrotic and non-enhancing tumor core\tNCR",
        "2\tedema\tED",
        "3\tenhancing tumor\tET",
    ]
    # What a patient's exams do not agree on is not the patient's.
    assert (out / "participants.tsv").read_text(encoding="utf-8").splitlines() == [
        "participant_id\tage\tsex\tsite\tidh\tgrade",
        "sub-bung2\tn/a\tn/a\tn/a\tmutant\tn/a",
        "sub-007\tn/a\tfemale\tn/a\tn/a\tn/a",
        "sub-BraTSGLI00000\tn/a\tn/a\tn/a\tn/a\tn/a",
    ]
    told = json.loads((out / "T1w.json").read_text(encoding="utf-8"))
    assert told == {"SkullStripped": True}
    export_cohort(cohort, layout="bids", out=out, with_skull=True)
    assert not json.loads((out / "FLAIR.json").read_text(encoding="utf-8"))["SkullStripped"]
    with pytest.raises(UserError, match="--with-skull"):
        export_cohort(cohort, layout="monai", out=tmp_path / "other", with_skull=True)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_resection_cavity_keeps_its_code(cohort, tmp_path, layout):
    label = OURS.copy()
    label[1:3, 1:3, 1:3] = 4
    save(cohort.parent / "0" / "seg.nii.gz", label, AFFINE)
    change(cohort, 0, label_convention="brats2024")
    export_cohort(cohort, layout=layout, out=tmp_path / "out")
    row = ingest_back(tmp_path / "out", layout)[0]
    assert row.label_convention == "brats2024"
    assert set(np.unique(read_row(row, tmp_path).label)) == {0, 1, 2, 3, 4}
    if layout == "brats2023":
        assert row.seg is not None
        assert row.seg.endswith("-100-seg.nii.gz")


def test_codes_beside_numbered_channels_are_not_guessed(cohort, tmp_path):
    """Converters to nnU-Net's names differ in which of 1 and 2 is oedema."""
    folder = cohort.parent / "2"
    numbered = {name: f"2/007_{number:04}.nii.gz" for number, name in enumerate(SEQUENCES)}
    for name, path in numbered.items():
        (folder / f"{name}.nii.gz").rename(cohort.parent / path)
    change(cohort, 2, label_convention=None, **numbered)
    done = export_cohort(cohort, layout="brats2023", out=tmp_path / "out")
    (refused,) = done.refused
    assert refused.startswith("007: ")
    assert "1 = " in refused
    assert "ambiguous" in refused


def test_masks_whose_codes_stay_are_copied_bit_for_bit(cohort, tmp_path):
    export_cohort(cohort, layout="brats2023", out=tmp_path / "out")
    rows = read_manifest(tmp_path / "out" / COMPANION)
    same = [
        (tmp_path / "out" / row.seg).read_bytes()
        == (cohort.parent / f"{number}" / "seg.nii.gz").read_bytes()
        for number, row in enumerate(rows)
        if row.seg
    ]
    assert same == [False, False, True]


@pytest.mark.parametrize("layout", ["nnunet", "monai"])
def test_cases_that_lack_a_channel(cohort, tmp_path, layout):
    change(cohort, 1, t1n=None)
    done = export_cohort(cohort, layout=layout, out=tmp_path / "out")
    assert [text.split(":")[0] for text in done.refused] == ["übung 2 a"]
    assert "has no t1n" in done.refused[0]
    assert [row.case_id for row in ingest_back(tmp_path / "out", layout)] == [
        "übung 2 b",
        "007",
        "BraTS-GLI-00000-001",
    ]
    with pytest.raises(UserError, match="has no t1n"):
        export_cohort(cohort, layout=layout, out=tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict").exists()

    filled = tmp_path / "filled"
    export_cohort(cohort, layout=layout, out=filled, fill_missing=True)
    rows = ingest_back(filled, layout)
    assert set(rows[1].images) == {"t1c", "t2w", "t2f"}
    name = "imagesTr/übung_2_a_0000" if layout == "nnunet" else "übung_2_a/übung_2_a_t1n"
    zeros = nib.load(filled / f"{name}.nii.gz")
    assert not np.asanyarray(zeros.dataobj).any()
    np.testing.assert_array_equal(zeros.affine, AFFINE)
    assert zeros.shape == OURS.shape


def test_a_sequence_that_no_case_has_is_no_channel(cohort, tmp_path):
    for number in range(4):
        change(cohort, number, t1n=None, t2w=None)
    export_cohort(cohort, layout="nnunet", out=tmp_path / "out")
    described = json.loads((tmp_path / "out" / "dataset.json").read_text(encoding="utf-8"))
    assert described["channel_names"] == {"0": "t1c", "1": "t2f"}


@pytest.mark.parametrize("layout", ["brats2023", "bids"])
def test_layouts_that_leave_absent_sequences_out(cohort, tmp_path, layout):
    change(cohort, 1, t1n=None, t2w=None)
    with pytest.raises(UserError, match="--fill-missing"):
        export_cohort(cohort, layout=layout, out=tmp_path / "out", fill_missing=True)
    export_cohort(cohort, layout=layout, out=tmp_path / "out")
    assert set(ingest_back(tmp_path / "out", layout)[1].images) == {"t1c", "t2f"}


def test_an_unlabelled_case_for_training_is_refused_by_nnunet(cohort, tmp_path):
    change(cohort, 3, split="train")
    done = export_cohort(cohort, layout="nnunet", out=tmp_path / "out")
    assert "BraTS-GLI-00000-001: split train without a mask" in done.refused[0]
    change(cohort, 3, split=None)
    export_cohort(cohort, layout="nnunet", out=tmp_path / "again")
    assert (tmp_path / "again" / "imagesTs" / "BraTS-GLI-00000-001_0000.nii.gz").is_file()


def test_uncompressed_files_are_compressed_where_the_layout_wants_it(cohort, tmp_path):
    packed = cohort.parent / "0" / "t1n.nii.gz"
    plain = packed.with_suffix("")
    plain.write_bytes(gzip.decompress(packed.read_bytes()))
    change(cohort, 0, t1n="0/t1n.nii")
    export_cohort(cohort, layout="nnunet", out=tmp_path / "out")
    target = tmp_path / "out" / "imagesTr" / "übung_2_b_0000.nii.gz"
    assert gzip.decompress(target.read_bytes()) == plain.read_bytes()
    export_cohort(cohort, layout="bids", out=tmp_path / "bids")
    (kept,) = (tmp_path / "bids").rglob("*after_T1w.nii")
    assert kept.read_bytes() == plain.read_bytes()


def test_names_that_would_fall_together_stay_apart(cohort, tmp_path):
    change(cohort, 0, case_id="a b")
    change(cohort, 1, case_id="a_b")
    change(cohort, 2, case_id="A_b")
    export_cohort(cohort, layout="nnunet", out=tmp_path / "out")
    assert {path.name for path in (tmp_path / "out" / "labelsTr").iterdir()} == {
        "a_b.nii.gz",
        "a_bx2.nii.gz",
        "A_bx3.nii.gz",
    }
    assert [row.case_id for row in ingest_back(tmp_path / "out", "nnunet")][:3] == [
        "a b",
        "a_b",
        "A_b",
    ]


def test_real_cases_there_and_back(real_data, tmp_path):
    """The codes of a real mask survive the way through each layout."""
    found = find_cases(real_data / "brats18", "brats2021", options=Options())
    write_manifest(tmp_path / "cohort.csv", found.rows[:1])
    (row,) = found.rows[:1]
    assert row.seg is not None
    expected = convert_labels(read_mask(row.seg)[0], "brats2021", "")
    assert set(np.unique(expected)) == {0, 1, 2, 3}
    for layout in LAYOUTS:
        export_cohort(tmp_path / "cohort.csv", layout=layout, out=tmp_path / layout)
        (back,) = ingest_back(tmp_path / layout, layout)
        assert back.seg is not None
        assert back.label_convention is not None
        label = convert_labels(read_mask(back.seg)[0], back.label_convention, "")
        np.testing.assert_array_equal(label, expected)
        assert back.case_id == row.case_id
