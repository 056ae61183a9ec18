"""From files to a case."""

import os
import shutil

import nibabel as nib
import numpy as np
import pytest

from data_pipelines.case_files import find_files
from data_pipelines.nifti import write_volume
from data_pipelines.readers import read_case, read_folder, read_row
from gmmas_jax.cases.case import Grid
from gmmas_jax.cases.geometry import from_canonical
from gmmas_jax.cases.manifest import Row, read_manifest, write_manifest
from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.errors import UserError

SHAPE = (6, 7, 5)
LPS = Grid(SHAPE, np.diag([-1.0, -1.0, 1.0, 1.0]))
RAS = Grid(SHAPE, np.array([[1.0, 0, 0, -5], [0, 1, 0, -6], [0, 0, 1, 0], [0, 0, 0, 1]]))
MSD = ("t2f", "t1n", "t1c", "t2w")


def image(path, seed=0, grid=LPS):
    array = np.random.default_rng(seed).integers(1, 1000, SHAPE)
    array[0] = 0
    array[:, :2] = 0
    write_volume(path, array, grid, dtype=np.int16)
    return path


def mask(path, values=(0, 1, 2, 3), grid=LPS):
    array = np.zeros(SHAPE, np.uint8)
    array[2:, 3, :] = np.resize(values, (4, 5))
    write_volume(path, array, grid, dtype=np.uint8)
    return path


def folder(tmp_path, *names):
    for seed, name in enumerate(names):
        image(tmp_path / name, seed)
    return tmp_path


def refusal(call, *arguments, **keywords):
    with pytest.raises(UserError) as caught:
        call(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("names", "case_id", "found"),
    [
        (
            ["B_1_t1.nii.gz", "B_1_t1ce.nii.gz", "B_1_t2.nii.gz", "B_1_flair.nii.gz"],
            "B_1",
            "t1n t1c t2w t2f",
        ),
        (
            ["BraTS-GLI-00001-000-t1n.nii.gz", "BraTS-GLI-00001-000-t2f.nii.gz"],
            "BraTS-GLI-00001-000",
            "t1n t2f",
        ),
        (["T1.nii", "CT1.nii.gz", "FLAIR.nii.gz"], None, "t1n t1c t2f"),
        (["x_T1GD.nii.gz", "x_T1GD_bias.nii.gz", "x_ADC.nii.gz"], "x", "t1c"),
        (["x_t2_flair.nii.gz", "x_t1_ce.nii.gz", "x_t2.nii.gz"], "x", "t1c t2w t2f"),
        (["p_C_T1.nii.gz"], "p_C", "t1n"),
        (
            ["sub-1_ce-gadolinium_T1w.nii.gz", "sub-1_T1w.nii.gz", "sub-1_FLAIR.nii.gz"],
            "sub-1",
            "t1n t1c t2f",
        ),
        (["01-t2w.nii.gz", ".01-t1c.nii.gz"], "01", "t2w"),
    ],
)
def test_names_tell_the_sequences(tmp_path, names, case_id, found):
    for name in names:
        (tmp_path / name).touch()
    files = find_files(tmp_path)
    assert files.case_id == (case_id or tmp_path.name)
    assert list(files.images) == found.split()
    assert files.seg is None


