"""Folder layouts: each case with the right files, ids, time points and label convention."""

import pytest

from gmmas_jax.errors import UserError
from tests.data_pipelines.ingest.layout_trees import (
    find,
    names,
    plant,
    plant_brats2021,
    plant_brats2023,
    plant_nnunet,
)

CHANNELS = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
CONVERTER_LABELS = {
    "background": 0,
    "whole tumor": [1, 2, 3],
    "tumor core": [2, 3],
    "enhancing tumor": [3],
}


def test_brats2023(tmp_path):
    plant_brats2023(tmp_path, "BraTS-GLI-00002-000", "BraTS-GLI-00002-001", below="TrainingData/")
    plant_brats2023(tmp_path, "BraTS-GLI-02063-100", "BraTS-SSA-00007-000", below="more/")
    found = find(tmp_path, "brats2023")
    assert not found.refused
    assert [row.case_id for row in found.rows] == [
        "BraTS-GLI-00002-000",
        "BraTS-GLI-00002-001",
        "BraTS-GLI-02063-100",
        "BraTS-SSA-00007-000",
    ]
    first, second, after, africa = found.rows
    assert first.patient_id == second.patient_id == "BraTS-GLI-00002"
    assert (first.timepoint, second.timepoint) == ("000", "001")
    assert first.label_convention == africa.label_convention == "brats2023"
    assert after.label_convention == "brats2024"
    assert {row.split for row in found.rows} == {None}
    assert names(first, tmp_path) == {
        kind: f"TrainingData/BraTS-GLI-00002-000/BraTS-GLI-00002-000-{kind}.nii.gz"
        for kind in ("t1n", "t1c", "t2w", "t2f", "seg")
    }


def test_the_case_of_letters_in_a_folder_does_not_matter(tmp_path):
    plant(tmp_path, "brats-gli-00001-000/BraTS-GLI-00001-000-t1n.nii.gz")
    found = find(tmp_path, "brats2023")
    assert [row.case_id for row in found.rows] == ["BraTS-GLI-00001-000"]
    assert not found.refused


def test_codes_of_paediatric_masks_are_of_no_convention(tmp_path):
    plant_brats2023(tmp_path, "BraTS-PED-00003-000")
    found = find(tmp_path, "brats2023")
    assert (found.rows[0].seg, found.rows[0].label_convention) == (None, None)
    assert any("mask left out" in note for note in found.notes)
    (row,) = find(tmp_path, "brats2023", label_convention="brats2023").rows
    assert row.seg is not None


def test_brats2021_with_folders_of_grades(tmp_path):
    plant_brats2021(tmp_path, "Brats18_TCIA01_201_1", "Brats18_TCIA01_201_2", below="HGG/")
    plant_brats2021(tmp_path, "BraTS2021_00005", "FeTS2022_00007")
    (tmp_path / "partitioning_1.csv").write_text(
        "Partition_ID,Subject_ID\n17,FeTS2022_00007\n", encoding="utf-8"
    )
    found = find(tmp_path, "brats2021")
    assert not found.refused
    new, first, second, federated = found.rows
    assert first.patient_id == second.patient_id == "Brats18_TCIA01_201"
    assert (first.timepoint, second.timepoint, first.site) == ("1", "2", "TCIA01")
    assert (new.patient_id, new.timepoint, new.site) == ("BraTS2021_00005", None, None)
    assert federated.site == "17"
    assert {row.label_convention for row in found.rows} == {"brats2021"}
    assert {row.grade for row in found.rows} == {None}
    assert names(first, tmp_path) == {
        kind: f"HGG/Brats18_TCIA01_201_1/Brats18_TCIA01_201_1_{name}.nii.gz"
        for kind, name in zip(
            ("t1n", "t1c", "t2w", "t2f", "seg"), ("t1", "t1ce", "t2", "flair", "seg"), strict=True
        )
    }


