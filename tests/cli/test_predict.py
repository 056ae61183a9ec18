"""`gmmas predict` and `gmmas evaluate`: files on the input's own grid, and what they refuse."""

import copy
import csv
import dataclasses
import gzip
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from gmmas_jax.cases.findings import validate_findings
from gmmas_jax.cases.manifest import Row, read_manifest, write_manifest
from gmmas_jax.cli.case_results import predict_cohort, predict_folder
from gmmas_jax.cli.cohort_evaluation import evaluate, short_table
from gmmas_jax.errors import UserError
from gmmas_jax.inference.predictor import Predictor
from tests.inference.tiny import head, tiny_predictor

REAL = Path(__file__).resolve().parents[3] / "shared/data/brats-gli-00001-000"
SEQUENCES = ("t1n", "t1c", "t2w", "t2f")
LPS = np.array([[-1, 0, 0, 90], [0, -1, 0, 126], [0, 0, 1, -72], [0, 0, 0, 1]], float)
RAS = np.array([[1.5, 0, 0, -90], [0, 1, 0, -126], [0, 0, 1, -72], [0, 0, 0, 1]], float)
PERMUTED = np.array([[0, 0, 1.2, -90], [-1, 0, 0, 126], [0, 1, 0, -72], [0, 0, 0, 1]], float)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return tiny_predictor()


def write_case(
    folder: Path, affine: np.ndarray, *, shape: tuple[int, int, int] = (24, 20, 18), seg=False
) -> Path:
    """Writes a case as files; axes as they come, so that the affine alone tells directions."""
    folder.mkdir(parents=True)
    for seed, name in enumerate(SEQUENCES):
        image = nib.Nifti1Image(head(shape, seed=seed), affine)
        nib.save(image, folder / f"case-{name}.nii.gz")
    if seg:
        label = np.zeros(shape, np.uint8)
        label[8:14, 8:14, 8:14] = 2
        label[10:12, 10:12, 10:12] = 3
        label[11, 11, 11] = 1
        nib.save(nib.Nifti1Image(label, affine), folder / "case-seg.nii.gz")
    return folder


@pytest.mark.parametrize("affine", [LPS, RAS, PERMUTED], ids=["LPS", "RAS", "permuted"])
def test_results_lie_on_the_grid_of_the_input(predictor: Predictor, tmp_path: Path, affine):
    source = write_case(tmp_path / "in", affine)
    out = predict_folder(source, predictor, tmp_path / "out", probs=True)
    assert sorted(path.name for path in out.iterdir()) == [
        *("findings.json", "overlay.png", "probabilities.json", "probabilities.nii.gz"),
        *("report.html", "seg.nii.gz"),
    ]
    image = nib.load(source / "case-t1n.nii.gz")
    seg = nib.load(out / "seg.nii.gz")
    assert seg.shape == image.shape
    assert seg.affine.tobytes() == image.affine.tobytes()
    assert seg.get_data_dtype() == np.uint8
    codes = np.asarray(seg.dataobj)
    assert set(np.unique(codes)) <= {0, 1, 2, 3}
    assert codes.any()
    # Half a voxel of the network's 2 mm may stand out beyond the brain.
    near = ndimage.binary_dilation(head(image.shape) > 0, iterations=2)
    assert not codes[~near].any()
    probabilities = nib.load(out / "probabilities.nii.gz")
    assert probabilities.get_data_dtype() == np.float32
    np.testing.assert_array_equal(probabilities.affine, image.affine)
    values = np.asarray(probabilities.dataobj)
    assert values.shape == (*image.shape, 4)
    np.testing.assert_allclose(values.sum(axis=-1), 1, atol=2e-3)
    agreeing = values.argmax(axis=-1) == codes
    assert agreeing.mean() > 0.999  # But for ties of half precision.
    names = json.loads((out / "probabilities.json").read_text())
    assert names == {"volumes": ["background", "NCR", "ED", "ET"]}
    assert (out / "overlay.png").read_bytes().startswith(b"\x89PNG")


