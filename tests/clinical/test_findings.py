import json
import math
from datetime import UTC, datetime

import numpy as np
import pytest

from gmmas_jax.cases.findings import validate_findings
from gmmas_jax.clinical.abstention import NO_EVIDENCE, AbstentionRule, Evidence, evidence_of
from gmmas_jax.clinical.findings import build_findings
from gmmas_jax.clinical.suggestion import suggest
from gmmas_jax.clinical.volumes import volumes_ml

RULE = AbstentionRule()


def _findings(whole_tumour_ml=50.0, **changes):
    arguments = {
        "case_id": "case-1",
        "model": {
            "name": "gmmas",
            "config": "gmmas_mini",
            "weights_sha256": "0f" * 32,
            "trained_on": "patients",
        },
        "present": ("t2f", "t1c"),
        "warnings": ("t1c: a warning",),
        "volumes_ml": {
            "labels": {"NCR": 10.0, "ED": 25.0, "ET": 15.0},
            "regions": {"WT": whole_tumour_ml, "TC": 25.0, "ET": 15.0},
        },
        "probabilities": {
            "idh": np.array([0.1, 0.9], np.float32),
            "codel_1p19q": np.array([0.2, 0.8], np.float32),
            "mgmt": np.array([0.45, 0.55], np.float32),
        },
        "uncertainty": {"idh": 0.01, "codel_1p19q": None},
        "calibrated": ("idh",),
        "rule": RULE,
    }
    return build_findings(**(arguments | changes))


def test_the_document_is_valid_json_and_valid_by_the_schema():
    findings = _findings(created=datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC))
    validate_findings(json.loads(json.dumps(findings, allow_nan=False)))
    assert findings["created"] == "2025-01-02T03:04:05Z"
    assert findings["sequences"] == {"present": ["t1c", "t2f"], "missing": ["t1n", "t2w"]}
    idh = findings["tasks"]["idh"]
    assert (idh["prediction"], idh["calibrated"], idh["abstained"]) == ("mutant", True, False)
    assert findings["tasks"]["codel_1p19q"]["uncertainty"] is None
    first = findings["integrated_diagnosis"]["ranked"][0]
    assert first["diagnosis"].startswith("Oligodendroglioma")
    assert first["probability"] == pytest.approx(0.72, abs=1e-5)


def test_a_prediction_below_the_limit_is_withheld_with_its_reason():
    mgmt = _findings()["tasks"]["mgmt"]
    assert mgmt["abstained"]
    assert mgmt["prediction"] is None
    assert "55" in mgmt["reason"]
    assert mgmt["probabilities"] == pytest.approx([0.45, 0.55], abs=1e-5)


def test_nothing_molecular_is_said_without_a_tumour():
    findings = _findings(whole_tumour_ml=0.05)
    assert all(task["abstained"] for task in findings["tasks"].values())
    assert {task["reason"] for task in findings["tasks"].values()} == {"no tumour was found"}
    assert findings["integrated_diagnosis"] == {"ranked": [], "contradictions": []}


@pytest.mark.parametrize("row", [[0.5, 0.6], [math.nan, 1.0], [0.0, 0.0]])
def test_improper_probabilities_are_refused(row):
    with pytest.raises(ValueError, match="sum to 1"):
        _findings(probabilities={"idh": row})


@pytest.mark.parametrize(
    ("probabilities", "uncertainty", "found", "word"),
    [
        ([0.6, 0.4], None, True, None),
        ([0.59, 0.41], None, True, "59\u00a0%, is below the limit"),
        ([0.598, 0.402], None, True, "just under 60\u00a0%, is below the limit"),
        ([0.1, 0.9], 0.05, True, None),
        ([0.1, 0.9], 0.051, True, "disagree"),
        ([0.1, 0.9], math.nan, True, "disagree"),
        ([0.1, 0.9], 0.0, False, "no tumour"),
        ([0.2, 0.3, 0.5], None, True, "50"),
    ],
)
def test_abstention_rule(probabilities, uncertainty, found, word):
    reason = RULE.reason(probabilities, uncertainty=uncertainty, tumour_found=found)
    assert (reason is None) if word is None else (word in reason)


def test_limits_are_fields():
    strict = AbstentionRule(min_probability=0.95, max_uncertainty=0.001, min_tumour_ml=60.0)
    assert all(task["abstained"] for task in _findings(rule=strict)["tasks"].values())
    assert RULE.tumour_found(0.1)
    assert not RULE.tumour_found(0.099)