def test_masks_with_strange_names(tmp_path):
    """One mask of BraTS 2020 is named by a date; the TCGA collections have a program's name."""
    plant_brats2021(tmp_path, "BraTS20_Training_355")
    (tmp_path / "BraTS20_Training_355" / "BraTS20_Training_355_seg.nii.gz").unlink()
    plant(tmp_path, "BraTS20_Training_355/W39_1998.09.19_Segm.nii")
    stem = "TCGA-02-0006_1996.08.23"
    plant(tmp_path, *(f"{stem}/{stem}_{n}.nii.gz" for n in ("t1", "t1Gd", "t2", "flair")))
    plant(tmp_path, f"{stem}/{stem}_GlistrBoost.nii.gz")
    plant(tmp_path, f"{stem}/{stem}_GlistrBoost_ManuallyCorrected.nii.gz")
    found = find(tmp_path, "brats2021")
    challenge, tcga = found.rows
    assert names(challenge, tmp_path)["seg"] == "BraTS20_Training_355/W39_1998.09.19_Segm.nii"
    assert any("W39_1998.09.19_Segm.nii" in note for note in found.notes)
    assert tcga.seg is not None
    assert tcga.seg.endswith("_ManuallyCorrected.nii.gz")
    assert (tcga.patient_id, tcga.timepoint) == ("TCGA-02-0006", "1996.08.23")
    assert set(tcga.images) == {"t1n", "t1c", "t2w", "t2f"}


@pytest.mark.parametrize(
    ("labels", "convention"),
    [
        (CONVERTER_LABELS, "nnunet_brats21"),
        ({"background": 0, "edema": 1, "non-enhancing tumor": 2, "ET": 3}, "nnunet_brats21"),
        ({"background": 0, "NCR": 1, "Oedema": 2, "enhancing tumour": 3}, "brats2023"),
        ({"background": 0, "NETC": 1, "SNFH": 2, "ET": 3, "RC": 4}, "brats2024"),
        ({"background": 0, "tumor": 1}, None),
        ({}, None),
    ],
)
def test_nnunet_labels_tell_the_convention(tmp_path, labels, convention):
    plant_nnunet(tmp_path, {"a_b": "Tr", "c": "Ts"}, {"channel_names": CHANNELS, "labels": labels})
    found = find(tmp_path, "nnunet")
    train, test = found.rows
    assert (train.case_id, train.split, train.label_convention) == ("a_b", "train", convention)
    assert (test.case_id, test.split, test.label_convention) == ("c", "test", None)
    assert names(train, tmp_path) == {
        "t2f": "imagesTr/a_b_0000.nii.gz",
        "t1n": "imagesTr/a_b_0001.nii.gz",
        "t1c": "imagesTr/a_b_0002.nii.gz",
        "t2w": "imagesTr/a_b_0003.nii.gz",
        "seg": "labelsTr/a_b.nii.gz",
    }
    assert any("label convention not known" in note for note in found.notes) == (convention is None)


def test_nnunet_order_is_never_guessed(tmp_path):
    plant_nnunet(tmp_path, {"a": "Tr"})
    with pytest.raises(UserError, match="never guessed"):
        find(tmp_path, "nnunet")
    (row,) = find(tmp_path, "nnunet", channel_order=("t2f", "t1n", "t1c", "t2w")).rows
    assert names(row, tmp_path)["t2f"] == "imagesTr/a_0000.nii.gz"
    plant_nnunet(tmp_path, {"a": "Tr"}, {"channel_names": CHANNELS})
    with pytest.raises(UserError, match="declared were t1n, t1c, t2w, t2f"):
        find(tmp_path, "nnunet", channel_order=("t1n", "t1c", "t2w", "t2f"))
    plant_nnunet(tmp_path, {"a": "Tr"}, {"channel_names": {"0": "T1", "1": "t1w"}})
    with pytest.raises(UserError, match="tell one sequence twice"):
        find(tmp_path, "nnunet")


def test_a_channel_too_many_costs_its_case_only(tmp_path):
    plant_nnunet(tmp_path, {"a": "Tr", "b": "Tr"}, {"channel_names": CHANNELS})
    plant(tmp_path, "imagesTr/a_0004.nii.gz")
    found = find(tmp_path, "nnunet")
    assert [row.case_id for row in found.rows] == ["b"]
    assert "a_0004.nii.gz: no such channel" in found.refused[0]


