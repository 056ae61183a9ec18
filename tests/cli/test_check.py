"""`gmmas check`: exit code, screen and check.json."""

import json

import pytest

from gmmas_jax.cases.manifest import write_manifest
from gmmas_jax.cli import main
from tests.data_pipelines.check.heads import write_case


@pytest.fixture(name="cohort")
def _cohort(tmp_path):
    folder = tmp_path / "kö hort"
    rows = [write_case(folder, f"p{n}", n) for n in range(2)]
    write_manifest(folder / "cohort.csv", rows)
    return folder / "cohort.csv"


@pytest.mark.multiprocess
def test_clean_and_warned_and_wrong(cohort, tmp_path, capsys):
    out = tmp_path / "deep" / "check.json"
    words = ["check", str(cohort), "--out", str(out), "--workers", "1", "--max-memory", "4G"]
    assert main(words) == 0
    printed = capsys.readouterr()
    assert "2 cases checked: 0 errors, 0 warnings" in printed.out
    assert "check cohort.csv 2/2" in printed.err
    document = json.loads(out.read_text(encoding="utf-8"))
    assert list(document) == ["version", "manifest", "cases", "findings", "statistics"]

    rows = cohort.read_text(encoding="utf-8")
    cohort.write_text(rows.replace("p1/t1c.nii.gz,", "../p1/t1c.nii.gz,"), encoding="utf-8")
    (cohort.parent / "p0" / "t2f.nii.gz").write_bytes(b"")
    assert main(words) == 2
    printed = capsys.readouterr()
    (line,) = [line for line in printed.err.splitlines() if "error" in line]
    assert "3 errors found; expected none" in line
    assert str(out) in line
    for word in ("ERROR    file.truncated  (1 case)", "p0, t2f.nii.gz: the file is empty", "> "):
        assert word in printed.out
    document = json.loads(out.read_text(encoding="utf-8"))
    codes = {f["code"] for f in document["findings"] if f["level"] == "error"}
    assert codes == {"file.truncated", "file.missing", "file.leaves_folder"}


@pytest.mark.multiprocess
def test_warnings_fail_where_they_are_asked_to(cohort, tmp_path, capsys):
    text = cohort.read_text(encoding="utf-8")
    header, first, *rest = text.splitlines()
    cells = dict(zip(header.split(","), first.split(","), strict=True))
    cells |= {"age": "300"}
    cohort.write_text("\n".join([header, ",".join(cells.values()), *rest]), encoding="utf-8")
    words = ["check", str(cohort), "--out", str(tmp_path / "c.json"), "--workers", "1"]
    assert main(words) == 0
    assert main([*words, "--fail-on", "warning"]) == 2
    assert "0 errors and 1 warning found" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.csv"], "none.csv: cannot be read"),
        (["none.csv", "--workers", "0"], "--workers is 0; expected at least 1"),
        (["none.csv", "--max-memory", "much"], "'much' is no size; expected for example 8G"),
        (["none.csv", "--fail-on", "note"], "invalid choice: 'note'"),
    ],
)
def test_mistakes(tmp_path, capsys, words, message):
    assert main(["check", *words, "--out", str(tmp_path / "check.json")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "check.json").exists()


def test_a_folder_as_report_is_refused_before_the_work(cohort, tmp_path, capsys):
    assert main(["check", str(cohort), "--out", str(tmp_path)]) == 2
    assert f"--out {tmp_path}: is a folder; expected a file" in capsys.readouterr().err
