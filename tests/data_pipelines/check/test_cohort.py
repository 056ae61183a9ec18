"""What only shows between cases: people, copies, conventions, classes, volumes."""

import json
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.check import cohort as cohort_module
from data_pipelines.check.cohort import _brain_volumes, _bytes_each, _unlike_grids, check_cohort
from data_pipelines.check.cohort_masks import (
    convention_findings,
    mask_statistics,
    summary,
    volume_findings,
)
from data_pipelines.check.copies import copy_findings, overlap_of_images
from data_pipelines.check.exam import Exam, ImageFacts
from data_pipelines.check.findings import CODES, LEVELS, from_message
from data_pipelines.check.mask import Mask
from data_pipelines.check.people import overlap_of_ids, people_findings, persons, public_ids
from data_pipelines.check.rows import read_rows
from data_pipelines.check.signature import LENGTH
from data_pipelines.check.table import class_counts, split_sizes, table_findings
from gmmas_jax.cases.manifest import Row, write_manifest
from gmmas_jax.errors import UserError
from tests.data_pipelines.check.heads import write_case


def row(case_id, patient_id=None, **fields):
    return Row(case_id=case_id, patient_id=patient_id or case_id, **fields)


def codes(findings):
    return [(finding.code, finding.case_id) for finding in findings]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("BraTS2021_00097", "BraTS-GLI-00097-000"),
        ("BraTS2021_00097", "BraTS-GLI-00097-101"),
        ("UCSF-PDGM-004", "UCSF-PDGM-0004"),
        ("UCSF-PDGM-0431", "UCSF-PDGM-0431_FU001d_nifti"),
        ("UPENN-GBM-00001_11", "UPENN-GBM-00001"),
        ("Brats18_TCIA02_606_1", "BraTS19_TCIA02_606_1"),
        ("TCGA-02-0034", "tcga-02-0034-01"),
    ],
)
def test_ids_of_public_sets_name_one_person(one, other):
    assert public_ids(row(one)) == public_ids(row(other)) != set()


def test_other_ids_name_nobody():
    for name in ("case-1", "BraTS20_Training_001", "00097", "xUCSF-PDGM-004", "TCGA-02"):
        assert public_ids(row(name)) == set()
    assert public_ids(row("UPENN-GBM-00001_11")) != public_ids(row("UPENN-GBM-00011"))


def test_persons_join_over_two_ids():
    rows = [
        row("UCSF-PDGM-004", "BraTS2021_00097"),
        row("x"),
        row("BraTS-GLI-00097-000"),
        row("UCSF-PDGM-0004_FU1", "someone"),
        row("y", "x"),
    ]
    assert persons(rows) == [0, 1, 0, 0, 1]
    assert codes(people_findings(rows)) == [("duplicate.person", "UCSF-PDGM-004")]
    (leak,) = people_findings([row("a", "p", split="train"), row("b", "p", split="test")])
    assert (leak.code, leak.level) == ("leakage.patient_in_splits", "error")
    assert "a (train), b (test)" in leak.found
    assert not list(people_findings([row("a", "p", split="train"), row("b", "p")]))


def test_overlap_of_ids():
    mine = [row("BraTS2021_00001"), row("a", "p7"), row("b")]
    others = [row("UCSF-PDGM-001", "BraTS-GLI-00001-000"), row("z", "p7")]
    found = list(overlap_of_ids(mine, others, "pre.csv"))
    assert codes(found) == [("overlap.person", "BraTS2021_00001"), ("overlap.patient_id", "a")]
    assert "UCSF-PDGM-001 of pre.csv" in found[0].found


def exam(case_id, **images):
    """Returns an exam; an image is given by its hash and the direction of its signature."""
    facts = {}
    for name, (content, angle) in images.items():
        signature = np.zeros(LENGTH, np.float16)
        signature[:2] = np.cos(angle), np.sin(angle)
        facts[name] = ImageFacts(content, signature, (9, 9, 9), (1.0, 1.0, 1.0))
    return Exam(case_id, images=facts)


def test_copies_are_told_once_and_across_splits_first():
    rows = [row("a", split="train"), row("b", split="test"), row("c", split="test"), row("d")]
    exams = [exam("a", t1n=("h", 0)), exam("b", t1n=("h", 0)), exam("c", t1c=("h", 0)), exam("d")]
    first, second = copy_findings(rows, exams)
    assert codes([first, second]) == [("leakage.identical", "b"), ("leakage.identical", "c")]
    assert "like a (train and test): its t1n as t1c, and 1 more" in second.found.replace(
        "(test and train)", "(train and test)"
    )


