"""What all folder layouts do: bad cases are named, the rest kept; `auto` only without doubt."""

import pytest

from data_pipelines.ingest import dicom
from data_pipelines.ingest.found import Found
from gmmas_jax.errors import UserError
from tests.data_pipelines.ingest.layout_trees import (
    CHANNELS,
    find,
    plant,
    plant_brats2021,
    plant_brats2023,
    plant_nnunet,
)


def test_folders(tmp_path):
    plant(tmp_path, "train/P7/2019 März/t1.nii.gz", "train/P7/2019 März/seg.nii.gz")
    plant(tmp_path, "train/P7/2020/T2-FLAIR.nii", "P8/t1ce.nii.gz")
    plant(tmp_path, "P9/scan_a_t1.nii.gz", "P9/scan_a_t2.nii.gz", "empty/notes.txt")
    plant(tmp_path, "other/adc.nii.gz", ".hidden/t1.nii.gz", "__MACOSX/._t1.nii.gz")
    plant(tmp_path, "twice/t1.nii.gz", "twice/T1w.nii.gz")
    found = find(tmp_path, "folders")
    ids = {row.case_id: row for row in found.rows}
    assert set(ids) == {"P7_2019 März", "P7_2020", "P8", "scan_a"}
    assert ids["P7_2019 März"].patient_id == ids["P7_2020"].patient_id == "P7"
    assert (ids["P7_2020"].timepoint, ids["P7_2020"].split) == ("2020", "train")
    assert (ids["P8"].patient_id, ids["P8"].timepoint, ids["P8"].split) == ("P8", None, None)
    assert ids["P7_2019 März"].label_convention is None
    assert len(found.refused) == 2
    assert any("two files for t1n" in text for text in found.refused)
    assert any("no sequence found" in text for text in found.refused)


def test_a_case_without_a_sequence_is_named(tmp_path):
    plant_brats2023(tmp_path, "BraTS-GLI-00001-000")
    plant(tmp_path, "BraTS-GLI-00002-000/BraTS-GLI-00002-000-seg.nii.gz")
    (tmp_path / "BraTS-GLI-00003-000").mkdir()
    found = find(tmp_path, "brats2023")
    assert [row.case_id for row in found.rows] == ["BraTS-GLI-00001-000"]
    assert [text.split(":")[0] for text in found.refused] == [
        "BraTS-GLI-00002-000",
        "BraTS-GLI-00003-000",
    ]
    assert all("no sequence found" in text for text in found.refused)


def test_two_files_for_one_sequence_are_named(tmp_path):
    plant_brats2021(tmp_path, "BraTS2021_00001", "BraTS2021_00002")
    plant(tmp_path, "again/BraTS2021_00001_t1ce.nii")
    found = find(tmp_path, "brats2021")
    assert [row.case_id for row in found.rows] == ["BraTS2021_00002"]
    (text,) = found.refused
    assert "BraTS2021_00001: 2 files for t1c" in text
    assert "BraTS2021_00001_t1ce.nii" in text


def test_an_id_that_stands_for_two_cases_is_refused(tmp_path):
    plant(tmp_path, "a/P1/x_t1.nii.gz", "b/P1/x_t1.nii.gz", "b/P2/y_t1.nii.gz")
    found = find(tmp_path, "folders")
    assert [row.case_id for row in found.rows] == ["y"]
    assert "x: found 2 times" in found.refused[0]
    assert "a/P1" in found.refused[0]


def test_links_are_followed_once(tmp_path):
    plant_brats2023(tmp_path / "store", "BraTS-GLI-00001-000")
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    (cohort / "BraTS-GLI-00001-000").symlink_to(tmp_path / "store" / "BraTS-GLI-00001-000")
    (cohort / "loop").symlink_to(cohort)
    found = find(cohort, "brats2023")
    assert [row.case_id for row in found.rows] == ["BraTS-GLI-00001-000"]
    assert not found.refused


