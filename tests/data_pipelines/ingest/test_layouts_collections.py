"""Layouts of challenges and collections: files, ids, time points, conventions of each case."""

from tests.data_pipelines.ingest.layout_trees import (
    find,
    names,
    plant,
    plant_brats2021,
    plant_brats2023,
)


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
    assert (first.timepoint, second.timepoint, first.site) == ("1", "2", "TCGA-02")
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
