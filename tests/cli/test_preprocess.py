"""`gmmas preprocess` and `gmmas predict --preprocess`: options, refusals, masks on native grids."""

import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from gmmas_jax.cli import main
from gmmas_jax.cli.native_exams import write_native
from gmmas_jax.errors import UserError

ATLAS = np.diag([2.0, 2.0, 2.0, 1.0])
NATIVE = {
    "t1c": ((20, 18, 8), np.array([[-1, 0, 0, 19], [0, 1, 0, 0], [0, 0, 5, 0], [0, 0, 0, 1.0]])),
    "t2f": ((9, 30, 21), np.array([[0, 0, -1, 20], [0, 1, 0, 1], [4, 0, 0, 2], [0, 0, 0, 1.0]])),
}


def preprocessed(root: Path) -> tuple[Path, Path]:
    """A predicted case and its record: the atlas grid lies straight on the head."""
    case, out = root / "case", root / "out"
    case.mkdir()
    out.mkdir()
    sequences = {}
    for name, (shape, affine) in NATIVE.items():
        path = root / f"{name}.nii.gz"
        image = nib.Nifti1Image(np.random.default_rng(0).normal(size=shape), affine)
        image.set_qform(affine, code=1)
        image.set_sform(affine, code=2)
        nib.save(image, path)
        sequences[name] = {
            "source": str(path),
            "grid": {"shape": shape, "affine": affine.tolist()},
            "matrix": np.eye(4).tolist(),
        }
    shape = (12, 12, 20)
    record = {"grid": {"shape": shape, "affine": ATLAS.tolist()}, "sequences": sequences}
    (case / "preprocess.json").write_text(json.dumps(record))
    mask = np.zeros(shape, np.uint8)
    mask[3:8, 2:7, 4:12] = 2
    nib.save(nib.Nifti1Image(mask, ATLAS), out / "seg.nii.gz")
    return case, out


def test_masks_have_exactly_the_grid_of_each_native_file(tmp_path: Path):
    case, out = preprocessed(tmp_path)
    assert [path.name for path in write_native(out, case)] == ["t1c_seg.nii.gz", "t2f_seg.nii.gz"]
    source = nib.load(out / "seg.nii.gz")
    inside = np.argwhere(np.asarray(source.dataobj))
    middle = nib.affines.apply_affine(ATLAS, inside.mean(0))
    for name, (shape, affine) in NATIVE.items():
        native, mask = (
            nib.load(tmp_path / f"{name}.nii.gz"),
            nib.load(out / f"native/{name}_seg.nii.gz"),
        )
        assert mask.shape == shape
        assert mask.affine.tobytes() == native.affine.tobytes()
        assert mask.get_data_dtype() == np.uint8
        codes = np.asarray(mask.dataobj)
        assert set(np.unique(codes)) == {0, 2}
        found = nib.affines.apply_affine(affine, np.argwhere(codes).mean(0))
        np.testing.assert_allclose(found, middle, atol=1.5)


def test_a_native_file_that_changed_is_refused(tmp_path: Path):
    case, out = preprocessed(tmp_path)
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4)), np.eye(4)), tmp_path / "t2f.nii.gz")
    with pytest.raises(UserError, match=r"t2f.nii.gz: \(4, 4, 4\) voxels; expected"):
        write_native(out, case)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--workers", "0"], "--workers is 0"),
        (["--max-memory", "much"], "'much' is no size"),
        (["--fit", "elastic"], "expected one of rigid, affine"),
        (["--reference", "pd"], "reference is 'pd'"),
        (["--spacing", "0"], "spacing is 0 mm"),
        (["--atlas", "nowhere.nii.gz"], "nowhere.nii.gz: no such file"),
    ],
)
def test_wrong_options_are_told(options: list[str], said: str, tmp_path: Path, capsys):
    (tmp_path / "cohort.csv").write_text("case_id,t1c\na,a.nii.gz\n")
    words = ["preprocess", str(tmp_path / "cohort.csv"), "--out", str(tmp_path / "out"), *options]
    assert main(words) == 2
    assert said in capsys.readouterr().err


def test_without_simpleitk_both_verbs_say_so(monkeypatch, tmp_path: Path, capsys):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    out = str(tmp_path / "out")
    assert main(["preprocess", "cohort.csv", "--out", out]) == 2
    assert "needs SimpleITK" in capsys.readouterr().err
    words = ["predict", str(tmp_path), "--weights", "w", "--out", out, "--preprocess"]
    assert main(words) == 2
    assert "needs SimpleITK" in capsys.readouterr().err
