"""The manifest cohort.csv."""

import dataclasses

import pytest

from gmmas_jax.cases.manifest import COLUMNS, Row, read_manifest, write_manifest
from gmmas_jax.errors import UserError


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "cohort.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_the_columns_are_those_of_the_contract():
    assert ", ".join(COLUMNS) == (
        "case_id, patient_id, timepoint, t1n, t1c, t2w, t2f, seg, label_convention, idh, "
        "codel_1p19q, histology, grade, mgmt, outcome, age, sex, survival_days, survival_event, "
        "site, split, fold, quality"
    )


def test_rows_come_back_as_written(tmp_path):
    rows = [
        Row(case_id="007", patient_id="007"),
        Row(
            case_id="a b, c",
            patient_id="0012",
            timepoint="2",
            t1n="ä/t1.nii.gz",
            t2f="x/flair.nii.gz",
            seg="x/seg.nii.gz",
            label_convention="brats2023",
            idh="mutant",
            grade="3",
            age=61.5,
            sex="female",
            survival_days=430.0,
            survival_event=0,
            site="A",
            split="train",
            fold=3,
        ),
    ]
    path = tmp_path / "new" / "cohort.csv"
    write_manifest(path, rows)
    assert path.read_text().splitlines()[0] == ",".join(COLUMNS)
    assert read_manifest(path) == rows
    assert rows[1].images == {"t1n": "ä/t1.nii.gz", "t2f": "x/flair.nii.gz"}
    assert rows[1].tasks == {"idh": "mutant", "grade": "3"}
    assert rows[0].tasks == {}


def test_a_byte_order_mark_windows_ends_and_missing_columns_are_accepted(tmp_path):
    path = write(tmp_path, "case_id,idh,sex\r\n0012,,F\r\n\r\n13,Wildtype,\r\n", "utf-8-sig")
    first, second = read_manifest(path)
    assert (first.case_id, first.patient_id, first.idh, first.sex) == (
        "0012",
        "0012",
        None,
        "female",
    )
    assert second.idh == "wildtype"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("case_id,idh\na,maybe\n", ["row 2", "column idh", "'maybe'", "wildtype, mutant"]),
        ("case_id,grade\na,2\nb,4.0\n", ["row 3", "column grade", "'4.0'"]),
        ("case_id,idhh\na,\n", ["unknown column 'idhh'", "'idh'"]),
        ("case_id;idh\na;\n", ["semicolons", "case_id;idh"]),
        ("id,idh\na,\n", ["no column case_id"]),
        ("case_id,idh,idh\na,,\n", ["'idh' is there twice"]),
        ("case_id\na\na\n", ["row 3", "'a'", "row 2"]),
        ("case_id,idh\n,mutant\n", ["row 2", "column case_id", "empty"]),
        ("case_id,idh\na,mutant,b\n", ["row 2", "3 cells", "header has 2"]),
        ("case_id,age\na,old\n", ["column age", "'old'"]),
        ("case_id,age\na,nan\n", ["column age", "'nan'"]),
        ("case_id,survival_days\na,-1\n", ["column survival_days", "'-1'"]),
        ("case_id,survival_event\na,yes\n", ["column survival_event", "0, 1"]),
        ("case_id,sex\na,x\n", ["column sex", "female, male"]),
        ("case_id,split\na,training\n", ["column split", "train, val, test"]),
        ("case_id,fold\na,-1\n", ["column fold", "'-1'"]),
        ("case_id,fold\na,1.5\n", ["column fold", "'1.5'"]),
        ("case_id,label_convention\na,brats\n", ["column label_convention", "brats2021"]),
        ("case_id\n", ["no case"]),
        ("", ["no column case_id", "empty"]),
        ('case_id\n"a', ["no valid CSV"]),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path, text, words):
    path = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        read_manifest(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_files_that_are_no_text_are_refused(tmp_path):
    with pytest.raises(UserError, match="UTF-8"):
        read_manifest(write(tmp_path, "case_id\nä\n", "latin-1"))
    with pytest.raises(UserError, match="cannot be read"):
        read_manifest(tmp_path / "missing.csv")


def test_a_row_is_a_value():
    row = Row(case_id="a", patient_id="p")
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.case_id = "b"
