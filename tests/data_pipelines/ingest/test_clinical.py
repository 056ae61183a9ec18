import dataclasses
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from data_pipelines.ingest.clinical import CLINICAL_KINDS, join, read_clinical, rows_of
from data_pipelines.ingest.clinical_cns5 import integrate, read_diagnosis
from data_pipelines.ingest.clinical_entry import id_key
from data_pipelines.ingest.clinical_values import MISSING, WORDS, UnknownSpelling, read_word
from gmmas_jax.cases.manifest import Row, read_manifest, write_manifest
from gmmas_jax.cases.tasks import TASKS
from gmmas_jax.errors import UserError

UCSF = (
    "ID,Sex,Age at MRI,WHO CNS Grade,Final pathologic diagnosis (WHO 2021),MGMT status,MGMT index,"
    "1p/19q,IDH,1-dead 0-alive,OS,EOR,Biopsy prior to imaging,BraTS21 ID\n"
)
UPENN = (
    "ID,Gender,Age_at_scan_years,Survival_from_surgery_days_UPDATED,Survival_Status,"
    "Survival_Censor,IDH1,MGMT,PsP_TP_score\n"
)


@pytest.fixture
def table(tmp_path):
    def write(content, kind=None, name="table.csv", **options):
        path = tmp_path / name
        path.write_text(content)
        return read_clinical(path, kind, **options)

    return write


def counts(table, column):
    return Counter(row and getattr(row, column) for row in rows_of(table))


def case(case_id, patient_id=None, **values):
    return Row(case_id=case_id, patient_id=patient_id or case_id, **values)


# The real tables.


def test_ucsf_pdgm(real_data):
    table = read_clinical(real_data / "clinical" / "UCSF-PDGM-metadata_v2.csv")
    assert table.kind == "ucsf-pdgm"
    assert counts(table, "idh") == {"wildtype": 398, "mutant": 103}
    assert counts(table, "codel_1p19q") == {"codeleted": 15, "intact": 395, None: 91}
    assert counts(table, "mgmt") == {"methylated": 302, "unmethylated": 114, None: 85}
    assert counts(table, "grade") == {"2": 56, "3": 43, "4": 402}
    assert counts(table, "histology") == {
        "glioblastoma": 374,
        "astrocytoma": 90,
        "oligodendroglioma": 13,
        None: 24,
    }
    assert sum(row.patient_id.startswith("BraTS2021_") for row in rows_of(table)) == 298
    told = "\n".join(table.notes)
    assert "BraTS 2021 names the same person" in told
    assert "(298 rows)" in told
    contradicting = "astrocytoma and 1p/19q codeleted contradict each other: "
    assert contradicting + "UCSF-PDGM-045, UCSF-PDGM-119" in table.notes


def test_upenn_gbm(real_data):
    table = read_clinical(real_data / "clinical" / "UPENN-GBM_clinical_info_v2.1.csv")
    assert table.kind == "upenn-gbm"
    assert len(rows_of(table)) == 671
    assert len({row.patient_id for row in rows_of(table)}) == 630
    assert counts(table, "idh") == {"wildtype": 546, "mutant": 19, None: 106}
    assert counts(table, "mgmt") == {"unmethylated": 170, "methylated": 121, None: 380}
    assert counts(table, "survival_event") == {1: 644, 0: 27}
    assert counts(table, "outcome") == {None: 671}
    assert all(row.survival_days is not None for row in rows_of(table))


def test_prognosais(real_data):
    table = read_clinical(real_data / "clinical" / "PrognosAIs_patient_labels.csv")
    assert table.kind == "prognosais"
    assert counts(table, "idh") == {"wildtype": 161, "mutant": 94, None: 372}
    assert counts(table, "codel_1p19q") == {"intact": 234, "codeleted": 29, None: 364}
    # Two codeleted tumours are written with a grade 4 that their type does not have.
    assert counts(table, "grade") == {"2": 84, "3": 82, "4": 249, None: 212}