def test_a_declared_convention_wins_and_is_told(tmp_path):
    plant_brats2021(tmp_path, "BraTS2021_00001")
    found = find(tmp_path, "brats2021", label_convention="brats2024")
    assert found.rows[0].label_convention == "brats2024"
    assert any("the layout says brats2021" in note for note in found.notes)
    with pytest.raises(UserError, match="--label-convention is 'brats'"):
        find(tmp_path, "brats2021", label_convention="brats")


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("brats2023", "no such file or folder"),
        ("gandlf", "no such file or folder"),
        ("brats1999", "layout 'brats1999' is unknown"),
    ],
)
def test_impossible_sources(tmp_path, layout, message):
    source = tmp_path if layout == "brats1999" else tmp_path / "nothing"
    with pytest.raises(UserError, match=message):
        find(source, layout)


def test_a_folder_is_no_list_and_a_list_no_folder(tmp_path):
    (tmp_path / "list.csv").write_text("SubjectID,Channel_0\n1,a.nii\n", encoding="utf-8")
    with pytest.raises(UserError, match="is a folder; layout gandlf expects a list"):
        find(tmp_path, "gandlf")
    with pytest.raises(UserError, match="is a file; layout bids expects a folder"):
        find(tmp_path / "list.csv", "bids")


def test_auto_takes_what_names_tell_and_says_so(tmp_path):
    made = {
        "brats2023": plant_brats2023(tmp_path / "a", "BraTS-GLI-00001-000", below="x/"),
        "brats2021": plant_brats2021(tmp_path / "b", "BraTS2021_00001"),
        "nnunet": plant_nnunet(tmp_path / "c", {"p": "Tr"}, {"channel_names": CHANNELS}),
        "bids": plant(tmp_path / "d", "sub-1/anat/sub-1_T1w.nii.gz"),
        "ucsf-pdgm": plant(tmp_path / "e", "UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_T1.nii.gz"),
        "upenn-gbm": plant(tmp_path / "f", "s/UPENN-GBM-00001_11/UPENN-GBM-00001_11_T1.nii.gz"),
        "lumiere": plant(tmp_path / "g", "Imaging/Patient-001/week-000/T1.nii.gz"),
        "folders": plant(tmp_path / "h", "p1/t1.nii.gz", "p2/flair.nii.gz"),
    }
    for layout, source in made.items():
        found = find(source, "auto")
        assert found.notes[0].startswith(f"layout {layout}, told by "), layout
        assert found.rows == find(source, layout).rows
        assert found.rows


def test_auto_refuses_what_is_in_doubt(tmp_path):
    plant_brats2023(tmp_path, "BraTS-GLI-00001-000")
    plant_brats2021(tmp_path, "BraTS2021_00001")
    with pytest.raises(UserError, match="expected exactly one known layout"):
        find(tmp_path, "auto")
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="no sign of a layout"):
        find(tmp_path / "none", "auto")
    numbered = plant_nnunet(tmp_path / "numbered", {"a": "Tr"})
    with pytest.raises(UserError, match="msd"):
        find(numbered, "auto")


def test_real_folders(real_data):
    found = find(real_data / "brats18", "auto")
    assert [len(row.images) for row in found.rows] == [4] * 5
    assert {row.label_convention for row in found.rows} == {"brats2021"}
    assert not found.refused
    (row,) = find(real_data / "msd", "msd").rows
    assert row.t2f is not None
    assert row.t2f.endswith("BRATS_001_0000.nii.gz")
    assert (row.label_convention, row.split) == ("msd", "train")
    (row,) = find(real_data / "brats-gli-00001-000", "auto").rows
    assert (row.case_id, row.patient_id) == ("BraTS-GLI-00001-000", "BraTS-GLI-00001")


def test_dicom_gets_what_was_declared(tmp_path, monkeypatch):
    got = {}

    def converted(source, **options):
        got.update(options, source=source)
        return Found(notes=["a series"])

    monkeypatch.setattr(dicom, "ingest_dicom", converted)
    with pytest.raises(UserError, match="--volumes DIR"):
        find(tmp_path, "dicom")
    found = find(tmp_path, "dicom", volumes=tmp_path / "v", workers=3)
    assert found.notes == ["a series"]
    expected = {"source": tmp_path, "volumes": tmp_path / "v", "workers": 3, "on_case": None}
    assert got == expected
