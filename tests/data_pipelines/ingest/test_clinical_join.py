import dataclasses
import json

import pytest

from data_pipelines.ingest.clinical import join, read_clinical, rows_of
from data_pipelines.ingest.clinical_entry import id_key
from data_pipelines.ingest.sites import brats_site, tcga_site
from gmmas_jax.cases.manifest import Row, read_manifest, write_manifest

UCSF = (
    "ID,Sex,Age at MRI,WHO CNS Grade,Final pathologic diagnosis (WHO 2021),MGMT status,MGMT index,"
    "1p/19q,IDH,1-dead 0-alive,OS,EOR,Biopsy prior to imaging,BraTS21 ID\n"
)
UPENN = (
    "ID,Gender,Age_at_scan_years,Survival_from_surgery_days_UPDATED,Survival_Status,"
    "Survival_Censor,IDH1,MGMT,PsP_TP_score\n"
)


def case(case_id, patient_id=None, **values):
    return Row(case_id=case_id, patient_id=patient_id or case_id, **values)


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


MAPPING = "BraTS_2019_subject_ID,TCGA_TCIA_subject_ID\nBraTS19_TCIA02_606_1,TCGA-06-5417\n"
TCGA = "Patient ID,IDH status\nTCGA-06-5417,WT\n"


def test_two_names_of_one_hospital_are_no_conflict(table):
    (row,), first = join([case("BraTS19_TCIA02_606_1", site="TCGA-06")], table(MAPPING))
    (row,), second = join([row], table(TCGA))
    assert (row.idh, row.site) == ("wildtype", "TCGA-06")
    assert first.conflicts == second.conflicts == []


def test_another_site_is_told_and_does_not_stop_the_join(table):
    (row,), first = join([case("BraTS19_TCIA02_606_1", site="Hamburg")], table(MAPPING))
    (row,), second = join([row], table(TCGA))
    assert (row.idh, row.site, row.patient_id) == ("wildtype", "Hamburg", "TCGA-06-5417")
    for report in (first, second):
        (told,) = report.conflicts
        assert "site is Hamburg in the manifest (kept) and TCGA-06 in " in told


def test_the_sites_of_brats_and_tcga_agree_in_the_published_mapping(real_data):
    rows = rows_of(read_clinical(real_data / "clinical" / "BraTS19_name_mapping.csv"))
    known = [(row.site, row.patient_id) for row in rows if row.patient_id.startswith("TCGA")]
    assert len(known) == 167
    assert all(tcga_site(patient) == site for site, patient in known)


@pytest.mark.parametrize(
    ("name", "site"),
    [
        ("Brats18_TCIA02_606_1", "TCGA-06"),
        ("Brats18_CBICA_AAB_1", "CBICA"),
        ("BraTS19_2013_1_1", "2013"),
        ("Brats18_TCIA07_600_1", "TCIA07"),
        ("Brats17_TCIA_606_1", None),
        ("BraTS2021_00097", None),
    ],
)
def test_the_hospital_that_an_id_of_brats_names(name, site):
    assert brats_site(name) == site


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