def test_brats_cases_get_labels_by_two_real_tables(real_data):
    """The mapping knows who a case is, and the label table knows that patient."""
    folder = real_data / "clinical"
    names = [path.name for path in sorted((real_data / "brats18").iterdir())]
    rows = [case(name, name.removesuffix("_1")) for name in names]
    rows, first = join(rows, read_clinical(folder / "BraTS19_name_mapping.csv"))
    assert (first.by_case, first.unmatched_cases, len(first.unmatched_entries)) == (5, [], 330)
    rows, second = join(rows, read_clinical(folder / "PrognosAIs_patient_labels.csv"))
    assert second.by_patient == 5
    truth = read_clinical(
        folder / "brats18_shared_cases.csv",
        columns={"case_id": "case", "patient_id": "tcga_id", "idh": "IDH(MTTU)"},
    )
    expected = {row.case_id: row for row in rows_of(truth)}
    for row in rows:
        assert row.patient_id == expected[row.case_id].patient_id
        assert row.idh == expected[row.case_id].idh
    assert {row.case_id: row.histology for row in rows} == {
        "Brats18_TCIA01_201_1": "glioblastoma",
        "Brats18_TCIA01_425_1": "glioblastoma",
        "Brats18_TCIA02_606_1": None,  # IDH-mutant of grade 4, 1p/19q not known.
        "Brats18_TCIA10_637_1": "oligodendroglioma",
        "Brats18_TCIA13_623_1": "astrocytoma",
    }


def test_real_folders_of_ucsf_have_four_digits(real_data):
    table = read_clinical(real_data / "clinical" / "UCSF-PDGM-metadata_v2.csv")
    rows = [case("UCSF-PDGM-0004"), case("UCSF-PDGM-0541"), case("UCSF-PDGM-0006")]
    joined, report = join(rows, table)
    assert (joined[0].idh, joined[0].age, joined[0].patient_id) == (
        "wildtype",
        66,
        "BraTS2021_00097",
    )
    assert report.unmatched_cases == ["UCSF-PDGM-0006"]
    assert report.by_patient + report.by_case == 2


def test_survival_of_real_brats(real_data):
    table = read_clinical(real_data / "clinical" / "BraTS19_survival_data.csv")
    rows = rows_of(table)
    assert len(rows) == 259
    assert sum(row.survival_days is not None for row in rows) == 212
    assert [row.survival_event for row in rows].count(0) == 2  # ALIVE (n days later).


# Spellings.


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


def test_ucsf_ids_and_the_person_in_brats(table):
    read = table(
        UCSF
        + '"UCSF-PDGM-004",M,66,4,"Glioblastoma, IDH-wildtype",negative,0,,wildtype,1,1303,STR,No,'
        + "BraTS2021_00097\n"
        + 'UCSF-PDGM-005,F,80,2,"Astrocytoma, IDH-wildtype",,,intact,wildtype,0,,STR,No,\n'
    )
    rows, report = join(
        [
            case("UCSF-PDGM-0004_nifti", "UCSF-PDGM-0004"),
            case("UCSF-PDGM-0005"),
            case("UCSF-PDGM-0045"),
            case("BraTS2021_00097"),
        ],
        read,
    )
    assert [row.idh for row in rows] == ["wildtype", "wildtype", None, "wildtype"]
    assert [row.mgmt for row in rows] == ["unmethylated", None, None, "unmethylated"]
    assert rows[0].patient_id == rows[3].patient_id == "BraTS2021_00097"
    assert report.new_patient_ids == {"UCSF-PDGM-0004": "BraTS2021_00097"}
    assert report.unmatched_cases == ["UCSF-PDGM-0045"]
    assert rows[1].patient_id == "UCSF-PDGM-0005"
    assert rows[1].histology is None
    assert any(
        note.startswith("IDH-wildtype of grade 2") and note.endswith(": UCSF-PDGM-005")
        for note in read.notes
    )


