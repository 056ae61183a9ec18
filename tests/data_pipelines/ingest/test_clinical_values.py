import re
from pathlib import Path

import pytest

from data_pipelines.ingest.clinical import CLINICAL_KINDS, rows_of
from data_pipelines.ingest.clinical_cns5 import integrate, read_diagnosis
from data_pipelines.ingest.clinical_values import MISSING, WORDS, UnknownSpelling, read_word
from gmmas_jax.cases.tasks import TASKS
from gmmas_jax.errors import UserError


def test_the_documentation_has_the_same_table():
    page = Path(__file__).parents[3] / "docs" / "reference" / "clinical-tables.md"
    lines = page.read_text().splitlines()
    for column, values in WORDS.items():
        start = next(n for n, line in enumerate(lines) if line.startswith(f"| `{column}` |"))
        told = re.findall(r"`([^`]*)`", " ".join(lines[start : start + 2]))
        for words in values.values():
            # Grades are spelled out for 2 alone.
            if column != "grade" or "2" in words:
                assert set(words) <= set(told), (column, set(words) - set(told))
    missing = next(line for line in lines if line.startswith("| any | missing |"))
    assert set(re.findall(r"`([^`]*)`", missing)) | {""} == MISSING
    for kind in CLINICAL_KINDS:
        assert any(line.startswith(f"| `{kind}` |") for line in lines), kind


def test_every_value_of_the_written_table_is_one_of_the_manifest():
    for column, values in WORDS.items():
        if column in TASKS:
            assert set(values) <= set(TASKS[column])
        words = [word for spellings in values.values() for word in spellings]
        assert len(words) == len(set(words)), column
        assert not MISSING & set(words), column
        assert words == [word.casefold() for word in words]


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [
        ("idh", "Wildtype", "wildtype"),
        ("idh", "mutated (NOS)", "mutant"),
        ("idh", "IDH1 p.R132H", "mutant"),
        ("idh", "IDH1 p.Arg132His", "mutant"),
        ("idh", "IDH2 p.R172K", "mutant"),
        ("idh", "IDH2 p.Arg172Trp", "mutant"),
        ("codel_1p19q", "Co-deletion", "codeleted"),
        ("codel_1p19q", "relative co-deletion", "codeleted"),
        ("codel_1p19q", "non-codel", "intact"),
        ("mgmt", "negative", "unmethylated"),
        ("mgmt", "positive", "methylated"),
        ("grade", "G3", "3"),
        ("grade", "WHO grade II", "2"),
        *(("idh", text, None) for text in ("NOS/NEC", "", "NaN", "-1", "−1", "Not Available")),
        ("mgmt", "indeterminate", None),
    ],
)
def test_spellings(column, text, value):
    assert read_word(column, text) == value


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("idh", "0"),
        ("idh", "1"),
        ("idh", "negative"),
        ("idh", "IDH1 p.R132="),
        ("idh", "IDH1 p.R100Q"),
        ("mgmt", "weakly positive"),
        ("grade", "1"),
        ("codel_1p19q", "1p deleted"),
    ],
)
def test_what_the_table_does_not_have_is_not_guessed(column, text):
    with pytest.raises(UnknownSpelling):
        read_word(column, text)


def test_an_unknown_spelling_is_told_or_read_as_missing(table):
    content = "case_id,idh,mgmt\na,wt,positive\nb,maybe,negative\n"
    with pytest.raises(UserError) as caught:
        table(content)
    message = str(caught.value)
    assert "line 3, column 'idh': 'maybe'; expected" in message
    assert "wildtype" in message
    read = table(content, lenient=True)
    assert [row.idh for row in rows_of(read)] == ["wildtype", None]
    assert [row.mgmt for row in rows_of(read)] == ["methylated", "unmethylated"]
    assert any("Read as missing" in note for note in read.notes)


def test_zero_and_one_need_a_column_that_says_what_they_mean(table):
    flags = table("case,IDH_mutated\na,1\nb,0\nc,-1\n", columns={"idh": "IDH_mutated"})
    assert [row.idh for row in rows_of(flags)] == ["mutant", "wildtype", None]
    with pytest.raises(UserError, match="does not say whether 1 means wildtype or mutant"):
        table("case,idh\na,1\n")
    with pytest.raises(UserError, match="does not say whether 0"):
        table("case,idh wildtype\na,0\n", columns={"idh": "idh wildtype"})


