"""Change after treatment: taken where a table says it, never derived from what does not say it."""

from collections import Counter

import pytest

from data_pipelines.ingest.clinical import join, read_clinical, rows_of
from gmmas_jax.cases.manifest import Row
from gmmas_jax.errors import UserError

UPENN = (
    "ID,Gender,Age_at_scan_years,Survival_from_surgery_days_UPDATED,Survival_Status,"
    "Survival_Censor,IDH1,MGMT,PsP_TP_score\n"
    "UPENN-GBM-00001_11,F,60,500,Deceased,,Wildtype,Methylated,NA\n"
    "UPENN-GBM-00001_21,F,61,200,Deceased,,Wildtype,Methylated,6\n"
    "UPENN-GBM-00002_21,M,50,100,Deceased,,Wildtype,Methylated,1\n"
)
RATING = "Rating (according to RANO, PD: Progressive disease)"


def test_a_score_of_tissue_is_no_outcome_and_that_is_told(tmp_path):
    (tmp_path / "upenn.csv").write_text(UPENN)
    table = read_clinical(tmp_path / "upenn.csv")
    assert [row.outcome for row in rows_of(table)] == [None] * 3
    (told,) = [note for note in table.notes if "PsP_TP_score" in note]
    assert "outcome is left empty (2 rows)" in told


def test_the_real_scores_are_on_sixty_second_surgeries(real_data):
    table = read_clinical(real_data / "clinical" / "UPENN-GBM_clinical_info_v2.1.csv")
    assert Counter(row.outcome for row in rows_of(table)) == {None: 671}
    assert any("outcome is left empty (60 rows)" in note for note in table.notes)


def test_a_line_of_ones_own_through_the_scores_joins_by_exam(tmp_path):
    (tmp_path / "own.csv").write_text(
        "case_id,outcome\nUPENN-GBM-00001_21,TP\nUPENN-GBM-00002_21,PsP\n"
    )
    names = ("UPENN-GBM-00001_11", "UPENN-GBM-00001_21", "UPENN-GBM-00002_21")
    rows = [Row(case_id=name, patient_id=name.partition("_")[0]) for name in names]
    joined, _ = join(rows, read_clinical(tmp_path / "own.csv"))
    assert [row.outcome for row in joined] == [None, "progression", "pseudoprogression"]


@pytest.mark.parametrize("rating", ["PD", "SD", "PR", "CR"])
def test_a_rating_by_rano_is_refused_as_an_outcome(tmp_path, rating):
    (tmp_path / "ratings.csv").write_text(f'case_id,"{RATING}"\nPatient-001_week-044,{rating}\n')
    columns = {"outcome": RATING}
    with pytest.raises(UserError, match=f"'{rating}'; expected .*progression.*pseudoprogression"):
        read_clinical(tmp_path / "ratings.csv", columns=columns)
    table = read_clinical(tmp_path / "ratings.csv", columns=columns, lenient=True)
    assert [row.outcome for row in rows_of(table)] == [None]