@pytest.mark.parametrize(
    ("name", "is_seg"),
    [
        ("x_seg.nii.gz", True),
        ("x_tumor_segmentation.nii.gz", True),
        ("x_brain_segmentation.nii.gz", False),
        ("x_brain_mask.nii.gz", False),
    ],
)
def test_the_tumours_mask_is_not_the_brains(tmp_path, name, is_seg):
    for file in ("x_t1.nii.gz", name):
        (tmp_path / file).touch()
    files = find_files(tmp_path)
    assert files.seg == (tmp_path / name if is_seg else None)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], ["no NIfTI file", "t1n.nii.gz"]),
        (["adc.nii.gz", "notes.txt"], ["no sequence found", "adc.nii.gz"]),
        (["x_seg.nii.gz"], ["no sequence found"]),
        (["x_t1c.nii.gz", "x_t1ce.nii.gz"], ["two files for t1c", "x_t1ce.nii.gz"]),
        (["x_t1.nii", "x_t1.nii.gz"], ["two files for t1n"]),
        (["B_0000.nii", "B_0000.nii.gz"], ["two files for channel 0", "B_0000.nii.gz"]),
        (["B-1-t1n.nii.gz", "B-10-t1c.nii.gz"], ["more than one case", "'B-1'", "'B-10'"]),
        (
            ["B_001_0000.nii.gz", "B_001_0001.nii.gz"],
            ["B_001_0000.nii.gz", "order of channels must be declared", "t2f, t1n, t1c, t2w"],
        ),
    ],
)
def test_folders_that_do_not_tell_are_refused(tmp_path, names, words):
    for name in names:
        (tmp_path / name).touch()
    message = refusal(find_files, tmp_path)
    for word in [str(tmp_path), *words]:
        assert word in message


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    assert "No such file" in refusal(find_files, tmp_path / "nowhere")
    (tmp_path / "file").touch()
    assert "folder of one case" in refusal(find_files, tmp_path / "file")


def test_numbered_channels_follow_the_declared_order(tmp_path):
    names = [f"B_001_{number:04}.nii.gz" for number in range(4)]
    images = tmp_path / "imagesTr"
    images.mkdir()
    folder(images, *names)
    (tmp_path / "labelsTr").mkdir()
    mask(tmp_path / "labelsTr" / "B_001.nii.gz")
    for place in (tmp_path, images):
        files = find_files(place, channel_order=MSD)
        assert files.case_id == "B_001"
        assert {name: path.name for name, path in files.images.items()} == {
            "t1n": names[1],
            "t1c": names[2],
            "t2w": names[3],
            "t2f": names[0],
        }
        assert files.seg == tmp_path.resolve() / "labelsTr" / "B_001.nii.gz"
    assert find_files(images, channel_order=("FLAIR", "T1", "T1Gd", "T2")).images.keys() == set(
        SEQUENCES
    )
    for order in [("t2f", "t1n"), ("t2f", "t1n", "t1c", "t1c"), ("t2f", "t1n", "t1c", "adc")]:
        assert "does not fit" in refusal(find_files, images, channel_order=order)
    message = refusal(read_folder, tmp_path, channel_order=MSD)
    assert "1 = ED" in message
    assert "1 = NCR" in message
    case = read_folder(tmp_path, channel_order=MSD, label_convention="msd")
    assert case.label_convention == "msd"
    image(images / "B_002_0000.nii.gz")
    assert "2 cases" in refusal(find_files, images, channel_order=MSD)


def test_a_case_is_read_into_ras_and_can_go_back(tmp_path):
    case_folder = folder(tmp_path, "x_t1.nii.gz", "x_flair.nii.gz")
    mask(tmp_path / "x_seg.nii.gz", (0, 1, 2))
    case = read_folder(case_folder)
    assert case.case_id == "x"
    assert list(case.images) == ["t1n", "t2f"]
    np.testing.assert_array_equal(case.grid.affine, RAS.affine)
    np.testing.assert_array_equal(case.source_grid.affine, LPS.affine)
    stored = np.asarray(nib.load(tmp_path / "x_flair.nii.gz").dataobj)
    np.testing.assert_array_equal(case.images["t2f"], stored[::-1, ::-1])
    assert case.images["t2f"].dtype == np.float32
    assert case.label.dtype == np.uint8
    stored = np.asarray(nib.load(tmp_path / "x_seg.nii.gz").dataobj)
    np.testing.assert_array_equal(from_canonical(case.label, case.source_grid), stored)
    assert case.warnings == ["x_seg.nii.gz: label convention taken to be brats2023"]


