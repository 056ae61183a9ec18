"""What weights were trained on: recorded, read, and said by the card."""

import dataclasses
from typing import Any

import pytest

from gmmas_jax.config import base_config, to_dict
from gmmas_jax.export.card import model_card
from gmmas_jax.export.provenance import begun_from, gone_on, of_cases, of_stream, trained_on


@dataclasses.dataclass
class TrainingCase:
    patient_id: str
    site: str | None
    tasks: dict[str, str] = dataclasses.field(default_factory=dict)


def cases(*sites: str | None) -> list[TrainingCase]:
    return [TrainingCase(f"p{i}", site, {"idh": "mutant"}) for i, site in enumerate(sites)]


def card(made: dict[str, Any], **own: Any) -> str:
    own = {"steps": 12, "averaged": True, "stored_as": "float32"} | own
    config = to_dict(base_config()) | {"provenance": made | own}
    return model_card(config, version="1", parameters=5)


@pytest.mark.parametrize(
    ("sites", "expected"),
    [
        (("synthetic", "synthetic"), "generated"),
        (("synthetic", "here"), "patients"),
        (("synthetic", None), "patients"),
        ((None,), "patients"),
        ((), "patients"),
    ],
)
def test_one_real_case_makes_them_patients(sites, expected):
    made = of_cases(cases(*sites), ["idh"])
    assert made["trained_on"] == expected
    assert made["class_counts"] == {"idh": {"wildtype": 0, "mutant": len(sites)}}
    assert trained_on({"provenance": made}) == expected


@pytest.mark.parametrize("config", [{}, {"provenance": None}, {"provenance": {"trained_on": "x"}}])
def test_what_is_not_stated_is_unknown(config):
    assert trained_on(config) == "unknown"


def test_the_card_of_an_endless_stream():
    text = card(of_stream(["idh"]), stored_as="bfloat16")
    assert "Data: none but generated." in text
    assert "24 in all" in text
    assert "no scan of any patient was used" in text
    assert "are no evidence" in text
    assert "stored as bfloat16" in text
    assert "training cases per class" not in text


def test_the_card_of_a_synthetic_cohort():
    text = card(of_cases(cases("synthetic", "synthetic"), ["idh"]))
    assert "Data: none but generated. 2 cases of 2 patients, all made by `gmmas synth`" in text
    assert "are no evidence" in text
    assert "| idh | wildtype: 0, mutant: 2 | 0 |" in text


def test_the_card_of_patients_claims_no_more():
    text = card(of_cases(cases("here", "synthetic"), ["idh"]), averaged=False)
    assert "2 cases of 2 patients; site: here, synthetic." in text
    assert "none but generated" not in text
    assert "are no evidence" not in text
    assert "training patients are synthetic" in text
    assert "those of the last step" in text


@pytest.mark.parametrize(
    ("own", "before", "expected"),
    [
        ("generated", "generated", "generated"),
        ("generated", "patients", "patients"),
        ("patients", "generated", "patients"),
        ("patients", "unknown", "patients"),
        ("generated", "unknown", "unknown"),
    ],
)
def test_a_run_that_goes_on_from_weights_owes_to_their_patients_too(own, before, expected):
    section = of_stream(["idh"]) | {"trained_on": own}
    weights = {"provenance": {"trained_on": before, "steps": 2000}}
    made = gone_on(section, weights, sha256="ab" * 32)
    assert trained_on({"provenance": made}) == expected
    assert begun_from({"provenance": made}) == "the weights of sha256 abababababab…"
    assert begun_from({"provenance": section}) == begun_from({}) == "random weights"


def test_the_card_says_what_training_began_with():
    weights = {"provenance": of_stream(["idh"]) | {"steps": 2000}}
    text = card(gone_on(of_stream(["idh"]), weights, sha256="ab" * 32))
    assert "began with weights of 2,000 steps (sha256 abababababab…, trained on generated)" in text
    assert "began with" not in card(of_stream(["idh"]))