def test_nearly_identical_images():
    near = np.arccos(0.9)
    rows = [row("a", split="train"), row("b", split="train"), row("c", split="val")]
    exams = [exam("a", t2w=("1", 0)), exam("b", t2w=("2", near)), exam("c", t2w=("3", 2 * near))]
    assert codes(copy_findings(rows, exams)) == [
        ("duplicate.near_identical", "b"),
        ("leakage.near_identical", "c"),
    ]
    # Time points of one patient resemble each other; other sequences are not compared.
    same = [row("a", "p"), row("b", "p"), row("c")]
    assert codes(copy_findings(same, exams)) == [("duplicate.near_identical", "c")]
    exams[1].images["t1n"] = exams[1].images.pop("t2w")
    assert not list(copy_findings(rows, exams))


def test_overlap_of_images():
    mine = [exam("a", t1n=("1", 0)), exam("b", t1n=("2", 0)), exam("c", t1n=("3", 1.5))]
    others = [exam("x", t2f=("1", 3)), exam("y", t1n=("9", 0.1))]
    found = list(overlap_of_images(mine, others, "pre.csv"))
    assert codes(found) == [("overlap.identical", "a"), ("overlap.near_identical", "b")]
    assert "t1n is t2f of x in pre.csv" in found[0].found


def masked(case_id, values, convention, exposed=(), **volumes):
    mask = Mask(tuple(values), convention, volumes, dict(exposed))
    return Exam(case_id, mask=mask)


def test_conventions_of_a_cohort():
    def found(*exams):
        return [finding.code for finding in convention_findings(exams)]

    new = masked("a", (1, 2, 4), "brats2024")
    assert found(new, new) == ["cohort.other_convention"]
    assert found(new, masked("b", (1, 2, 3), "brats2024")) == []
    assert found(masked("a", (1, 2), "brats2021"), masked("b", (1, 3), "msd")) == [
        "cohort.conventions_mixed"
    ]
    assert found(Exam("a"), masked("b", (), "msd"), masked("c", (1, 4), "brats2021")) == []
    inside_out = masked("a", (1, 2), "msd", exposed={1: 0.7, 2: 0.1})
    right = masked("a", (1, 2), "msd", exposed={1: 0.1, 2: 0.7})
    assert found(inside_out, inside_out, inside_out) == ["cohort.codes_swapped"]
    assert found(inside_out, inside_out) == []
    assert found(inside_out, right, right) == []


def test_volumes_far_from_the_others_are_told():
    generator = np.random.default_rng(0)
    exams = [masked(str(n), (2,), "msd", ED=v) for n, v in enumerate(generator.lognormal(3, 1, 60))]
    assert not list(volume_findings(exams))
    exams[7] = masked("7", (2,), "msd", ED=0.01)
    (finding,) = volume_findings(exams)
    assert finding.case_id == "7"
    assert "0.01 mL of ED" in finding.found
    assert not list(volume_findings(exams[:19]))
    statistics = mask_statistics(exams)
    assert statistics["volumes_ml"]["ED"]["n"] == 60
    assert statistics["volumes_ml"]["ED"]["min"] == 0.01
    assert summary([]) == {"n": 0}


def test_classes_types_and_ages():
    rows = [
        row("a", split="train", idh="mutant", histology="glioblastoma", age=40),
        row("b", split="train", idh="wildtype", codel_1p19q="codeleted", age=0),
        row("c", split="test", idh="mutant", age=111),
    ]
    assert class_counts(rows)["idh"] == {
        "train": {"wildtype": 1, "mutant": 1},
        "test": {"wildtype": 0, "mutant": 1},
    }
    assert "mgmt" not in class_counts(rows)
    assert split_sizes(rows)["train"] == {"cases": 2, "patients": 2}
    found = list(table_findings(rows))
    assert codes(found)[:4] == [
        ("table.impossible_types", "a"),
        ("table.impossible_types", "b"),
        ("table.age", "b"),
        ("table.age", "c"),
    ]
    words = [finding.found for finding in found if finding.code == "cohort.class_absent"]
    assert "no case of idh wildtype in split test (wildtype 0, mutant 1)" in words
    assert "no case with a known histology in split test" in words


def test_brain_volumes_follow_the_atlas():
    def found(*volumes):
        return [f.case_id for f in _brain_volumes([Exam(f"{v}", brain_ml=v) for v in volumes])]

    assert found(1400, 1500, 1450, 1600, 1300, 2000, 800) == ["2000", "800"]
    assert found(1900, 1850, 1950, 2000, 1800, 2100, 800, 2800) == ["800", "2800"]
    assert found(2000) == ["2000"]
    assert found(2500, 2600, 2700, 2650, 2550) == ["2500", "2600", "2700", "2650", "2550"]


def test_grids_unlike_the_cohort():
    exams = [exam(str(n), t1n=(str(n), 0)) for n in range(20)] + [Exam("none")]
    assert not list(_unlike_grids(exams))
    facts = exams[3].images["t1n"]
    exams[3].images["t1n"] = ImageFacts("3", facts.signature, (9, 9, 8), (1.0, 1.0, 1.0))
    assert codes(_unlike_grids(exams)) == [("geometry.unlike_cohort", "3")]
    assert not list(_unlike_grids(exams[2:5]))