def test_files_of_one_grid_in_two_orientations_belong_together(tmp_path):
    image(tmp_path / "t1.nii.gz", 1)
    array = np.asarray(nib.load(tmp_path / "t1.nii.gz").dataobj)[::-1, ::-1] + 5
    write_volume(tmp_path / "t2.nii.gz", array, RAS, dtype=np.int16)
    case = read_folder(tmp_path)
    np.testing.assert_array_equal(case.images["t2w"], case.images["t1n"] + 5)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Grid(SHAPE, np.diag([-1.0, -1.0, 2.0, 1.0])), ["1x1x2 mm", "1x1x1 mm", "4 mm apart"]),
        (Grid(SHAPE, LPS.affine + np.eye(4, k=3) * 0.5), ["0.5 mm apart", "at most 0.1 mm"]),
    ],
)
def test_another_grid_is_refused_and_both_are_named(tmp_path, other, words):
    first = image(tmp_path / "t1.nii.gz", 1)
    second = image(tmp_path / "t2.nii.gz", 2, other)
    label = mask(tmp_path / "seg.nii.gz", grid=other)
    for message in (
        refusal(read_case, {"t1n": first, "t2w": second}, case_id="x"),
        refusal(read_case, {"t1n": first}, seg=label, case_id="x"),
    ):
        for word in [str(first), "axes LPS", "Co-register", *words]:
            assert word in message


def test_another_shape_is_refused(tmp_path):
    first = image(tmp_path / "t1.nii.gz", 1)
    write_volume(
        tmp_path / "t2.nii.gz",
        np.arange(6 * 7 * 4).reshape(6, 7, 4),
        Grid((6, 7, 4), LPS.affine),
        dtype=np.int16,
    )
    message = refusal(read_case, {"t1n": first, "t2w": tmp_path / "t2.nii.gz"}, case_id="x")
    assert "6x7x4" in message
    assert "6x7x5" in message


def test_a_shift_below_the_tolerance_is_accepted(tmp_path):
    first = image(tmp_path / "t1.nii.gz", 1)
    near = Grid(SHAPE, LPS.affine + np.eye(4, k=3) * 0.05)
    second = image(tmp_path / "t2.nii.gz", 2, near)
    assert len(read_case({"t1n": first, "t2w": second}, case_id="x").images) == 2


@pytest.mark.parametrize("how", ["path", "link", "hard link", "copy", "recompressed"])
def test_one_file_under_two_sequences_is_refused(tmp_path, how):
    first, second = image(tmp_path / "t1.nii.gz", 1), tmp_path / "t1c.nii.gz"
    if how == "path":
        second = tmp_path / ".." / tmp_path.name / "t1.nii.gz"
    elif how == "link":
        second.symlink_to(first)
    elif how == "hard link":
        os.link(first, second)
    elif how == "copy":
        shutil.copy(first, second)
    else:
        second = tmp_path / "t1c.nii"
        write_volume(second, np.asarray(nib.load(first).dataobj), LPS, dtype=np.float32)
    message = refusal(read_case, {"t1n": first, "t1c": second}, case_id="x")
    for word in ("t1n", "t1c", str(first)):
        assert word in message


def test_sequences_must_be_known_and_at_least_one(tmp_path):
    path = image(tmp_path / "a.nii.gz")
    assert "no sequence" in refusal(read_case, {}, case_id="x")
    assert "'adc' is unknown" in refusal(read_case, {"adc": path}, case_id="x")
    assert "second file for t2f" in refusal(read_case, {"t2f": path, "flair": path}, case_id="x")
    missing = tmp_path / "b.nii.gz"
    assert "no such file" in refusal(read_case, {"t1": path, "t2": missing}, case_id="x")
    assert list(read_case({"FLAIR": path}, case_id="x").images) == ["t2f"]


@pytest.mark.parametrize(
    ("values", "convention", "words"),
    [
        ((0, 1, 2, 4), None, ["ambiguous", "4 = ET", "4 = RC", "Declare"]),
        ((0, 3), "brats2021", ["unknown to the convention 'brats2021'"]),
        ((0, 9), None, ["fit no known convention"]),
    ],
)
def test_unknown_and_ambiguous_labels_are_refused(tmp_path, values, convention, words):
    path, seg = image(tmp_path / "t1.nii.gz"), mask(tmp_path / "seg.nii.gz", values)
    message = refusal(read_case, {"t1": path}, seg=seg, label_convention=convention, case_id="x")
    for word in [str(seg), *words]:
        assert word in message
    assert read_folder(tmp_path, with_label=False).label is None