def test_numbers(table):
    read = table("case_id;age;survival_days\n001;60,5;NA\n002;;361\n")
    assert [(row.case_id, row.age) for row in rows_of(read)] == [("001", 60.5), ("002", None)]
    for content in ("case_id,age\na,21876\n", "case_id,age\na,old\n", "case_id,age\na,-5\n"):
        with pytest.raises(UserError, match="a number of years from 0 to 120"):
            table(content)


# Diagnoses.


@pytest.mark.parametrize(
    ("diagnosis", "idh", "codel", "grade", "expected"),
    [
        # Words of WHO CNS5 stand.
        ("Glioblastoma, IDH-wildtype", "wildtype", None, None, ("glioblastoma", "4")),
        ("Astrocytoma, IDH-mutant", "mutant", "intact", "3", ("astrocytoma", "3")),
        (
            "Oligodendroglioma, IDH-mutant, 1p/19q-codeleted",
            "mutant",
            "codeleted",
            "2",
            ("oligodendroglioma", "2"),
        ),
        # Older names are decided by the markers.
        ("Glioblastoma, IDH-mutant", None, None, None, ("astrocytoma", "4")),
        ("glioblastoma multiforme", "mutant", None, None, ("astrocytoma", "4")),
        ("GBM", "wildtype", None, None, ("glioblastoma", "4")),
        ("glioblastoma", None, None, None, (None, "4")),
        ("oligoastrocytoma", "mutant", "codeleted", "2", ("oligodendroglioma", "2")),
        ("Anaplastic oligoastrocytoma", "mutant", "intact", None, ("astrocytoma", "3")),
        ("oligoastrocytoma, NOS", None, None, "2", (None, "2")),
        ("AOAST", "mutant", "codeleted", None, ("oligodendroglioma", "3")),
        ("ASTR", "mutant", None, "2", ("astrocytoma", "2")),
        ("ODG", "mutant", None, "2", (None, "2")),
        ("anaplastic astrocytoma", "wildtype", "intact", None, (None, "3")),
        ("Diffuse astrocytoma, IDH-wildtype", None, None, "2", (None, "2")),
        (None, "mutant", "codeleted", "4", ("oligodendroglioma", None)),
        (None, "wildtype", None, "4", ("glioblastoma", "4")),
        (None, "wildtype", None, "2", (None, "2")),
        (None, None, None, "4", (None, "4")),
        (None, "wildtype", "codeleted", "4", (None, "4")),
    ],
)
def test_diagnoses_of_any_year(diagnosis, idh, codel, grade, expected):
    said = None if diagnosis is None else read_diagnosis(diagnosis)
    result = integrate(said, idh=idh, codel=codel, grade=grade)
    assert (result.histology, result.grade) == expected


@pytest.mark.parametrize(
    ("diagnosis", "idh", "codel", "told"),
    [
        ("oligoastrocytoma", "mutant", "intact", "is astrocytoma in WHO CNS5"),
        ("glioblastoma", "mutant", None, "is astrocytoma in WHO CNS5"),
        ("Glioblastoma, IDH-wildtype", "mutant", None, "the IDH column mutant"),
        ("Glioblastoma, IDH-wildtype", "mutant", None, "glioblastoma and IDH mutant contradict"),
        ("Astrocytoma, IDH-mutant", "mutant", "codeleted", "1p/19q codeleted contradict"),
        ("astrocytoma", "wildtype", "codeleted", "codeleted and IDH wildtype contradict"),
    ],
)
def test_what_is_told_about_a_diagnosis(diagnosis, idh, codel, told):
    result = integrate(read_diagnosis(diagnosis), idh=idh, codel=codel, grade=None)
    assert any(told in note for note in result.notes)


def test_a_plain_modern_diagnosis_is_told_nothing_about():
    diagnosis = read_diagnosis("Glioblastoma, IDH-wildtype")
    assert integrate(diagnosis, idh="wildtype", codel="intact", grade="4").notes == ()


def test_an_unknown_diagnosis_is_refused(table):
    with pytest.raises(UserError, match="line 2, column 'diagnosis': 'meningioma'"):
        table("case_id,diagnosis\na,meningioma\n")


# Kinds and their traps, with tables built here.
