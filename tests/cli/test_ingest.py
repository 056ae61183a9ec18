"""`gmmas ingest` and `gmmas export-cohort` as they are typed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipelines.readers import read_row
from gmmas_jax.cases.manifest import read_manifest
from gmmas_jax.cli import main
from gmmas_jax.errors import SOME_LEFT_OUT
from tests.cli.cohorts import write_cohort
from tests.data_pipelines.ingest.layout_trees import plant, plant_brats2021, plant_brats2023

_BESIDE = Path(__file__).parents[2].parent / "shared" / "data"
_LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))"
_MAIN = "import sys; from gmmas_jax.cli import main; sys.exit(main(sys.argv[1:]))"


def ingest(*words):
    """Returns the exit code."""
    try:
        return main(["ingest", *map(str, words)])
    except SystemExit as stopped:
        return stopped.code


def refusal(capsys, *words):
    """Runs a verb that must refuse, and returns its complaint."""
    assert main([str(word) for word in words]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"gmmas {words[0]}: error: ")
    assert "Traceback" not in told
    return told


def test_manifest_record_and_table(tmp_path, capsys):
    plant_brats2021(tmp_path / "Mein Ordner ü", "BraTS2021_00001", "BraTS2021_00002")
    plant(tmp_path / "Mein Ordner ü", "BraTS2021_00003/BraTS2021_00003_seg.nii.gz")
    out = tmp_path / "cohort.csv"
    assert ingest(tmp_path / "Mein Ordner ü", "--out", out) == SOME_LEFT_OUT
    rows = read_manifest(out)
    assert [row.case_id for row in rows] == ["BraTS2021_00001", "BraTS2021_00002"]
    assert rows[0].t1c == "Mein Ordner ü/BraTS2021_00001/BraTS2021_00001_t1ce.nii.gz"
    record = json.loads((tmp_path / "cohort.ingest.json").read_text(encoding="utf-8"))
    assert (record["format"], record["rows"], record["cohort"]) == (1, 2, "cohort.csv")
    assert record["counts"]["files"] == dict.fromkeys(("t1n", "t1c", "t2w", "t2f", "seg"), 2)
    assert record["notes"] == ["layout brats2021, told by the name BraTS2021_00001"]
    assert record["refused"][0].startswith("BraTS2021_00003: no sequence found")
    told = capsys.readouterr().out
    for line in (
        f"2 cases of 2 patients in {out}",
        "  files       t1n 2, t1c 2, t2w 2, t2f 2, seg 2",
        "  masks       brats2021 2",
        "Refused (1):",
    ):
        assert line in told.splitlines()


def test_paths_are_whole_where_files_lie_elsewhere(tmp_path):
    source = plant_brats2023(tmp_path / "archive", "BraTS-GLI-00001-000")
    assert ingest(source, "--layout", "brats2023", "--out", tmp_path / "work" / "cohort.csv") == 0
    (row,) = read_manifest(tmp_path / "work" / "cohort.csv")
    assert row.t1n == str(source / "BraTS-GLI-00001-000" / "BraTS-GLI-00001-000-t1n.nii.gz")


def test_relative_sources_and_outputs(tmp_path, monkeypatch):
    plant_brats2023(tmp_path / "archive", "BraTS-GLI-00001-000")
    plant(tmp_path / "archive", " leading space/x_t1.nii.gz")
    monkeypatch.chdir(tmp_path)
    assert ingest("archive", "--layout", "folders", "--out", "archive/cohort.csv") == 0
    rows = {row.case_id: row for row in read_manifest("archive/cohort.csv")}
    expected = "BraTS-GLI-00001-000/BraTS-GLI-00001-000-t1n.nii.gz"
    assert rows["BraTS-GLI-00001-000"].t1n == expected
    assert (tmp_path / "archive" / str(rows["x"].t1n)).is_file()


def test_strict_writes_nothing(tmp_path, capsys):
    source = plant_brats2021(tmp_path, "BraTS2021_00001")
    plant(tmp_path, "BraTS2021_00002/BraTS2021_00002_seg.nii.gz")
    out = tmp_path / "cohort.csv"
    told = refusal(capsys, "ingest", source, "--out", out, "--strict")
    assert f"{source}: 1 refused:" in told
    assert "BraTS2021_00002: no sequence found" in told
    assert not out.exists()


def test_clinical_tables_are_joined(tmp_path, capsys):
    for name in ("UCSF-PDGM-0004", "UCSF-PDGM-0005"):
        plant(tmp_path / "scans", f"{name}_nifti/{name}_T1.nii.gz")
    table = tmp_path / "own.csv"
    table.write_text(
        "\ufeffsubject;IDH-Status;age\r\nUCSF-PDGM-0004;mutant;61\r\nother;wildtype;50\r\n",
        encoding="utf-8",
    )
    out = tmp_path / "cohort.csv"
    words = ("--clinical", table, "--clinical-column", "idh=IDH-Status")
    assert ingest(tmp_path / "scans", "--layout", "ucsf-pdgm", "--out", out, *words) == 0
    first, second = read_manifest(out)
    assert (first.idh, first.age, second.idh) == ("mutant", 61, None)
    told = capsys.readouterr().out
    assert "  idh         mutant 1, unknown 1" in told
    record = json.loads((tmp_path / "cohort.ingest.json").read_text(encoding="utf-8"))
    assert record["clinical"][0]["unmatched_entries"] == ["other"]
    told = refusal(capsys, "ingest", tmp_path, "--out", out, "--clinical-column", "idh")
    assert "expected NAME=COLUMN" in told


def test_a_clinical_table_alone(real_tables, tmp_path, capsys):
    out = tmp_path / "cohort.csv"
    assert ingest(real_tables / "UCSF-PDGM-metadata_v2.csv", "--out", out) == 0
    rows = read_manifest(out)
    assert (len(rows), sum(row.idh == "mutant" for row in rows)) == (501, 103)
    assert "  idh         wildtype 398, mutant 103" in capsys.readouterr().out


@pytest.fixture
def real_tables():
    folder = Path(os.environ.get("GMMAS_REAL_DATA", _BESIDE)) / "clinical"
    if not folder.is_dir():
        pytest.skip(f"no real tables: {folder} is not there; set GMMAS_REAL_DATA")
    return folder


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nothing", "--out", "c.csv"), "nothing: no such file or folder"),
        (("empty", "--out", "c.csv"), "no sign of a layout"),
        (("empty", "--layout", "bids", "--out", "c.csv"), "no case found by layout bids"),
        (("empty", "--layout", "nnunet", "--out", "c.csv"), "never guessed"),
        (("empty", "--layout", "x", "--out", "c.csv"), "layout 'x' is unknown"),
        (("empty", "--layout", "dicom", "--out", "c.csv"), "--volumes DIR"),
        (("empty", "--layout", "msd", "--channel-order", "a,b", "--out", "c.csv"), "a, b"),
        (("empty", "--layout", "bids", "--out", "cohort"), "expected the name of a manifest"),
        (("empty", "--layout", "bids", "--out", "c.csv", "--workers", "0"), "--workers is 0"),
        (("empty", "--clinical", "t.csv", "--out", "c.csv"), "t.csv: cannot be read"),
    ],
)
def test_mistakes(tmp_path, monkeypatch, capsys, words, message):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert message in refusal(capsys, "ingest", *words)
    assert os.listdir(tmp_path) == ["empty"]


def test_a_manifest_takes_more_tables_and_another_place(tmp_path):
    cohort = write_cohort(tmp_path / "cohort", cases=3)
    table = tmp_path / "own.csv"
    table.write_text("case_id,mgmt\ncase-1,methylated\n", encoding="utf-8")
    (tmp_path / "cohort" / "case-2" / "seg.nii.gz").unlink()
    assert ingest(cohort, "--clinical", table, "--out", tmp_path / "more.csv") == SOME_LEFT_OUT
    before, after = read_manifest(cohort), read_manifest(tmp_path / "more.csv")
    assert [row.case_id for row in after] == ["case-0", "case-1"]
    assert (after[1].mgmt, after[1].idh, after[1].split) == ("methylated", "mutant", "train")
    assert after[1].label_convention == before[1].label_convention
    assert after[0].t1n == "cohort/case-0/t1n.nii.gz"
    words = ("--layout", "manifest", "--label-convention", "brats2024")
    assert ingest(cohort, *words, "--out", tmp_path / "more.csv") == SOME_LEFT_OUT
    assert read_manifest(tmp_path / "more.csv")[0].label_convention == "brats2024"


def test_export_and_back(tmp_path, capsys):
    cohort = write_cohort(tmp_path / "cohort", cases=3, t2w=None)
    out = tmp_path / "Dataset501_Glioma"
    words = ["export-cohort", str(cohort), "--layout", "nnunet", "--out", str(out)]
    told = refusal(capsys, *words, "--strict")
    assert "case-0: has no t2w" in told
    assert main([*words, "--fill-missing"]) == 0
    assert f"3 cases, 3 with a mask, in {out}" in capsys.readouterr().out
    assert main([*words, "--fill-missing"]) == 0
    assert "(3 of them were there already)" in capsys.readouterr().out
    assert ingest(out, "--out", tmp_path / "again.csv") == 0
    before, after = read_manifest(cohort), read_manifest(tmp_path / "again.csv")
    assert [(row.case_id, row.idh, row.split) for row in after] == [
        (row.case_id, row.idh, row.split) for row in before
    ]
    assert after[0].t2w is None
    assert (read_row(after[1], tmp_path).label == read_row(before[1], cohort.parent).label).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--layout", "nifti", "--out", "x"), "invalid choice: 'nifti'"),
        (("--layout", "bids", "--out", "cohort"), "expected an empty folder"),
        (("--layout", "bids", "--out", "x", "--workers", "0"), "--workers is 0"),
        (("--layout", "bids", "--out", "x", "--fill-missing"), "leaves absent sequences out"),
    ],
)
def test_mistakes_of_an_export(tmp_path, monkeypatch, capsys, words, message):
    cohort = write_cohort(tmp_path / "cohort")
    monkeypatch.chdir(tmp_path)
    assert message in refusal(capsys, "export-cohort", cohort, *words)


@pytest.mark.multiprocess
def test_a_disk_without_room_stops_an_export_with_one_message(tmp_path):
    """RLIMIT_FSIZE is the disk here: no file may grow beyond it."""
    cohort = write_cohort(tmp_path / "cohort")
    words = ["export-cohort", str(cohort), "--layout", "bids", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", f"{_LIMIT}; {_MAIN}", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "File too large" in done.stderr
    assert not list((tmp_path / "out").rglob("*.nii.gz"))
    assert main(words) == 0


@pytest.mark.parametrize("order", [("mapping.csv", "tcga.csv"), ("tcga.csv", "mapping.csv")])
def test_a_table_that_renames_patients_is_joined_before_one_that_knows_the_new_names(
    tmp_path, order
):
    plant_brats2021(tmp_path / "scans", "BraTS19_TCIA02_606_1")
    (tmp_path / "mapping.csv").write_text(
        "BraTS_2019_subject_ID,TCGA_TCIA_subject_ID\nBraTS19_TCIA02_606_1,TCGA-06-5417\n"
    )
    (tmp_path / "tcga.csv").write_text("Patient ID,IDH status\nTCGA-06-5417,WT\n")
    words = [word for name in order for word in ("--clinical", tmp_path / name)]
    out = tmp_path / "cohort.csv"
    assert ingest(tmp_path / "scans", *words, "--out", out) == 0
    (row,) = read_manifest(out)
    assert (row.patient_id, row.idh, row.site) == ("TCGA-06-5417", "wildtype", "TCGA-06")


def test_an_export_that_leaves_cases_out_says_so_by_its_exit_code(tmp_path, capsys):
    cohort = write_cohort(tmp_path)
    (tmp_path / read_manifest(cohort)[0].t1n).unlink()
    words = ["export-cohort", str(cohort), "--layout", "bids", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 3
    assert "Refused (1):" in capsys.readouterr().out
