"""One case: its files, and its mask."""

import pickle
import tracemalloc
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from data_pipelines.check import exam as exam_module
from data_pipelines.check.exam import ExamTask, check_exam
from data_pipelines.check.mask import reduce_mask
from data_pipelines.nifti import read_grid
from data_pipelines.nifti_header import FileError
from gmmas_jax.cases.manifest import Row
from tests.data_pipelines.check.heads import AFFINE, SHAPE, make_head, save, write_case

ANY = {"geometry.thick_slices"}


@pytest.fixture(name="row")
def _row(tmp_path):
    return write_case(tmp_path, "case", 7)


def found(row, root):
    return {finding.code for finding in check_exam(ExamTask(row, root)).findings} - ANY


def test_a_clean_case(row, tmp_path):
    exam = check_exam(ExamTask(row, tmp_path))
    assert {finding.code for finding in exam.findings} == ANY
    assert list(exam.images) == ["t1n", "t1c", "t2w", "t2f"]
    assert exam.brain_ml == pytest.approx(1404, abs=5)
    assert exam.mask.convention == "brats2023"
    label = np.asarray(nib.load(tmp_path / row.seg).dataobj)
    assert exam.mask.volumes_ml["ED"] == pytest.approx((label == 2).sum() * 0.064)
    assert exam.mask.exposed[2] > exam.mask.exposed[3] >= exam.mask.exposed[1]


def test_only_what_is_compared_comes_back_from_a_worker(row, tmp_path):
    assert len(pickle.dumps(check_exam(ExamTask(row, tmp_path)))) < 10_000
    exam = check_exam(ExamTask(row, tmp_path, images_only=True))
    assert (exam.findings, exam.mask) == ([], None)
    assert len(exam.images) == 4