def test_suggestion_names_only_what_was_answered():
    confident = suggest(_findings(), rule=RULE)
    assert (
        "Imaging suggests oligodendroglioma, IDH-mutant and 1p/19q-codeleted" in confident.sentence
    )
    assert "1p and 19q" in confident.tissue

    open_type = suggest(
        _findings(probabilities={"idh": [0.1, 0.9], "codel_1p19q": [0.45, 0.55]}), rule=RULE
    )
    assert "stays open" in open_type.sentence
    assert "could not tell which kind" in open_type.plain

    leaning = suggest(
        _findings(probabilities={"idh": [0.3, 0.7], "codel_1p19q": [0.3, 0.7]}), rule=RULE
    )
    assert "leans towards, without being sure of, oligodendroglioma" in leaning.sentence

    undecided = suggest(_findings(probabilities={"idh": [0.5, 0.5]}), rule=RULE)
    assert "was withheld" in undecided.sentence
    assert undecided.tissue == ""
    assert "not among" in suggest(_findings(probabilities={}), rule=RULE).sentence
    assert "does not exclude" in suggest(_findings(whole_tumour_ml=0.0), rule=RULE).sentence

    clash = suggest(
        _findings(probabilities={"idh": [0.9, 0.1], "codel_1p19q": [0.1, 0.9]}), rule=RULE
    )
    assert "contradict" in clash.sentence


def test_volumes_by_hand():
    label = np.zeros((10, 10, 10), np.uint8)
    label[:5, 0, 0] = 1
    label[5:, 0, 0] = 2
    label[0, 1, :4] = 3
    volumes = volumes_ml(label, voxel_ml=0.5, known_labels=("NCR", "ED", "ET"))
    assert volumes["labels"] == {"NCR": 2.5, "ED": 2.5, "ET": 2.0}
    assert volumes["regions"] == {"WT": 7.0, "TC": 4.5, "ET": 2.0}


def test_a_label_the_model_does_not_know_is_neither_zero_nor_silent():
    label = np.full((2, 2, 2), 4, np.uint8)
    assert volumes_ml(label, voxel_ml=1, known_labels=("RC",)) == {
        "labels": {"RC": 8.0}, "regions": {"RC": 8.0}
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"\[4\]"):
        volumes_ml(label, voxel_ml=1, known_labels=("NCR", "ED", "ET"))


@pytest.mark.parametrize("trained_on", ["patients", "unknown"])
def test_answers_learned_of_patients_are_shown(trained_on):
    assert evidence_of(["idh"], trained_on=trained_on, experimental=True) == Evidence()


def test_answers_learned_of_generated_patients_alone_are_withheld_unless_asked_for():
    tasks = ["idh", "mgmt"]
    held = evidence_of(tasks, trained_on="generated", experimental=False)
    assert (held.withheld, held.experimental) == (("idh", "mgmt"), ())
    shown = evidence_of(tasks, trained_on="generated", experimental=True)
    assert (shown.withheld, shown.experimental) == ((), ("idh", "mgmt"))
    assert held.reason == shown.reason == NO_EVIDENCE
    assert evidence_of([], trained_on="generated", experimental=False) == Evidence()


TASKS = ("idh", "codel_1p19q", "mgmt")


def test_a_withheld_task_leaves_no_trace_but_its_name():
    findings = _findings(evidence=Evidence(withheld=TASKS, reason=NO_EVIDENCE))
    assert findings["tasks"] == {}
    assert findings["tasks_withheld"] == {"tasks": list(TASKS), "reason": NO_EVIDENCE}
    assert findings["integrated_diagnosis"] == {"ranked": [], "contradictions": []}
    assert "0.9" not in json.dumps(findings)
    suggestion = suggest(findings, rule=RULE)
    assert "No tumour type is suggested" in suggestion.sentence
    assert "are no evidence" in suggestion.sentence
    assert "pictures that a computer made" in suggestion.plain
    assert suggestion.tissue == ""


def test_an_experimental_task_is_marked_everywhere():
    findings = _findings(evidence=Evidence(experimental=TASKS, reason=NO_EVIDENCE))
    assert all(task["experimental"] for task in findings["tasks"].values())
    assert findings["tasks_withheld"] == {"tasks": [], "reason": None}
    suggestion = suggest(findings, rule=RULE)
    assert suggestion.sentence.startswith("Experimental, no evidence about a real patient: Imag")
    assert suggestion.plain.endswith("not with pictures of people.")
    assert not any(task["experimental"] for task in _findings()["tasks"].values())
