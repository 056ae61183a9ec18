"""`gmmas predict cohort.csv --preprocess`: one exam's fault is told and stops no other."""

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from gmmas_jax.cases.manifest import Row, read_manifest, write_manifest
from gmmas_jax.cli import native_exams
from gmmas_jax.cli.native_exams import predict_native_cohort
from gmmas_jax.cli.preprocess import add_preprocessing_options
from gmmas_jax.errors import UserError
from gmmas_jax.inference.predictor import Predictor
from tests.data_pipelines.preprocess.heads import atlas_file, grid, sequence, write
from tests.inference.tiny import head, tiny_predictor

SHAPE = (24, 20, 18)
NATIVE = {"t1c": np.diag([1.0, 1.0, 3.0, 1.0]), "t2f": np.diag([2.0, 1.0, 1.0, 1.0])}
SHAPES = {"t1c": (24, 20, 6), "t2f": (12, 20, 18)}


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return tiny_predictor()


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_preprocessing_options(parser)
    return parser.parse_args(words)


def cohort(root: Path, *names: str) -> Path:
    """Writes exams of two sequences, each on a grid of its own, and their manifest."""
    rows = []
    for name in names:
        files = {}
        for sequence_name, affine in NATIVE.items():
            path = root / "exams" / name / f"{sequence_name}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(head(SHAPES[sequence_name]), affine), path)
            files[sequence_name] = str(path.relative_to(root))
        rows.append(Row(case_id=name, patient_id=name, **files))
    write_manifest(root / "cohort.csv", rows)
    return root / "cohort.csv"


def fake_preprocessing(monkeypatch, *, unreadable=(), spoilt=(), faulty=()):
    """Puts heads on a common grid in the place of what preprocessing writes, in no time.

    `unreadable` cases it names as preprocessing does; of `spoilt` ones it writes a file that cannot
    be read, of `faulty` ones a fault.
    """

    def preprocess(manifest: Path, out: Path, arguments, **_):
        made = []
        for row in read_manifest(manifest):
            if row.case_id in unreadable:
                continue
            folder, files, sequences = out / row.case_id, {}, {}
            folder.mkdir(parents=True, exist_ok=True)
            for seed, (name, affine) in enumerate(NATIVE.items()):
                files[name] = f"{row.case_id}/{row.case_id}-{name}.nii.gz"
                nib.save(nib.Nifti1Image(head(SHAPE, seed=seed), np.eye(4)), out / files[name])
                sequences[name] = {
                    "source": str(manifest.parent / row.images[name]),
                    "grid": {"shape": SHAPES[name], "affine": affine.tolist()},
                    "matrix": np.eye(4).tolist(),
                }
            if row.case_id in spoilt:
                (out / files["t2f"]).write_bytes(b"no image")
            faults = ["300 mL of brain"] if row.case_id in faulty else []
            record = {
                "grid": {"shape": SHAPE, "affine": np.eye(4).tolist()},
                "sequences": sequences,
                "faults": faults,
                "notes": [],
                "volume_scale": 1.0,
            }
            (folder / "preprocess.json").write_text(json.dumps(record))
            made.append(replace(row, **files, quality="fail" if faults else "pass"))
        if made:
            write_manifest(out / "cohort.csv", made)
        if unreadable:
            raise UserError(f"{manifest}: could not be preprocessed: {', '.join(unreadable)}.")
        return out / "cohort.csv"

    monkeypatch.setattr(native_exams, "preprocess_manifest", preprocess)


def test_every_exam_gets_its_masks_on_every_native_grid(
    predictor: Predictor, tmp_path: Path, monkeypatch
):
    fake_preprocessing(monkeypatch, faulty=("b",))
    manifest = cohort(tmp_path, "a", "b")
    folders = predict_native_cohort(manifest, predictor, tmp_path / "out", options())
    assert folders == [tmp_path / "out/a", tmp_path / "out/b"]
    for folder in folders:
        for name, affine in NATIVE.items():
            mask = nib.load(folder / f"native/{name}_seg.nii.gz")
            assert mask.shape == SHAPES[name]
            np.testing.assert_array_equal(mask.affine, affine)
            assert np.asarray(mask.dataobj).any()
    told = [json.loads((folder / "findings.json").read_text())["warnings"] for folder in folders]
    assert not any("preprocessing" in warning for warning in told[0])
    assert "preprocessing: 300 mL of brain" in told[1]