def test_an_exam_is_checked_within_the_memory_of_three_of_its_images(tmp_path):
    shape = (128, 128, 128)
    image = np.zeros(shape, np.float32)
    image[20:100, 20:100, 20:100] = np.random.default_rng(0).normal(100, 9, (80, 80, 80))
    mask = (image > 110).astype(np.uint8)
    for name, array in {"t1n": image, "t2w": image**2, "seg": mask}.items():
        nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / f"{name}.nii.gz")
    big = Row(case_id="big", patient_id="big", t1n="t1n.nii.gz", t2w="t2w.nii.gz", seg="seg.nii.gz")
    tracemalloc.start()
    exam = check_exam(ExamTask(big, tmp_path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert exam.mask is not None
    assert peak < 3 * 4 * np.prod(shape)


def test_no_voxels_are_kept_of_the_image_before(row, tmp_path, monkeypatch):
    import weakref

    alive = []

    def reduce_volume(array, grid):
        assert sum(reference() is not None for reference in alive) == 0
        alive.append(weakref.ref(array))
        return original(array, grid)

    original = exam_module.reduce_volume
    monkeypatch.setattr(exam_module, "reduce_volume", reduce_volume)
    assert found(row, tmp_path) == set()
    assert len(alive) == 4


def test_the_order_of_bytes_and_axes_does_not_matter(row, tmp_path):
    path = tmp_path / row.t1c
    array = np.asarray(nib.load(path).dataobj)
    turned = AFFINE[:, [2, 0, 1, 3]]
    image = nib.Nifti1Image(np.transpose(array, (2, 0, 1)).astype(">i2"), turned)
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    image = nib.Nifti1Image(np.transpose(array, (2, 0, 1)), turned, header)
    image.set_qform(turned, code=1)
    nib.save(image, path)
    assert found(row, tmp_path) == set()


def test_a_folder_and_a_singular_affine(row, tmp_path):
    (tmp_path / "folder.nii.gz").mkdir()
    assert found(replace(row, t1c="folder.nii.gz"), tmp_path) == {"file.unreadable"}
    content = bytearray(nib.Nifti1Image(np.ones(SHAPE, np.int16), AFFINE).to_bytes())
    content[280:328] = bytes(48)
    (tmp_path / "flat.nii").write_bytes(content)
    assert found(replace(row, t1c="flat.nii"), tmp_path) == {"geometry.affine"}


def test_absolute_paths_and_dots_within_the_folder_are_fine(row, tmp_path):
    fine = replace(row, t1n=str(tmp_path / row.t1n), t2w=f"other/../{row.t2w}")
    (tmp_path / "other").mkdir()
    assert found(fine, tmp_path) == set()


def test_two_faults_of_one_case_are_both_told(row, tmp_path):
    (tmp_path / row.t1n).unlink()
    (tmp_path / row.t2f).write_bytes(b"")
    exam = check_exam(ExamTask(row, tmp_path))
    codes = [(f.code, f.file) for f in exam.findings if f.code not in ANY]
    assert codes == [("file.missing", row.t1n), ("file.truncated", row.t2f)]
    missing = exam.findings[0]
    assert (missing.found, missing.expected) == ("no such file", "a NIfTI file")
    assert str(tmp_path) not in missing.found + missing.remedy


def test_a_mask_without_images(row, tmp_path):
    alone = Row(case_id="x", patient_id="x", seg=row.seg, label_convention="brats2023")
    assert found(alone, tmp_path) == {"case.no_sequence"}


def test_a_mask_of_another_shape(row, tmp_path):
    save(tmp_path / row.seg, np.asarray(nib.load(tmp_path / row.seg).dataobj)[:-1])
    assert found(row, tmp_path) == {"geometry.label_differs"}


def _corner(shape):
    array = np.zeros(shape, np.float32)
    array[-1, -1, -1] = 1
    return array


@pytest.mark.parametrize(
    ("make", "spacing"),
    [
        (lambda n: _corner((2, 2, 2)) + n, 1.0),
        (lambda n: (n + 1) * _corner((13, 13, 13)), 1.0),
        (lambda n: np.float32(3e38) / (n + 1) * (make_head(n)[0]["t1n"] > 0), 4.0),
        (lambda n: -(n + 1) * make_head(n)[0]["t1n"], 4.0),
        (lambda n: np.float32(n + 1) * (make_head(0)[0]["t1n"] > 0), 4.0),
        (lambda n: 1e-30 * (n + 1) * make_head(n)[0]["t1n"], 4.0),
    ],
    ids=["tiny", "corner", "huge", "negative", "binary", "faint"],
)
def test_odd_images_are_judged_without_a_crash(tmp_path, make, spacing):
    affine = np.diag([spacing, spacing, spacing, 1.0])
    files = {}
    for number, name in enumerate(("t1n", "t1c", "t2w", "t2f")):
        save(tmp_path / f"{name}.nii.gz", make(number).astype(np.float32), affine)
        files[name] = f"{name}.nii.gz"
    exam = check_exam(ExamTask(Row(case_id="x", patient_id="x", **files), tmp_path))
    assert len(exam.images) == 4
    assert all(np.isfinite(image.signature).all() for image in exam.images.values())


def test_numbered_files_make_a_convention_ambiguous(row, tmp_path):
    numbered = tmp_path / "x_0000.nii.gz"
    (tmp_path / row.t1n).rename(numbered)
    undeclared = replace(row, t1n=numbered.name, label_convention=None)
    assert found(undeclared, tmp_path) == {"label.ambiguous"}


def judged(array, convention="brats2023", brain=None):
    mask, findings = reduce_mask(
        array,
        voxel_ml=0.5,
        convention=convention,
        numbered_channels=False,
        brain=brain,
        case_id="c",
        source="seg.nii.gz",
    )
    return mask, [finding.code for finding in findings]


def box(*, shape=(9, 9, 9), **codes):
    array = np.zeros(shape, np.uint8)
    for name, extent in codes.items():
        array[tuple(slice(4 - extent, 5 + extent) for _ in range(3))] = int(name[1:])
    return array


def test_masks():
    whole = box(_2=3, _3=2, _1=1)
    mask, codes = judged(whole)
    assert codes == []
    assert mask.values == (1, 2, 3)
    assert mask.volumes_ml == {"NCR": 13.5, "ED": 109.0, "ET": 49.0}
    assert mask.exposed == pytest.approx({1: 0, 2: 294 / (294 + 150), 3: 0})
    assert judged(box())[1] == ["label.empty"]
    assert judged(box(_2=0))[1] == ["label.tiny"]
    assert judged(box(_3=2))[1] == ["label.enhancing_alone"]
    assert judged(whole * 0.5)[1] == ["label.values"]
    assert judged(whole.astype(np.int16) - 1)[1] == ["label.values"]
    assert judged(whole * np.float32(0.9999))[1] == ["label.rounded"]
    assert judged(whole.astype(np.float64))[1] == []
    assert judged(whole, "brats2021")[1] == ["label.unknown_code"]
    assert judged(whole, None)[1] == ["label.inferred"]
    assert judged(box(_2=2, _4=1), None)[1] == ["label.ambiguous"]
    assert judged(box(_2=2, _9=1), None)[1] == ["label.unknown_code"]


def test_a_mask_outside_of_the_brain():
    whole = box(_2=3)
    brain = np.ones(whole.shape, bool)
    assert judged(whole, brain=brain)[1] == []
    brain[:, :, 1] = False
    assert judged(whole, brain=brain)[1] == ["label.outside_brain"]
    few = np.ones(whole.shape, bool)
    few[1, 1, 1] = False
    assert judged(whole, brain=few)[1] == []


def test_shape_of_a_header(tmp_path):
    path = save(tmp_path / "a.nii.gz", np.zeros((3, 4, 5), np.int16))
    assert read_grid(path).shape == (3, 4, 5)
    with pytest.raises(FileError) as caught:
        read_grid(tmp_path / "b.nii.gz")
    assert caught.value.kind == "file.missing"
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert (str(again), again.kind) == (str(caught.value), "file.missing")