def test_all_exams_of_a_patient_get_the_new_patient_id(table):
    read = table(
        UCSF
        + 'UCSF-PDGM-429,M,66,4,"Glioblastoma, IDH-wildtype",,,,wildtype,1,9,STR,No,BraTS2021_7\n'
    )
    rows, report = join(
        [
            case("UCSF-PDGM-0429", "UCSF-PDGM-0429"),
            case("UCSF-PDGM-0429_FU003d", "UCSF-PDGM-0429"),
        ],
        read,
    )
    assert {row.patient_id for row in rows} == {"BraTS2021_7"}
    assert [row.idh for row in rows] == ["wildtype", "wildtype"]
    # Age and survival are the first exam's, which was found by its own name.
    assert [row.age for row in rows] == [66, None]
    assert report.withheld == ["UCSF-PDGM-0429_FU003d"]


def test_upenn_time_points(table):
    read = table(
        UPENN
        + "UPENN-GBM-00036_11,M,42.14,808,Deceased,Not Available,Wildtype,Not Available,NA\n"
        + "UPENN-GBM-00036_21,M,43.57,286,Deceased,Not Available,NOS/NEC,Indeterminate,6\n"
        + "UPENN-GBM-00071_11,F,37.1,Not Available,Alive,6129,Mutated,Methylated,NA\n"
        + "UPENN-GBM-00142_11,M,67.7,Not Available,Deceased - uncertain date of death,142,"
        + "Wildtype,Unmethylated,NA\n"
    )
    one, two, alive, unsure = rows_of(read)
    assert one.patient_id == two.patient_id == "UPENN-GBM-00036"
    assert (one.timepoint, two.timepoint) == ("11", "21")
    assert (one.idh, two.idh) == ("wildtype", None)
    assert (two.survival_days, two.survival_event) == (286, 1)
    assert (alive.survival_days, alive.survival_event, alive.idh) == (6129, 0, "mutant")
    assert (alive.histology, alive.grade) == ("astrocytoma", "4")
    assert (unsure.survival_days, unsure.survival_event) == (142, 0)
    # A case that is named as the patient: what belongs to him for good, and nothing of one exam.
    (row,), report = join([case("UPENN-GBM-00036")], read)
    assert (row.idh, row.sex, row.age, row.survival_days) == ("wildtype", "male", None, None)
    assert report.withheld == ["UPENN-GBM-00036"]


def test_a_tumour_does_not_change_its_genotype(table):
    rows = "p1,a,{},M,50\np2,a,{},M,51\n"
    header = "case_id,patient_id,idh,sex,age\n"
    told = "patient a: idh is wildtype and mutant in lines 2, 3: each exam keeps its own"
    assert told in table(header + rows.format("wt", "mutant")).notes
    assert table(header + rows.format("wt", "NA")).notes == [
        "column 'idh': 'NA' is read as missing (1 rows)"
    ]


def test_brats_names_of_all_years(table):
    read = table(
        "Grade,BraTS_2017_subject_ID,BraTS_2018_subject_ID,TCGA_TCIA_subject_ID,"
        "BraTS_2019_subject_ID\n"
        "HGG,Brats17_TCIA_606_1,Brats18_TCIA02_606_1,TCGA-06-5417,BraTS19_TCIA02_606_1\n"
        "LGG,NA,NA,NA,BraTS19_TMC_2_1\n"
    )
    cases = ("Brats17_TCIA_606_1", "Brats18_TCIA02_606_1", "BraTS19_TCIA02_606_1", "TCGA-06-5417")
    rows, report = join([case(name) for name in cases], read)
    assert {row.patient_id for row in rows} == {"TCGA-06-5417"}
    assert {row.grade for row in rows} == {None}
    assert {row.site for row in rows} == {"TCIA02"}
    assert report.unmatched_entries == ["BraTS19_TMC_2_1"]
    # NA is nobody's name.
    assert join([case("NA")], read)[1].unmatched_cases == ["NA"]