def manifest(folder, *lines, header="case_id,t1n,age"):
    path = folder / "cohort.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8-sig")
    return path


def test_rows_that_can_be_read_are_read(tmp_path):
    path = manifest(tmp_path, "a,x,3", "b,x,old", "a,y,4", '"c, d",z,5', "e,z", "f,z,6")
    rows, findings = read_rows(path)
    assert [row.case_id for row in rows] == ["a", "c, d", "f"]
    assert [(f.code, f.found) for f in findings] == [
        ("manifest.row", "row 3, column age: 'old' is no number from 0 on"),
        ("manifest.duplicate_id", "row 4: case_id 'a' was already given in row 2"),
        ("manifest.row", "row 6: 2 cells, the header has 3"),
    ]
    assert findings[0].remedy.startswith("Correct it")
    assert read_rows(manifest(tmp_path, "a,x,3")) == ([row("a", t1n="x", age=3.0)], [])


def test_rows_after_a_cell_of_two_lines_keep_their_numbers(tmp_path):
    """Also after a line separator that is none for CSV."""
    path = manifest(tmp_path, '"a\n1",x,3', "b\u2028,x,old", "c,y,4")
    rows, findings = read_rows(path)
    assert [row.case_id for row in rows] == ["a\n1", "c"]
    assert [f.found for f in findings] == ["row 4, column age: 'old' is no number from 0 on"]


@pytest.mark.multiprocess
def test_wrong_rows_of_the_other_manifest_are_told(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    path = manifest(other, "o,x,old", "p,,3")
    report = check_cohort(manifest(tmp_path, "a,,3"), against=[path], workers=1)
    told = [f.found for f in report.findings if f.code == "manifest.row"]
    assert told == [f"{path}, row 2, column age: 'old' is no number from 0 on"]


def test_a_table_that_is_wrong_as_a_whole_is_refused(tmp_path):
    with pytest.raises(UserError, match="unknown column 'colour'"):
        read_rows(manifest(tmp_path, "a,red", header="case_id,colour"))
    with pytest.raises(UserError, match="101 rows are wrong, the first because: row 3"):
        read_rows(manifest(tmp_path, "good,x,", *[f"{n},x,old" for n in range(101)]))
    with pytest.raises(UserError, match="row 2, column age: 'old' is no number"):
        read_rows(manifest(tmp_path, "b,x,old"))
    with pytest.raises(UserError, match="cannot be read"):
        read_rows(tmp_path / "none.csv")


def test_messages_are_taken_apart():
    finding = from_message(
        "file.missing",
        "a b.nii: no such file; expected a file. Do so.",
        case_id="x",
        source="a b.nii",
    )
    assert (finding.found, finding.expected, finding.remedy) == ("no such file", "a file", "Do so.")
    finding = from_message("file.missing", "only words", case_id=None, source=None)
    assert (finding.found, finding.expected) == ("only words", "")
    assert finding.document()["remedy"] == CODES["file.missing"].remedy
    assert {code.level for code in CODES.values()} == set(LEVELS)


def test_a_lost_case_is_told_with_its_name(tmp_path, monkeypatch):
    rows = [write_case(tmp_path, "a", 1), write_case(tmp_path, "b", 2)]
    write_manifest(tmp_path / "cohort.csv", rows)

    def run_cases(function, tasks, *, workers, on_case):
        assert workers == 1
        lost = UserError("a: its worker died twice (exit code -9); expected more. Free memory.")
        on_case(1, "a")
        return [lost, function(tasks[1].item)]

    monkeypatch.setattr(cohort_module, "run_cases", run_cases)
    seen = []
    report = check_cohort(
        tmp_path / "cohort.csv",
        workers=8,
        max_memory=1,
        on_case=lambda *told: seen.append(told),
    )
    (finding,) = [f for f in report.findings if f.level == "error"]
    assert (finding.code, finding.case_id) == ("case.lost", "a")
    assert finding.found == "its worker died twice (exit code -9)"
    assert seen == [(tmp_path / "cohort.csv", 1, 2, "a")]
    document = json.loads(json.dumps(report.document(), allow_nan=False))
    assert [case["errors"] for case in document["cases"]] == [1, 0]
    assert document["cases"][1]["brain_ml"] > 1000
    assert document["statistics"]["splits"] == {"train": {"cases": 2, "patients": 2}}


def test_memory_of_a_worker_follows_the_images(tmp_path):
    small = _bytes_each([], tmp_path)
    case = write_case(tmp_path, "a", 1)
    assert _bytes_each([case, row("gone", t1n="gone.nii.gz")], tmp_path) > small


def test_every_code_is_documented_as_it_is():
    page = (Path(__file__).parents[3] / "docs" / "reference" / "check.md").read_text("utf-8")
    for code, kind in CODES.items():
        assert f"| `{code}` | {kind.level} | {kind.meaning} | {kind.remedy} |" in page, code