def test_nnunet_files_that_are_listed(tmp_path):
    plant(tmp_path, *(f"elsewhere/{n}.nii.gz" for n in range(4)), "elsewhere/mask.nii.gz")
    dataset = {
        "a": {
            "images": [f"elsewhere/{n}.nii.gz" for n in range(4)],
            "label": "elsewhere/mask.nii.gz",
        },
        "b": {"images": ["../x_0000.nii.gz"], "label": None},
        "c": {"images": "elsewhere/0.nii.gz"},
        "d": {"images": ["elsewhere/0.nii.gz"] * 5},
    }
    plant_nnunet(
        tmp_path, {"kept out": "Tr", "t": "Ts"}, {"channel_names": CHANNELS, "dataset": dataset}
    )
    found = find(tmp_path, "nnunet")
    train, test = found.rows
    assert (train.case_id, train.split, test.case_id) == ("a", "train", "t")
    assert names(train, tmp_path) == {
        "t2f": "elsewhere/0.nii.gz",
        "t1n": "elsewhere/1.nii.gz",
        "t1c": "elsewhere/2.nii.gz",
        "t2w": "elsewhere/3.nii.gz",
        "seg": "elsewhere/mask.nii.gz",
    }
    for expected in ("dataset, b: '../x_0000.nii.gz' leads out", "dataset, c: ", "d: 5 images"):
        assert any(expected in text for text in found.refused), expected
    assert len(found.refused) == 3


def test_strangers_among_numbered_files(tmp_path):
    plant_nnunet(tmp_path, {"a": "Tr"}, {"channel_names": CHANNELS})
    plant(tmp_path, "imagesTr/four_d.nii.gz", "labelsTr/nobody.nii.gz")
    found = find(tmp_path, "nnunet")
    assert [row.case_id for row in found.rows] == ["a"]
    assert found.refused[0].startswith("four_d: ")
    assert any("1 masks without images were left alone (nobody)" in note for note in found.notes)


def test_bids_raw(tmp_path):
    plant(tmp_path, "dataset_description.json")
    for session in ("01", "02"):
        stem = f"sub-x/ses-{session}/anat/sub-x_ses-{session}"
        plant(
            tmp_path,
            *(f"{stem}_{e}.nii.gz" for e in ("T1w", "ce-gadolinium_T1w", "T2w", "FLAIR")),
            f"{stem}_desc-aseg_dseg.nii.gz",
        )
    plant(tmp_path, "sub-y/anat/sub-y_T1w.nii.gz", "sub-y/func/sub-y_task-rest_bold.nii.gz")
    plant(tmp_path, "sub-z/func/sub-z_task-rest_bold.nii.gz")
    (tmp_path / "participants.tsv").write_text(
        "participant_id\tage\tsex\nsub-x\t61\tM\nsub-y\tn/a\tn/a\n", encoding="utf-8"
    )
    found = find(tmp_path, "bids")
    first, second, other = found.rows
    assert first.case_id == "sub-x_ses-01"
    assert first.patient_id == second.patient_id == "sub-x"
    assert (first.timepoint, first.age, first.sex) == ("01", 61, "male")
    assert names(first, tmp_path) == {
        "t1n": "sub-x/ses-01/anat/sub-x_ses-01_T1w.nii.gz",
        "t1c": "sub-x/ses-01/anat/sub-x_ses-01_ce-gadolinium_T1w.nii.gz",
        "t2w": "sub-x/ses-01/anat/sub-x_ses-01_T2w.nii.gz",
        "t2f": "sub-x/ses-01/anat/sub-x_ses-01_FLAIR.nii.gz",
    }
    assert (other.case_id, other.timepoint, other.age) == ("sub-y", None, None)
    assert [text.split(":")[0] for text in found.refused] == ["sub-z"]


def test_bids_takes_the_space_of_the_mask(tmp_path):
    plant(tmp_path, *(f"sub-x/anat/sub-x_{n}.nii.gz" for n in ("T1w", "FLAIR")))
    below = "derivatives/tumor/sub-x/anat/sub-x_space-SRI24"
    plant(tmp_path, *(f"{below}_{n}.nii.gz" for n in ("T1w", "FLAIR", "dseg")))
    plant(tmp_path, "derivatives/masks/sub-y/anat/sub-y_space-orig_label-tumor_dseg.nii.gz")
    plant(tmp_path, "sub-y/anat/sub-y_T2w.nii.gz")
    (tmp_path / "derivatives" / "tumor" / "dseg.tsv").write_text(
        "index\tname\n1\tnecrotic core\n2\tedema\n4\tenhancing tumor\n", encoding="utf-8"
    )
    found = find(tmp_path, "bids")
    atlas, native = found.rows
    assert set(names(atlas, tmp_path).values()) == {
        f"{below}_{n}.nii.gz" for n in ("T1w", "FLAIR", "dseg")
    }
    assert atlas.label_convention == "brats2021"
    assert names(native, tmp_path)["t2w"] == "sub-y/anat/sub-y_T2w.nii.gz"
    assert native.seg is not None
    assert native.label_convention is None
    for name in ("dseg", "T1w"):
        (tmp_path / f"{below}_{name}.nii.gz").unlink()
    found = find(tmp_path, "bids")
    assert "sub-x: images in several spaces (no space entity, space-SRI24)" in found.refused[0]