def test_brats_survival_of_a_patient_alive(table):
    read = table(
        "Brats20ID,Age,Survival_days,Extent_of_Resection\n"
        "BraTS20_Training_001,60.4,289,GTR\nBraTS20_Training_084,NA,ALIVE (361 days later),NA\n"
    )
    assert read.kind == "brats-survival"
    one, two = rows_of(read)
    assert (one.survival_days, one.survival_event) == (289, None)
    assert (two.survival_days, two.survival_event, two.age) == (361, 0, None)
    of_2019 = table("BraTS19ID,Age,Survival\nBraTS19_CBICA_AAB_1,60,289\n")
    (row,), _ = join([case("Brats18_CBICA_AAB_1")], of_2019)
    assert row.survival_days == 289
    of_2018 = table("Brats18ID,Age,Survival\nBrats18_CBICA_AAB_1,60,289\n")
    (row,), _ = join([case("BraTS19_CBICA_AAB_1")], of_2018)
    assert row.survival_days == 289


def test_brats_2021_and_its_collections(table):
    read = table(
        "Data Collection (as on TCIA+additional),Site ID,TCIA PatientID,BraTS2021 ID,"
        "Segmentation (Task 1) Cohort,Radiogenomic (Task 2) Cohort,MGMT value\n"
        "TCGA-GBM,1,TCGA-02-0006,BraTS2021_00000,Training,Training,1\n"
        "UCSF-PDGM,2,UCSF-PDGM-0004,BraTS2021_00097,Training,Training,0\n"
        "additional,3,,BraTS2021_00012,Training,N/A,\n"
    )
    assert read.kind == "brats2021-mapping"
    assert [(row.patient_id, row.mgmt) for row in rows_of(read)] == [
        ("TCGA-02-0006", "methylated"),
        ("UCSF-PDGM-0004", "unmethylated"),
        ("BraTS2021_00012", None),
    ]
    rows, _ = join([case("BraTS2021_00000"), case("BraTS2021_00097")], read)
    # As with UCSF-PDGM's own table, which calls this patient by the id of BraTS 2021.
    assert [row.patient_id for row in rows] == ["TCGA-02-0006", "BraTS2021_00097"]
    lost_zeros = table("BraTS21ID,MGMT_value\n97,1\n")
    assert rows_of(lost_zeros)[0].case_id == "BraTS2021_00097"


def test_tcga_from_its_portals(table):
    biolinks = table(
        "patient,Histology,Grade,Age (years at diagnosis),Gender,Survival (months),"
        "Vital status (1=dead),IDH status,1p/19q codeletion,IDH/codel subtype,"
        "MGMT promoter status\n"
        "TCGA-CS-4938,oligoastrocytoma,G3,31,female,10,0,Mutant,non-codel,IDHmut-non-codel,"
        "Unmethylated\n"
        "TCGA-02-0003,glioblastoma,G4,50,male,4.7,1,WT,non-codel,IDHwt,NA\n"
    )
    assert biolinks.kind == "tcga"
    one, two = rows_of(biolinks)
    assert (one.idh, one.codel_1p19q, one.histology, one.grade) == (
        "mutant",
        "intact",
        "astrocytoma",
        "3",
    )
    assert one.survival_days == pytest.approx(304.4)
    assert (one.survival_event, two.survival_event) == (0, 1)
    assert (two.histology, two.mgmt, two.site) == ("glioblastoma", None, "TCGA-02")
    portal = table(
        "#Patient Identifier\tIDH Status\tOS\n#text\ttext\ttext\n#STRING\tSTRING\tSTRING\n"
        "PATIENT_ID\tIDH_STATUS\tOS_STATUS\nTCGA-06-5417-01A\tMutant\t1:DECEASED\n"
    )
    (row,) = rows_of(portal)
    assert (row.case_id, row.idh, row.survival_event) == ("TCGA-06-5417", "mutant", 1)
    with pytest.raises(UserError, match="line 2, column 'IDH/codel subtype': 'IDHmaybe'"):
        table("patient,IDH/codel subtype\nTCGA-02-0003,IDHmaybe\n")


