import csv
import io
import json
import math

import numpy as np
import pytest

from gmmas_jax.cases.sequences import SUBSETS
from gmmas_jax.metrics import evaluation
from gmmas_jax.metrics.evaluation import CaseResult

TASKS = {"idh": ("wildtype", "mutant"), "mgmt": ("unmethylated", "methylated")}


def _results():
    return [
        CaseResult(
            case_id=f"p{i}",
            dice={"WT": 0.8 + i / 100, "ET": float(i == 0)},
            hd95={"WT": 3.0 + i, "ET": 373.13},
            nsd={"WT": 0.9, "ET": 0.0},
            volumes_ml={"WT": 50.0},
            reference_volumes_ml={"WT": 55.0, "ET": 0.0},
            task_probabilities={"idh": np.array([1 - p, p], np.float32), "mgmt": [0.5, 0.5]},
            task_truth={"idh": t, "mgmt": None},
            task_uncertainty={"idh": 0.1},
            task_abstained={"idh": p == 0.55, "mgmt": True},
            present=("t1c", "t2f"),
        )
        for i, (p, t) in enumerate([(0.9, 1), (0.2, 0), (0.55, 0), (0.8, 1)])
    ]


def test_summary_has_the_contract_s_fields():
    summary = evaluation.summarise(_results(), tasks=TASKS, seed=0, repeats=100)
    assert summary["protocol"] == "gmmas-whole-region-1"
    assert summary["n"] == 4
    whole = summary["regions"]["WT"]
    assert whole["n"] == 4
    assert whole["dice"]["mean"] == pytest.approx(0.815)
    assert whole["dice"]["ci95"][0] <= 0.815 <= whole["dice"]["ci95"][1]
    assert whole["hd95"]["median"] == 4.5
    assert summary["regions"]["ET"]["n_reference_empty"] == 4
    assert set(summary["tasks"]["idh"]) >= {
        *("n", "n_per_class", "auc", "auc_ci95", "accuracy", "majority_accuracy"),
        *("balanced_accuracy", "sensitivity", "specificity", "ece", "brier", "nll"),
    }
    assert summary["tasks"]["idh"]["accuracy"] == 0.75
    assert summary["tasks"]["idh"]["majority_accuracy"] == 0.5


def test_answers_that_were_withheld_are_counted_apart():
    idh = evaluation.summarise(_results(), tasks=TASKS, seed=0, repeats=50)["tasks"]["idh"]
    assert idh["answered"] == {"n": 3, "share": 0.75, "accuracy": 1.0}


def test_a_task_without_labels_is_none_all_through():
    mgmt = evaluation.summarise(_results(), tasks=TASKS, seed=0, repeats=50)["tasks"]["mgmt"]
    assert mgmt["n"] == 0
    assert {mgmt[name] for name in ("auc", "auc_ci95", "accuracy", "ece", "brier", "nll")} == {None}


def test_summary_is_json_without_nan():
    results = [CaseResult("a", dice={"WT": math.nan}, hd95={"WT": math.inf}, nsd={"WT": 1.0})]
    text = evaluation.metrics_json(evaluation.summarise(results, tasks=TASKS, seed=0, repeats=10))
    assert json.loads(text)["regions"]["WT"]["dice"]["mean"] is None
    assert "NaN" not in text
    with pytest.raises(ValueError, match="JSON"):
        evaluation.metrics_json({"x": math.nan})


def test_cases_without_a_reference_do_not_count_as_zero():
    results = [*_results(), CaseResult("no-mask", volumes_ml={"WT": 12.0})]
    summary = evaluation.summarise(results, tasks=TASKS, seed=0, repeats=50)
    assert summary["n"] == 5
    assert summary["regions"]["WT"]["n"] == 4
    assert summary["regions"]["WT"]["dice"]["mean"] == pytest.approx(0.815)


def test_subsets_are_in_the_published_order_and_any_order_of_names_is_found():
    given = {tuple(reversed(s)): [{"WT": 0.5}, {"WT": 0.7}] for s in reversed(SUBSETS)}
    summary = evaluation.summarise([], tasks={}, seed=0, subset_dice=given)
    assert list(summary["subsets"]) == [evaluation.subset_key(s) for s in SUBSETS]
    assert summary["subsets"]["t2w"] == {
        "sequences": ["t2w"],
        "n": 2,
        "dice": {"WT": pytest.approx(0.6)},
    }


def test_an_empty_cohort_is_a_summary_too():
    summary = evaluation.summarise([], tasks=TASKS, seed=0)
    assert (summary["n"], summary["regions"], summary["subsets"]) == (0, {}, {})


def test_adding_a_task_leaves_other_intervals_unchanged():
    one = evaluation.summarise(_results(), tasks={"idh": TASKS["idh"]}, seed=0, repeats=50)
    two = evaluation.summarise(_results(), tasks=TASKS, seed=0, repeats=50)
    assert one["tasks"]["idh"] == two["tasks"]["idh"]
    assert one["regions"] == two["regions"]


def test_csv_has_a_row_a_case_and_empty_cells_for_the_unknown():
    rows = list(csv.DictReader(io.StringIO(evaluation.cases_csv(_results(), tasks=TASKS))))
    assert [row["case_id"] for row in rows] == ["p0", "p1", "p2", "p3"]
    assert rows[0]["sequences"] == "t1c+t2f"
    assert rows[1]["dice_WT"] == "0.81"
    assert rows[0]["volume_ml_ET"] == ""
    assert rows[0]["reference_volume_ml_ET"] == "0"
    assert (rows[0]["idh_truth"], rows[0]["idh_prediction"]) == ("mutant", "mutant")
    assert rows[0]["idh_p_mutant"] == "0.9"
    assert (rows[2]["idh_abstained"], rows[0]["mgmt_truth"]) == ("True", "")
    assert evaluation.cases_csv([], tasks=TASKS) == "case_id\n"
