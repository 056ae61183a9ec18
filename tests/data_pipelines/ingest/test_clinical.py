from collections import Counter

import pytest

from data_pipelines.ingest.clinical import CLINICAL_KINDS, join, read_clinical, rows_of
from gmmas_jax.cases.manifest import Row
from gmmas_jax.errors import UserError

UCSF = (
    "ID,Sex,Age at MRI,WHO CNS Grade,Final pathologic diagnosis (WHO 2021),MGMT status,MGMT index,"
    "1p/19q,IDH,1-dead 0-alive,OS,EOR,Biopsy prior to imaging,BraTS21 ID\n"
)
UPENN = (
    "ID,Gender,Age_at_scan_years,Survival_from_surgery_days_UPDATED,Survival_Status,"
    "Survival_Censor,IDH1,MGMT,PsP_TP_score\n"
)


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
    assert {row.site for row in rows} == {"TCGA-06"}
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