def test_kinds_are_told_by_the_header(table):
    with pytest.raises(UserError, match=r"fits none that is known; expected .*ucsf-pdgm"):
        table("name,colour\na,red\n")
    with pytest.raises(UserError, match="no column but ids that is known"):
        table("case_id,colour\na,red\n")
    with pytest.raises(UserError, match="no table of the kind upenn-gbm by its header"):
        table("case_id,idh\na,wt\n", "upenn-gbm")
    with pytest.raises(UserError, match="expected one of ucsf-pdgm"):
        table("case_id,idh\na,wt\n", "excel")
    with pytest.raises(UserError, match="fits ucsf-pdgm and prognosais"):
        table(
            "ID,Patient,IDH_mutated,1p19q_codeleted,1p/19q,Final pathologic diagnosis (WHO 2021)\n"
            "a,a,1,1,,\n"
        )
    assert "generic" in CLINICAL_KINDS


def test_generic_columns_declared_or_by_name(table):
    read = table(
        "Subject;Diagnosis;IDH Status;Sex;remark\n007;Glioblastoma, IDH-wildtype;;F;x\n",
        columns={"idh": "IDH Status"},
    )
    (row,) = rows_of(read)
    assert (row.case_id, row.histology, row.grade, row.sex) == (
        "007",
        "glioblastoma",
        "4",
        "female",
    )
    assert row.idh is None  # The table has a column for it, and there it is not known.
    assert any("columns not used: remark" in note for note in read.notes)
    by_words = table("Subject,Diagnosis\n007,Oligodendroglioma IDH-mutant and 1p/19q-codeleted\n")
    assert (rows_of(by_words)[0].idh, rows_of(by_words)[0].codel_1p19q) == ("mutant", "codeleted")
    with pytest.raises(UserError, match="no column 'IDH', which was declared for idh"):
        table("case_id,x\na,b\n", columns={"idh": "IDH"})
    with pytest.raises(UserError, match="declared column 'colour'"):
        table("case_id,x\na,b\n", columns={"colour": "x"})
    with pytest.raises(UserError, match="columns are declared for the kind ucsf-pdgm"):
        table("case_id,x\na,b\n", "ucsf-pdgm", columns={"idh": "x"})


def test_generic_contradictions_are_told(table):
    read = table("case_id,idh,codel_1p19q,histology\na,wt,codeleted,\nb,mutant,,glioblastoma\n")
    assert "1p/19q codeleted and IDH wildtype contradict each other: a" in read.notes
    assert "glioblastoma and IDH mutant contradict each other: b" in read.notes
    # The manifest's own words stand as they are.
    assert rows_of(read)[1].histology == "glioblastoma"


def test_rows_without_an_id(table):
    with pytest.raises(UserError, match="line 3, column 'case_id': 'NA'; expected an id"):
        table("case_id,idh\na,wt\nNA,wt\n")


def test_duplicate_rows(table):
    read = table("case_id,idh,mgmt\na,wt,positive\na,wt,positive\nb,wt,positive\nb,wt,negative\n")
    assert any("line 3: the same as line 2, counted once" in note for note in read.notes)
    assert "b: mgmt is methylated and unmethylated in lines 4, 5: left empty" in read.notes
    one, two = rows_of(read)
    assert (one.mgmt, two.mgmt, two.idh) == ("methylated", None, "wildtype")
    (row,), report = join([case("b")], read)
    assert (row.idh, row.mgmt) == ("wildtype", None)
    assert report.ambiguous == ["b: mgmt is methylated and unmethylated in lines 4, 5"]


# Joining.