def test_a_permuted_case_gives_the_same_mask_permuted(predictor: Predictor, tmp_path: Path):
    """The same head, written in two axis orders: a voxel keeps its label wherever it is stored."""
    first = write_case(tmp_path / "a", np.eye(4))
    second = tmp_path / "b"
    second.mkdir()
    # Axes (i, j, k) of the second file run along -y, +z, +x of the first.
    affine = np.array([[0, 0, 1, 0], [-1, 0, 0, 19], [0, 1, 0, 0], [0, 0, 0, 1]], float)
    for path in first.iterdir():
        array = np.transpose(np.asarray(nib.load(path).dataobj)[:, ::-1], (1, 2, 0))
        nib.save(nib.Nifti1Image(array, affine), second / path.name)
    masks = []
    for name in (first, second):
        out = predict_folder(name, predictor, tmp_path / f"out-{name.name}")
        masks.append(np.asarray(nib.load(out / "seg.nii.gz").dataobj))
    np.testing.assert_array_equal(np.transpose(masks[0][:, ::-1], (1, 2, 0)), masks[1])


def test_findings_are_valid_and_name_the_model(predictor: Predictor, tmp_path: Path):
    source = write_case(tmp_path / "in", RAS)
    (source / "case-t1c.nii.gz").unlink()
    out = predict_folder(source, predictor, tmp_path / "out")
    findings = json.loads((out / "findings.json").read_text())
    validate_findings(findings)
    assert findings["case"] == "case"
    assert findings["model"]["config"] == "tiny"
    assert findings["sequences"]["missing"] == ["t1c"]
    assert any(warning.startswith("t1c is missing") for warning in findings["warnings"])
    voxels = np.count_nonzero(np.asarray(nib.load(out / "seg.nii.gz").dataobj))
    assert findings["volumes_ml"]["regions"]["WT"] == pytest.approx(voxels * 1.5 / 1000, abs=1e-3)
    assert "<html" in (out / "report.html").read_text()


def test_codes_of_another_convention(predictor: Predictor, tmp_path: Path):
    source = write_case(tmp_path / "in", RAS)
    ours = predict_folder(source, predictor, tmp_path / "ours")
    legacy = predict_folder(source, predictor, tmp_path / "legacy", label_convention="brats2021")
    before, after = (np.asarray(nib.load(f / "seg.nii.gz").dataobj) for f in (ours, legacy))
    assert (before == 3).any()
    np.testing.assert_array_equal(after, np.where(before == 3, 4, before))
    with pytest.raises(UserError, match="unknown label convention 'brats1999'"):
        predict_folder(source, predictor, tmp_path / "none", label_convention="brats1999")
    assert not (tmp_path / "none").exists()


