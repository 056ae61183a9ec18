"""The schema of findings.json."""

import copy
import functools
import operator

import jsonschema
import pytest

from gmmas_jax.cases.findings import (
    SCHEMA_VERSION,
    STATEMENT,
    findings_schema,
    validate_findings,
)
from gmmas_jax.cases.labels import LABELS, REGIONS
from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.cases.tasks import TASKS
from gmmas_jax.errors import UserError

FINDINGS = {
    "schema_version": SCHEMA_VERSION,
    "case": "case-1",
    "model": {
        "name": "gmmas",
        "config": "gmmas_mini",
        "weights_sha256": "0" * 64,
        "trained_on": "patients",
    },
    "sequences": {"present": ["t1c", "t2f"], "missing": ["t1n", "t2w"]},
    "warnings": ["slices of 5.0 mm"],
    "volumes_ml": {"labels": {"NCR": 1.0, "ED": 2.0, "ET": 0.5}, "regions": {"WT": 3.5, "TC": 1.5}},
    "tasks": {
        "idh": {
            "classes": ["wildtype", "mutant"],
            "probabilities": [0.81, 0.19],
            "prediction": "wildtype",
            "calibrated": False,
            "uncertainty": 0.05,
            "abstained": False,
            "reason": None,
            "experimental": False,
        },
        "mgmt": {
            "classes": ["unmethylated", "methylated"],
            "probabilities": [0.5, 0.5],
            "prediction": None,
            "calibrated": False,
            "uncertainty": None,
            "abstained": True,
            "reason": "not better than chance on held-out cases",
            "experimental": False,
        },
    },
    "tasks_withheld": {"tasks": ["grade"], "reason": "no evidence"},
    "integrated_diagnosis": {
        "ranked": [
            {"diagnosis": "Glioblastoma, IDH-wildtype", "probability": 0.8},
            {"diagnosis": "Astrocytoma, IDH-mutant", "probability": 0.2},
        ],
        "contradictions": [],
    },
    "statement": STATEMENT,
    "created": "2026-01-02T03:04:05Z",
}


def changed(path, value):
    findings = copy.deepcopy(FINDINGS)
    *parents, last = path
    functools.reduce(operator.getitem, parents, findings)[last] = value
    return findings


def test_valid_findings_pass():
    jsonschema.Draft202012Validator.check_schema(findings_schema())
    validate_findings(FINDINGS)
    validate_findings(changed(["created"], "2026-01-02T03:04:05.123+00:00"))
    validate_findings(changed(["tasks"], {}))


def test_the_schema_knows_the_same_words_as_the_library():
    schema = findings_schema()
    volumes = schema["properties"]["volumes_ml"]["properties"]
    assert volumes["labels"]["propertyNames"]["enum"] == list(LABELS[1:])
    assert volumes["regions"]["propertyNames"]["enum"] == list(REGIONS)
    assert schema["properties"]["tasks"]["propertyNames"]["enum"] == list(TASKS)
    assert schema["$defs"]["sequences"]["items"]["enum"] == list(SEQUENCES)
    assert schema["properties"]["schema_version"]["const"] == SCHEMA_VERSION


@pytest.mark.parametrize("field", FINDINGS)
def test_every_field_is_required(field):
    findings = {name: value for name, value in FINDINGS.items() if name != field}
    with pytest.raises(UserError, match=field):
        validate_findings(findings)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (["schema_version"], "1.0", ["schema_version", "1.1"]),
        (["case"], "", ["case"]),
        (["extra"], 1, ["extra"]),
        (["model", "weights_sha256"], "abc", ["model.weights_sha256"]),
        (["sequences", "present"], [], ["sequences.present"]),
        (["sequences", "present"], ["t1c", "flair"], ["flair"]),
        (["sequences", "missing"], ["t1n"], ["sequences"]),
        (["sequences", "missing"], ["t1n", "t2w", "t1c"], ["sequences"]),
        (["volumes_ml", "labels", "ET"], -1.0, ["volumes_ml.labels.ET"]),
        (["volumes_ml", "regions", "XX"], 1.0, ["XX"]),
        (["tasks", "idh", "probabilities"], [0.9, 0.9], ["tasks.idh.probabilities"]),
        (["tasks", "idh", "probabilities"], [0.9, 0.05, 0.05], ["tasks.idh.probabilities"]),
        (["tasks", "idh", "probabilities"], [1.5, -0.5], ["tasks.idh.probabilities.0"]),
        (["tasks", "idh", "classes"], ["mutant", "wildtype"], ["tasks.idh.classes"]),
        (["tasks", "idh", "prediction"], "maybe", ["tasks.idh.prediction"]),
        (["tasks", "idh", "prediction"], None, ["tasks.idh.prediction"]),
        (["tasks", "idh", "calibrated"], 1, ["tasks.idh.calibrated"]),
        (["tasks", "mgmt", "prediction"], "methylated", ["tasks.mgmt"]),
        (["tasks", "mgmt", "reason"], None, ["tasks.mgmt"]),
        (["model", "trained_on"], "mice", ["model.trained_on"]),
        (["tasks", "idh", "experimental"], "no", ["tasks.idh.experimental"]),
        (["tasks_withheld", "tasks"], ["idh"], ["tasks_withheld.tasks"]),
        (["tasks_withheld", "tasks"], [], ["tasks_withheld.reason"]),
        (["tasks_withheld", "reason"], None, ["tasks_withheld.reason"]),
        (["tasks_withheld", "tasks"], ["colour"], ["colour"]),
        (["integrated_diagnosis", "ranked", 0, "probability"], 0.1, ["descending"]),
        (["statement"], "For clinical use.", ["statement"]),
        (["created"], "yesterday", ["created"]),
    ],
)
def test_a_fault_is_told_with_its_field(path, value, words):
    with pytest.raises(UserError) as caught:
        validate_findings(changed(path, value), "out/findings.json")
    for word in ["out/findings.json", *words]:
        assert word in str(caught.value)
