"""Every bad input of a cohort gets exit code 2 and one clear line, through the command line."""

import gzip
import json

import numpy as np
import pytest

from gmmas_jax.cli import main
from tests.cli.cohorts import SHAPE, head, save, write_cohort, write_config


def _refusal(tmp_path, capsys, *, cohort, options=(), workdir="work"):
    """Runs `gmmas train` and returns its one line of complaint."""
    config = write_config(tmp_path)
    words = ["train", "--config", str(config), "--cohort", str(cohort), "--processes", "none"]
    code = main([*words, "--workdir", str(tmp_path / workdir), *options])
    lines = capsys.readouterr().err.splitlines()
    assert code == 2
    complaint = [line for line in lines if not line.startswith("prepare ")]
    assert len(complaint) == 1, complaint
    assert complaint[0].startswith("gmmas train: error: ")
    return complaint[0]


def _with(tmp_path, name, write):
    """Makes a cohort and replaces a file of its first case; returns the manifest and the file."""
    cohort = write_cohort(tmp_path / "cohort")
    path = tmp_path / "cohort" / "case-0" / name
    write(path)
    return cohort, path


def _image(value, **changes):
    def write(path):
        image = head(0)
        image[5, 5, 5] = value
        save(path, changes.get("array", image), changes.get("affine"))

    return write


def _truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _not_gzip(path):
    path.write_bytes(gzip.decompress(path.read_bytes()))


def _promise_too_much(path):
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[42:48] = np.array([8000, 8000, 8000], "<i2").tobytes()
    path.write_bytes(gzip.compress(bytes(content)))


def _labels(*values):
    def write(path):
        label = np.zeros(SHAPE, np.uint8)
        label[5, 5, 5 : 5 + len(values)] = values
        save(path, label)

    return write


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("t1c.nii.gz", _image(np.nan), "1 voxels are NaN"),
        ("t1c.nii.gz", _image(np.inf), "1 infinite"),
        ("t1c.nii.gz", _image(0, array=np.zeros(SHAPE, np.float32)), "every voxel is zero"),
        ("t1c.nii.gz", _image(0, array=np.ones((*SHAPE, 2), np.float32)), "4"),
        ("t1c.nii.gz", _truncate, "end early or are damaged"),
        ("t1c.nii.gz", _not_gzip, "the content is no gzip data"),
        ("t1c.nii.gz", _promise_too_much, "8000"),
        ("t1c.nii.gz", _image(1, affine=np.diag([2.0, 1, 1, 1])), "not on the grid of"),
        ("seg.nii.gz", _labels(1, 7), "7"),
    ],
    ids=["nan", "inf", "zero", "4d", "truncated", "no-gzip", "too-large", "grids", "label"],
)
def test_bad_file(tmp_path, capsys, name, write, message):
    cohort, path = _with(tmp_path, name, write)
    line = _refusal(tmp_path, capsys, cohort=cohort)
    assert message in line
    assert str(path) in line


def test_singleton_axis_is_no_mistake(tmp_path):
    from data_pipelines.nifti import read_volume

    path = save(tmp_path / "t1c.nii.gz", head(0)[..., None])
    assert read_volume(path)[0].shape == SHAPE


def test_ambiguous_labels(tmp_path, capsys):
    cohort = write_cohort(tmp_path / "cohort", label_convention=None)
    _labels(1, 4)(tmp_path / "cohort" / "case-0" / "seg.nii.gz")
    line = _refusal(tmp_path, capsys, cohort=cohort)
    assert "seg.nii.gz" in line
    assert "brats2024" in line


def test_same_file_under_two_sequences(tmp_path, capsys):
    cohort = write_cohort(tmp_path / "cohort", t2w="case-0/t1c.nii.gz")
    assert "given as t1c and as t2w" in _refusal(tmp_path, capsys, cohort=cohort)


def test_no_sequence_at_all(tmp_path, capsys):
    absent = dict.fromkeys(("t1n", "t1c", "t2w", "t2f"))
    cohort = write_cohort(tmp_path / "cohort", **absent)
    assert "case-0: no sequence given" in _refusal(tmp_path, capsys, cohort=cohort)


def test_no_training_case(tmp_path, capsys):
    cohort = write_cohort(tmp_path / "cohort", cases=1, split="test")
    assert "no row has split train" in _refusal(tmp_path, capsys, cohort=cohort)


def test_no_manifest(tmp_path, capsys):
    line = _refusal(tmp_path, capsys, cohort=tmp_path / "none.csv")
    assert "none.csv: cannot be read" in line


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--config.train.stepz=3", "no field train.stepz. Did you mean train.steps?"),
        ("--config.train.steps=none", "train.steps is 'none'; expected a whole number"),
        ("--config.train.steps=0", "train.steps is 0; expected at least 1"),
        ("--config.augment.noise=2", "augment.noise is 2.0; expected a number from 0 to below 1"),
        ("--config.objective.tasks=idh,mgmt", "the network has heads for"),
    ],
)
def test_config_field(tmp_path, capsys, option, message):
    cohort = write_cohort(tmp_path / "cohort", cases=1)
    assert message in _refusal(tmp_path, capsys, cohort=cohort, options=[option])


def test_unknown_config(tmp_path, capsys):
    code = main(
        ["train", "--config", "gmmas_mimi.py", "--cohort", "c.csv", "--workdir", str(tmp_path)]
    )
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "Did you mean gmmas_mini.py?" in line


def test_unwritable_output_folder(tmp_path, capsys):
    """A file where the folder should be: refused for every user, the super-user too."""
    cohort = write_cohort(tmp_path / "cohort", cases=1)
    (tmp_path / "file").write_text("")
    line = _refusal(tmp_path, capsys, cohort=cohort, workdir="file/work")
    assert "cannot be written" in line
    code = main(["synth", "--out", str(tmp_path / "file" / "x"), "--patients", "1"])
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be written" in line


@pytest.mark.parametrize("name", ["patient", "longer than a name may be" * 20])
def test_a_case_that_is_not_there_is_told_before_weights_are_loaded(name, tmp_path, capsys):
    code = main(["predict", str(tmp_path / name), "--out", str(tmp_path / "out")])
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}/{name}: is not there; expected the folder of one case" in line


def test_weights_of_another_config(tmp_path, capsys):
    from gmmas_jax.config import load_config, to_dict
    from gmmas_jax.export.weights import save_weights

    config = to_dict(load_config(str(write_config(tmp_path))))
    params = {"encoder": {"kernel": np.zeros((3, 3), np.float32)}}
    save_weights(tmp_path / "weights", params, {}, config, "card")
    assert json.loads((tmp_path / "weights" / "config.json").read_text())["name"] == "tiny"
    (tmp_path / "case").mkdir()
    weights, out = str(tmp_path / "weights"), str(tmp_path / "out")
    code = main(["predict", str(tmp_path / "case"), "--weights", weights, "--out", out])
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the weights are those of another network" in line