def test_the_same_case_twice_gives_the_same_bytes(predictor: Predictor, tmp_path: Path):
    source = write_case(tmp_path / "in", LPS)
    one, two = (predict_folder(source, predictor, tmp_path / name) for name in ("one", "two"))
    for name in ("seg.nii.gz", "overlay.png"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_a_cohort_gets_a_folder_for_each_case(predictor: Predictor, tmp_path: Path, capsys):
    manifest = cohort(tmp_path, count=3)
    (tmp_path / "case1" / "case-t2w.nii.gz").write_bytes(gzip.compress(b"no image"))
    with pytest.raises(UserError, match=r"1 of 3 cases could not be predicted.*case1"):
        predict_cohort(manifest, predictor, tmp_path / "out")
    assert "case-t2w.nii.gz" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["case0", "case2"]
    assert (tmp_path / "out/case2/report.html").exists()


def test_a_case_id_cannot_lead_out_of_the_output_folder(predictor: Predictor, tmp_path: Path):
    write_case(tmp_path / "in", RAS)
    images = {name: f"in/case-{name}.nii.gz" for name in SEQUENCES}
    row = Row(case_id="../escaped", patient_id="p", **images)
    write_manifest(tmp_path / "cohort.csv", [row])
    with pytest.raises(UserError, match="cannot be the name of a folder"):
        predict_cohort(tmp_path / "cohort.csv", predictor, tmp_path / "out")
    assert not (tmp_path / "escaped").exists()


def test_a_mask_of_the_input_is_never_overwritten(predictor: Predictor, tmp_path: Path):
    manifest = cohort(tmp_path, count=1)
    (tmp_path / "case0/case-seg.nii.gz").rename(tmp_path / "case0/seg.nii.gz")
    (row,) = read_manifest(manifest)
    write_manifest(manifest, [dataclasses.replace(row, seg="case0/seg.nii.gz")])
    before = (tmp_path / "case0/seg.nii.gz").read_bytes()
    for action in (
        lambda: predict_folder(tmp_path / "case0", predictor, tmp_path / "case0"),
        lambda: predict_cohort(manifest, predictor, tmp_path),
    ):
        with pytest.raises(UserError, match=r"seg.nii.gz: the case's own mask.* another --out"):
            action()
    assert (tmp_path / "case0/seg.nii.gz").read_bytes() == before


def test_an_unwritable_output_folder_is_told_before_work(predictor: Predictor, tmp_path: Path):
    source = write_case(tmp_path / "in", RAS)
    blocked = tmp_path / "blocked"
    blocked.write_text("a file, no folder")
    for action in (
        lambda: predict_folder(source, predictor, blocked),
        lambda: evaluate(predictor, cohort(tmp_path, count=1), blocked),
    ):
        with pytest.raises(UserError, match="blocked: cannot be written"):
            action()
    if os.geteuid() != 0:
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
        with pytest.raises(UserError, match="cannot be written"):
            predict_folder(source, predictor, locked)


def cohort(root: Path, *, count: int) -> Path:
    rows = []
    for index in range(count):
        name = f"case{index}"
        if not (root / name).exists():
            write_case(root / name, LPS, seg=True)
        files = {s: f"{name}/case-{s}.nii.gz" for s in (*SEQUENCES, "seg")}
        row = Row(
            case_id=name,
            patient_id=name,
            label_convention="brats2023",
            idh=("wildtype", "mutant")[index % 2],
            split="test",
            **files,
        )
        rows.append(row)
    write_manifest(root / "cohort.csv", rows)
    return root / "cohort.csv"


def test_evaluation_writes_metrics_cases_and_report(predictor: Predictor, tmp_path: Path):
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1, "kind": "train", "loss": 2.0}\n')
    metrics = evaluate(predictor, cohort(tmp_path, count=2), tmp_path / "out", log=log)
    assert json.loads((tmp_path / "out/metrics.json").read_text()) == metrics
    assert metrics["n"] == 2
    assert set(metrics["regions"]) == {"WT", "TC", "ET"}
    assert len(metrics["subsets"]) == 15
    assert all(row["n"] == 2 for row in metrics["subsets"].values())
    assert metrics["tasks"]["idh"]["n"] == 2
    assert metrics["tasks"]["histology"]["n"] == 0
    assert not metrics["synthetic"]
    with (tmp_path / "out/cases.csv").open() as file:
        assert [row["case_id"] for row in csv.DictReader(file)] == ["case0", "case1"]
    page = (tmp_path / "out/report.html").read_text()
    assert page.count("data:image/png") >= 3
    assert "WT" in short_table(metrics)


def test_subsets_can_be_measured_on_the_first_cases(predictor: Predictor, tmp_path: Path):
    manifest = cohort(tmp_path, count=2)
    metrics = evaluate(predictor, manifest, tmp_path / "out", subset_cases=1)
    first = evaluate(predictor, cohort(tmp_path / "first", count=1), tmp_path / "first/out")
    assert metrics["n"] == 2
    assert metrics["subsets"] == first["subsets"]


def test_a_case_that_cannot_be_read_does_not_lose_the_others(predictor, tmp_path: Path, capsys):
    manifest = cohort(tmp_path, count=3)
    (tmp_path / "case1/case-t2w.nii.gz").write_bytes(b"\x1f\x8b broken")
    with pytest.raises(UserError, match=r"1 of 3 cases could not be .*: case1\."):
        evaluate(predictor, manifest, tmp_path / "out", subset_cases=0)
    assert "case1: " in capsys.readouterr().err
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert (metrics["n"], metrics["failed"]) == (2, ["case1"])
    assert (tmp_path / "out/report.html").exists()


