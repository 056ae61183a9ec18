"""`gmmas build`: what it prints, its exit codes, and what it refuses."""

import dataclasses
import json

import pytest

from data_pipelines.prepared import read_index
from gmmas_jax.cases.manifest import read_manifest, write_manifest
from gmmas_jax.cli import main
from tests.cli.cohorts import write_cohort, write_config


@pytest.fixture
def cohort(tmp_path):
    return write_cohort(tmp_path / "cohort", cases=3)


def build(cohort, tmp_path, *options) -> int:
    words = ["build", str(cohort), "--out", str(tmp_path / "store"), "--whole", "4,4,4"]
    return main([*words, *options])


def test_store_is_built_and_told(cohort, tmp_path, capsys):
    assert build(cohort, tmp_path, "--spacing", "2") == 0
    told = capsys.readouterr()
    assert "3 cases (3 train) in" in told.out
    assert "3 prepared now" in told.out
    assert "build 3/3" in told.err
    index = read_index(tmp_path / "store")
    assert (index.spacing_mm, index.whole) == (2.0, (4, 4, 4))
    assert build(cohort, tmp_path, "--spacing", "2") == 0
    assert "0 prepared now" in capsys.readouterr().out


def test_config_says_spacing_and_whole(cohort, tmp_path):
    words = ["build", str(cohort), "--out", str(tmp_path / "store")]
    assert main([*words, "--config", str(write_config(tmp_path))]) == 0
    index = read_index(tmp_path / "store")
    assert (index.spacing_mm, index.whole) == (1.0, (8, 8, 8))


def test_bad_case_is_named_with_an_exit_code_of_its_own(cohort, tmp_path, capsys):
    (cohort.parent / "case-1" / "t2w.nii.gz").write_bytes(b"no image")
    rows = read_manifest(cohort)
    rows[2] = dataclasses.replace(rows[2], quality="fail")
    write_manifest(cohort, rows)
    with pytest.raises(SystemExit) as ended:
        build(cohort, tmp_path)
    assert ended.value.code == 3
    told = capsys.readouterr()
    assert "1 cases (1 train)" in told.out
    assert "skipped case-1: " in told.err
    assert "1 of 2 cases cannot be used and are not in the store" in told.err
    assert "quality=fail in the manifest: case-2" in told.err
    report = json.loads((tmp_path / "store" / "build.json").read_text())
    assert [entry["case_id"] for entry in report["skipped"]] == ["case-1"]
    assert report["failed_quality"] == ["case-2"]


def test_strict_makes_no_store(cohort, tmp_path, capsys):
    (cohort.parent / "case-1" / "t2w.nii.gz").write_bytes(b"no image")
    assert build(cohort, tmp_path, "--strict") == 2
    assert "gmmas build: error: case-1: " in capsys.readouterr().err
    assert not (tmp_path / "store" / "index.json").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--workers", "0"], "--workers is 0"),
        (["--spacing", "0"], "--spacing is 0.0"),
        (["--whole", "4,4"], "--whole is '4,4'"),
        (["--whole", "a"], "--whole is 'a'"),
        (["--max-memory", "much"], "'much' is no size; expected for example 8G"),
        (["--beam-options=--x"], "--beam-options without --beam"),
        (["--beam", "--beam-options=--x='a"], "No closing quotation"),
    ],
)
def test_bad_options_are_refused(cohort, tmp_path, capsys, options, told):
    assert build(cohort, tmp_path, *options) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_train_refuses_a_store_for_another_config(cohort, tmp_path, capsys):
    assert build(cohort, tmp_path, "--spacing", "2") == 0
    config = write_config(tmp_path)
    words = ["train", "--config", str(config), "--workdir", str(tmp_path / "run")]
    assert main([*words, "--processes", "none", "--store", str(tmp_path / "store")]) == 2
    told = capsys.readouterr().err
    assert "its spacing is 2 mm, data.spacing_mm asks for 1" in told
    assert "its whole volumes have 4x4x4 voxels, data.whole asks for 8x8x8" in told
    assert not (tmp_path / "run").exists()
    assert main([*words, "--store", str(tmp_path / "none")]) == 2
    assert "index.json: missing; expected a store" in capsys.readouterr().err
    assert main([*words, "--store", "a", "--cohort", "b"]) == 2
    assert "not allowed with argument" in capsys.readouterr().err
    assert main(words) == 2
    assert (
        "one of the arguments --store --cohort --generated is required" in capsys.readouterr().err
    )