def test_ids_alike():
    alike = ("UCSF-PDGM-0004_nifti", "ucsf_pdgm_4", "UCSF-PDGM-004")
    assert len(set(map(id_key, alike))) == 1
    assert id_key("sub-007_ses-01") == id_key("7_1")
    assert id_key("000") == id_key("0")
    different = ("UPENN-GBM-1_11", "UPENN-GBM-1_21", "UPENN-GBM-11_1", "UPENN-GBM-11", "P1", "P01")
    assert len(set(map(id_key, different))) == len(different)


def test_no_part_of_an_id_is_enough(table):
    read = table("case_id,idh\n1,wt\nTCGA-02,mutant\nP1,mutant\n")
    rows, report = join([case("11"), case("TCGA-02-0006"), case("P11"), case("P")], read)
    assert [row.idh for row in rows] == [None] * 4
    assert len(report.unmatched_cases) == 4
    assert report.unmatched_entries == ["1", "TCGA-02", "P1"]


def test_names_that_look_alike(table):
    read = table("case_id,idh\n007,wt\n7,mutant\n")
    rows, report = join([case("007"), case("7")], read)
    assert [row.idh for row in rows] == ["wildtype", "mutant"]
    assert report.ambiguous == []
    (row,), report = join([case("07")], read)
    assert row.idh is None
    assert "'07' may be 007 or 7 of the table" in report.ambiguous[0]
    # The table has one of them, the manifest two.
    rows, report = join([case("007"), case("07")], table("case_id,idh\n7,mutant\n"))
    assert [row.idh for row in rows] == [None, None]
    assert len(report.ambiguous) == 2


def test_what_the_manifest_has_is_kept(table):
    read = table("case_id,idh,age,mgmt\na,mutant,61,positive\n")
    (row,), report = join([case("a", idh="wildtype", age=60.4)], read)
    assert (row.idh, row.age, row.mgmt) == ("wildtype", 60.4, "methylated")
    assert report.conflicts == ["a: idh is wildtype in the manifest (kept) and mutant in table.csv"]
    assert report.filled == {"mgmt": 1}


def test_what_belongs_to_one_exam_stays_with_it(table):
    read = table("patient_id,idh,age,survival_days,survival_event\np,mutant,50,100,1\n")
    (row,), report = join([case("p_1", "p")], read)
    assert (row.age, row.survival_days, report.withheld) == (50, 100, [])
    rows, report = join([case("p_1", "p"), case("p_2", "p")], read)
    assert [(row.idh, row.age, row.survival_days) for row in rows] == [("mutant", None, None)] * 2
    assert report.withheld == ["p_1", "p_2"]


def test_patient_ids_of_a_generic_table(table):
    read = table("case_id,patient_id,idh\na1,A,wt\na2,A,wt\nb1,B,wt\n")
    rows, report = join([case("a1"), case("a2"), case("b1", "C")], read)
    assert [row.patient_id for row in rows] == ["A", "A", "C"]
    assert report.conflicts == ["patient C of the manifest (kept) is B in table.csv"]


def test_the_report_is_json_and_readable(table):
    rows, report = join([case("a"), case("z")], table("case_id,idh\na,NA\nb,wt\n"))
    assert json.loads(json.dumps(report.as_json()))["unmatched_cases"] == ["z"]
    lines = "\n".join(report.lines())
    assert "1 of 2 cases found among 2 rows" in lines
    assert "1 rows of the table have no case: b" in lines
    assert rows[0].idh is None
    assert any("'NA' is read as missing (1 rows)" in note for note in report.notes)


def test_rows_make_a_manifest(table, tmp_path):
    read = table("case_id;patient_id;idh;age\n007;08;wt;60\nÄ 1;;;\n")
    rows = rows_of(read)
    write_manifest(tmp_path / "cohort.csv", rows)
    assert read_manifest(tmp_path / "cohort.csv") == rows
    assert [dataclasses.astuple(row)[:2] for row in rows] == [("007", "08"), ("Ä 1", "Ä 1")]