def test_a_cohort_without_masks_and_labels_is_told_before_work(predictor, tmp_path: Path):
    manifest = cohort(tmp_path, count=2)
    rows = [dataclasses.replace(row, seg=None, idh=None) for row in read_manifest(manifest)]
    write_manifest(manifest, rows)
    with pytest.raises(UserError, match=r"none of 2 cases has a mask or a label of idh"):
        evaluate(predictor, manifest, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tumour_outlined_as_a_whole_is_measured_as_a_whole_in_every_subset(predictor, tmp_path):
    manifest = cohort(tmp_path, count=1)
    path = tmp_path / "case0/case-seg.nii.gz"
    mask = nib.load(path)
    nib.save(nib.Nifti1Image((np.asarray(mask.dataobj) > 0).astype(np.uint8), mask.affine), path)
    rows = [dataclasses.replace(row, label_convention="lesion") for row in read_manifest(manifest)]
    write_manifest(manifest, rows)
    metrics = evaluate(predictor, manifest, tmp_path / "out")
    assert set(metrics["regions"]) == {"WT"}
    assert [set(row["dice"]) for row in metrics["subsets"].values()] == [{"WT"}] * 15


def test_a_negative_number_of_subset_cases_is_told(predictor: Predictor, tmp_path: Path):
    with pytest.raises(UserError, match="--subset-cases is -1; expected at least 0"):
        evaluate(predictor, tmp_path / "cohort.csv", tmp_path / "out", subset_cases=-1)


def test_evaluation_scores_the_written_mask(predictor: Predictor, tmp_path: Path):
    """The number in the table is that of the file that predict writes, on the same grid."""
    manifest = cohort(tmp_path, count=1)
    metrics = evaluate(predictor, manifest, tmp_path / "out", subset_cases=0)
    predict_cohort(manifest, predictor, tmp_path / "predicted")
    mask = np.asarray(nib.load(tmp_path / "predicted/case0/seg.nii.gz").dataobj) > 0
    truth = np.asarray(nib.load(tmp_path / "case0/case-seg.nii.gz").dataobj) > 0
    dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
    assert metrics["regions"]["WT"]["dice"]["mean"] == pytest.approx(dice)
    assert metrics["subsets"] == {}


def test_cases_of_failed_quality_are_left_out_by_name(predictor: Predictor, tmp_path, capsys):
    manifest = cohort(tmp_path, count=2)
    rows = [
        dataclasses.replace(row, quality=quality)
        for row, quality in zip(read_manifest(manifest), ("fail", "pass"), strict=True)
    ]
    write_manifest(manifest, rows)
    metrics = evaluate(predictor, manifest, tmp_path / "out", subset_cases=0)
    assert metrics["n"] == 1
    assert "left out, quality=fail in the manifest: case0" in capsys.readouterr().err
    write_manifest(manifest, [dataclasses.replace(row, quality="fail") for row in rows])
    with pytest.raises(UserError, match="every case has quality=fail"):
        evaluate(predictor, manifest, tmp_path / "none", subset_cases=0)


def test_a_split_without_cases_is_told(predictor: Predictor, tmp_path: Path):
    with pytest.raises(UserError, match="no case has split 'val'; found: test 1"):
        evaluate(predictor, cohort(tmp_path, count=1), tmp_path / "out", split="val")
    assert not (tmp_path / "out").exists()


def test_a_log_that_is_not_there_is_told_before_work(predictor: Predictor, tmp_path: Path):
    with pytest.raises(UserError, match=r"nowhere\.jsonl: no such file"):
        evaluate(
            predictor, cohort(tmp_path, count=1), tmp_path / "out", log=tmp_path / "nowhere.jsonl"
        )


@pytest.mark.skipif(not REAL.is_dir(), reason="the real cases are not here")
def test_a_real_case(predictor: Predictor, tmp_path: Path):
    coarse = tiny_coarse(predictor)
    out = predict_folder(REAL, coarse, tmp_path / "out")
    image = nib.load(next(REAL.glob("*-t1n.nii.gz")))
    seg = nib.load(out / "seg.nii.gz")
    assert seg.shape == image.shape == (240, 240, 155)
    assert seg.affine.tobytes() == image.affine.tobytes()
    assert set(np.unique(np.asarray(seg.dataobj))) <= {0, 1, 2, 3}
    findings = json.loads((out / "findings.json").read_text())
    assert findings["case"] == "BraTS-GLI-00001-000"


def tiny_coarse(predictor: Predictor) -> Predictor:
    """Returns the predictor at 8 mm without overlap: a real brain then takes few tiny windows."""
    other = copy.copy(predictor)
    other.spacing_mm = 8.0
    other.settings = dataclasses.replace(predictor.settings, overlap=0.0)
    return other