def test_ucsf_pdgm(tmp_path):
    kinds = ("T1", "T1_bias", "T1c", "T2", "FLAIR", "SWI", "brain_segmentation")
    for case_id in ("UCSF-PDGM-0004", "UCSF-PDGM-0429_FU003d"):
        stem = f"UCSF-PDGM-v3/{case_id}_nifti/{case_id}"
        plant(tmp_path, *(f"{stem}_{kind}.nii.gz" for kind in kinds))
        plant(tmp_path, f"{stem}_tumor_segmentation.nii.gz")
    (tmp_path / "UCSF-PDGM-v3" / "UCSF-PDGM-0005_nifti").mkdir()
    found = find(tmp_path, "ucsf-pdgm")
    first, follow_up = found.rows
    assert (first.case_id, first.patient_id, first.site) == ("UCSF-PDGM-0004",) * 2 + ("UCSF",)
    assert (follow_up.patient_id, follow_up.timepoint) == ("UCSF-PDGM-0429", "FU003d")
    assert first.label_convention == "brats2021"
    assert names(first, tmp_path)["t1n"].endswith("UCSF-PDGM-0004_T1.nii.gz")
    assert names(first, tmp_path)["seg"].endswith("_tumor_segmentation.nii.gz")
    assert [text.split(":")[0] for text in found.refused] == ["UCSF-PDGM-0005"]


def test_upenn_gbm(tmp_path):
    for case_id in ("UPENN-GBM-00001_11", "UPENN-GBM-00001_21"):
        stem = f"images_structural/{case_id}/{case_id}"
        plant(tmp_path, *(f"{stem}_{kind}.nii.gz" for kind in ("T1", "T1GD", "T2", "FLAIR")))
        plant(
            tmp_path,
            f"images_structural_unstripped/{case_id}/{case_id}_T1_unstripped.nii.gz",
            f"automated_segm/{case_id}_automated_approx_segm.nii.gz",
        )
    plant(tmp_path, "images_segm/UPENN-GBM-00001_11_segm.nii.gz")
    found = find(tmp_path, "upenn-gbm")
    assert not found.refused
    before, after = found.rows
    assert before.patient_id == after.patient_id == "UPENN-GBM-00001"
    assert (before.timepoint, after.timepoint) == ("11", "21")
    assert names(before, tmp_path)["seg"] == "images_segm/UPENN-GBM-00001_11_segm.nii.gz"
    assert names(after, tmp_path)["seg"].startswith("automated_segm/")
    assert any("UPENN-GBM-00001_21: the mask is the automated one" in n for n in found.notes)
    assert set(before.images) == {"t1n", "t1c", "t2w", "t2f"}


def test_lumiere(tmp_path):
    for week in ("week-000-1", "week-044"):
        folder = f"Imaging/Patient-001/{week}"
        plant(tmp_path, *(f"{folder}/{kind}.nii.gz" for kind in ("T1", "CT1", "T2", "FLAIR")))
        plant(tmp_path, f"{folder}/DeepBraTumIA-segmentation/atlas/segmentation/seg_mask.nii.gz")
    plant(tmp_path, "Imaging/Patient-002/week-001/readme.txt")
    found = find(tmp_path, "lumiere")
    first, second = found.rows
    assert first.case_id == "Patient-001_week-000-1"
    assert first.patient_id == second.patient_id == "Patient-001"
    assert (second.timepoint, second.seg) == ("week-044", None)
    assert names(second, tmp_path)["t1c"] == "Imaging/Patient-001/week-044/CT1.nii.gz"
    assert "DeepBraTumIA" in found.notes[-1]
    assert [text.split(":")[0] for text in found.refused] == ["Patient-002_week-001"]


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