def test_a_declared_convention_is_used_and_not_noted(tmp_path):
    path, seg = image(tmp_path / "t1.nii.gz"), mask(tmp_path / "seg.nii.gz", (0, 1, 2, 4))
    case = read_case({"t1": path}, seg=seg, label_convention="brats2021", case_id="x")
    assert set(np.unique(case.label)) == {0, 1, 2, 3}
    assert case.warnings == []
    assert case.label_convention == "brats2021"


def test_what_is_odd_is_noted(tmp_path):
    thick = Grid(SHAPE, np.diag([-1.0, -1.0, 5.0, 1.0]))
    full = np.random.default_rng(0).integers(1, 9, SHAPE) * np.where(np.arange(5) < 1, -1, 1)
    write_volume(tmp_path / "t1.nii.gz", full, thick, dtype=np.int16)
    mask(tmp_path / "seg.nii.gz", (0,), thick)
    case = read_folder(tmp_path)
    text = "; ".join(case.warnings)
    for word in ("slices of 5.0 mm", "skull-stripped", "20% of the voxels", "no voxel is labelled"):
        assert word in text
    image(tmp_path / "t1.nii.gz", 0, thick)
    array = np.zeros(SHAPE, np.uint8)
    array[0, 0, :3] = 2
    write_volume(tmp_path / "seg.nii.gz", array, thick, dtype=np.uint8)
    assert "3 labelled voxels lie where every" in "; ".join(read_folder(tmp_path).warnings)


def test_a_row_of_the_manifest_is_read_relative_to_it(tmp_path):
    image(tmp_path / "cases" / "a" / "t1 ä.nii.gz")
    mask(tmp_path / "cases" / "a" / "seg.nii.gz")
    write_manifest(
        tmp_path / "cohort.csv",
        [
            Row(
                case_id="007",
                patient_id="7",
                t1n="cases/a/t1 ä.nii.gz",
                seg="cases/a/seg.nii.gz",
                label_convention="brats2023",
                idh="mutant",
            )
        ],
    )
    (row,) = read_manifest(tmp_path / "cohort.csv")
    case = read_row(row, tmp_path)
    assert (case.case_id, case.tasks) == ("007", {"idh": "mutant"})
    assert case.label.any()
    assert read_row(row, tmp_path, with_label=False).label is None


def test_tasks_are_checked(tmp_path):
    path = image(tmp_path / "t1.nii.gz")
    case = read_case({"t1": path}, case_id="x", tasks={"idh": "Mutant", "mgmt": ""})
    assert case.tasks == {"idh": "mutant"}
    assert "x: idh is 'nos'" in refusal(read_case, {"t1": path}, case_id="x", tasks={"idh": "nos"})


def test_real_cases_are_read(real_data):
    case = read_folder(real_data / "brats18" / "Brats18_TCIA02_606_1", label_convention="brats2021")
    assert case.case_id == "Brats18_TCIA02_606_1"
    assert list(case.images) == list(SEQUENCES)
    assert case.grid.shape == (240, 240, 155)
    assert set(np.unique(case.label)) == {0, 1, 2, 3}
    assert case.warnings == []
    assert read_folder(real_data / "brats-gli-00001-000").label is None
    case = read_folder(real_data / "msd", channel_order=MSD, label_convention="msd")
    # Oedema is bright on FLAIR and enhancing tumour on T1 with contrast: order and codes hold.
    brain = case.images["t1n"] > 0
    for name, code in (("t2f", 2), ("t1c", 3)):
        values = case.images[name]
        assert values[case.label == code].mean() > 1.5 * values[brain].mean()


@pytest.mark.parametrize("name", ["tcga-fg-6692/raw", "tcga-du-7294/native"])
def test_real_exams_on_several_grids_are_refused(real_data, name):
    message = refusal(read_folder, real_data / name)
    assert message.count("voxels of") == 2
    assert "Co-register" in message