def test_exams_that_fail_before_and_after_are_both_named(
    predictor: Predictor, tmp_path: Path, monkeypatch, capsys
):
    fake_preprocessing(monkeypatch, unreadable=("a",), spoilt=("b",))
    manifest = cohort(tmp_path, "a", "b", "c")
    with pytest.raises(UserError, match=r"preprocessed: a\..*1 of 2 cases.*predicted.*: b\."):
        predict_native_cohort(manifest, predictor, tmp_path / "out", options())
    assert "b-t2f.nii.gz" in capsys.readouterr().err
    assert (tmp_path / "out/c/report.html").is_file()
    assert len(list((tmp_path / "out/c/native").iterdir())) == 2
    assert not (tmp_path / "out/b").exists()


def test_an_earlier_result_does_not_pass_for_that_of_a_call_in_which_all_fail(
    predictor: Predictor, tmp_path: Path, monkeypatch
):
    manifest = cohort(tmp_path, "a")
    fake_preprocessing(monkeypatch)
    predict_native_cohort(manifest, predictor, tmp_path / "out", options())
    shutil.rmtree(tmp_path / "out/a")
    fake_preprocessing(monkeypatch, unreadable=("a",))
    with pytest.raises(UserError, match="could not be preprocessed: a"):
        predict_native_cohort(manifest, predictor, tmp_path / "out", options())
    assert not (tmp_path / "out/a").exists()


def test_mistakes_are_told_before_preprocessing(predictor: Predictor, tmp_path: Path):
    manifest, out = cohort(tmp_path, "a"), tmp_path / "out"
    with pytest.raises(UserError, match="unknown label convention 'brats1999'"):
        predict_native_cohort(manifest, predictor, out, options(), label_convention="brats1999")
    (row,) = read_manifest(manifest)
    write_manifest(manifest, [replace(row, seg="out/a/seg.nii.gz")])
    with pytest.raises(UserError, match="the case's own mask"):
        predict_native_cohort(manifest, predictor, out, options())
    (out / "preprocessed").mkdir(parents=True)
    done = out / "preprocessed/cohort.csv"
    done.write_bytes(manifest.read_bytes())
    with pytest.raises(UserError, match="preprocessed already; expected the manifest of the nat"):
        predict_native_cohort(done, predictor, out, options())
    assert done.is_file()


@pytest.mark.slow
def test_small_heads_go_through_and_a_cut_off_file_is_named(
    predictor: Predictor, tmp_path: Path, capsys
):
    """Real preprocessing, in this process and others, of heads that are stripped already."""
    template = atlas_file(tmp_path / "template.nii.gz")
    grids = {"t1c": grid(), "t2f": grid(shape=(56, 64, 28), spacing=(3.2, 3.2, 6.0), turn=8)}
    rows = []
    for name in ("whole", "cut"):
        files = {}
        for sequence_name, where in grids.items():
            path = tmp_path / name / f"{sequence_name}.nii.gz"
            files[sequence_name] = str(
                write(path, sequence(sequence_name, where, skull=False), where).relative_to(
                    tmp_path
                )
            )
        rows.append(Row(case_id=name, patient_id=name, **files))
    cut = tmp_path / "cut/t2f.nii.gz"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    write_manifest(tmp_path / "cohort.csv", rows)
    words = ("--atlas", str(template), "--spacing", "3")
    with pytest.raises(UserError, match=r"1 of 2 cases could not be preprocessed.*cut"):
        predict_native_cohort(tmp_path / "cohort.csv", predictor, tmp_path / "out", options(*words))
    assert "cut/t2f.nii.gz: the compressed data end early" in capsys.readouterr().err
    for name, where in grids.items():
        mask = nib.load(tmp_path / f"out/whole/native/{name}_seg.nii.gz")
        assert mask.shape == where.shape
        np.testing.assert_allclose(mask.affine, where.affine, atol=1e-5)
        assert np.asarray(mask.dataobj).any()
    assert not (tmp_path / "out/cut").exists()
