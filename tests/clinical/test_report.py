import base64
import html
import re

import numpy as np
import pytest

from gmmas_jax.clinical.abstention import NO_EVIDENCE, AbstentionRule, Evidence
from gmmas_jax.clinical.findings import build_findings
from gmmas_jax.clinical.overlay import Panel
from gmmas_jax.clinical.report import case_report, millilitres
from gmmas_jax.clinical.wording import percent

RULE = AbstentionRule()
PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def _page(
    case_id="case-1",
    whole=50.0,
    probabilities=None,
    warnings=(),
    labels=None,
    regions=None,
    evidence=None,
):
    findings = build_findings(
        case_id=case_id,
        model={
            "name": "gmmas",
            "config": "gmmas_mini",
            "weights_sha256": "0f" * 32,
            "trained_on": "patients",
        },
        present=("t1n", "t2w", "t2f"),
        warnings=warnings,
        volumes_ml={
            "labels": labels or {"NCR": 10.0, "ED": whole - 25, "ET": 15.0},
            "regions": regions or {"WT": whole, "TC": 25.0, "ET": 15.0},
        },
        probabilities=probabilities
        or {"idh": [0.03, 0.97], "codel_1p19q": [0.1, 0.9], "mgmt": [0.5, 0.5]},
        uncertainty={"idh": 0.01, "mgmt": 0.09},
        calibrated=("idh",),
        rule=RULE,
        evidence=evidence or Evidence(),
    )
    panels = [
        Panel(name, "axial", True, "axial, slice 3 of 9 from below", image)
        for name, image in [("t1n", PICTURE), ("t1c", None), ("t2w", PICTURE), ("t2f", PICTURE)]
    ]
    return case_report(findings, panels, rule=RULE)


def _text(page):
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    text = html.unescape(re.sub(r"<[^>]+>", " ", body))
    return re.sub(r"\s+", " ", text)


def test_the_statement_stands_first_and_last():
    text = _text(_page())
    assert text.count("Research use only") == 2
    assert text.index("Research use only") < text.index("Impression")
    assert text.rindex("Research use only") > text.index("In plain words")


def test_the_page_is_self_contained():
    page = _page()
    assert "default-src 'none'" in page
    assert page.count("data:image/png;base64,") == 3
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "<script" not in page
    assert "url(" not in page


def test_what_a_reader_needs_is_there():
    text = _text(_page(warnings=["t2w: slices are 5 mm thick."]))
    assert "A tumour of 50.0 mL was outlined, 15.0 mL of it enhancing." in text
    assert "Imaging suggests oligodendroglioma, IDH-mutant and 1p/19q-codeleted (87 %)" in text
    assert "This needs tissue" in text
    assert "T1 + contrast: not acquired" in text
    assert "enhancing tumour and core are guesses" in text
    assert "t2w: slices are 5 mm thick." in text
    assert "MGMT promoter methylation: the highest probability, 50 %, is below the limit" in text
    assert "were not calibrated" in text
    assert "0f0f" in text
    assert "three of the four" in text


def test_contradictions_are_shown():
    page = _page(probabilities={"idh": [0.9, 0.1], "codel_1p19q": [0.1, 0.9]})
    text = _text(page)
    assert "The predictions contradict each other" in text
    assert "Other predictions contradict this." in text


def test_without_a_tumour_no_probability_is_shown():
    text = _text(_page(whole=0.0, labels={"ED": 0.0}, regions={"WT": 0.0}))
    assert "No tumour was outlined." in text
    assert "97 %" not in text
    assert "All predictions of the tumour's type: no tumour was found." in text
    assert "does not prove that there is none" in text


def test_a_speck_is_called_a_speck():
    text = _text(_page(whole=0.05, labels={"ED": 0.05}, regions={"WT": 0.05}))
    assert "Only < 0.1 mL was outlined, too little to count as a tumour." in text


def test_names_are_escaped():
    page = _page(case_id="<script>alert(1)</script>", warnings=["<img src=x>"])
    assert "<script" not in page
    assert "<img src=x>" not in page
    assert "&lt;script&gt;" in page


def test_a_cavity_is_reported_apart_from_the_tumour():
    text = _text(
        _page(
            labels={"NCR": 0.0, "ED": 20.0, "ET": 0.0, "RC": 8.0},
            regions={"WT": 20.0, "TC": 0.0, "ET": 0.0, "RC": 8.0},
        )
    )
    assert "none of it enhancing. A resection cavity of 8.0 mL was outlined." in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0 %"), (0.004, "< 1 %"), (0.5, "50 %"), (0.996, "> 99 %"), (1.0, "100 %")],
)
def test_rounding_never_makes_a_certainty(value, text):
    assert percent(value).replace("\xa0", " ") == text
    assert percent(float(np.float32(value))).replace("\xa0", " ") == text


def test_volumes_are_written_with_one_decimal():
    assert [millilitres(v) for v in (0.0, 0.04, 0.26, 123.44)] == [
        "0.0 mL", "< 0.1 mL", "0.3 mL", "123.4 mL"
    ]  # fmt: skip


TASKS = ("idh", "codel_1p19q", "mgmt")


def test_what_is_no_evidence_is_withheld_from_doctor_and_patient():
    page = _page(evidence=Evidence(withheld=TASKS, reason=NO_EVIDENCE))
    text = _text(page)
    assert "IDH mutation, 1p/19q codeletion, MGMT promoter methylation: this network" in text
    assert "learned them from generated patients alone" in text
    assert "No tumour type is suggested" in text
    assert "nobody has shown that what it learned there about kinds of tumours holds" in text
    for absent in ("97", "oligodendroglioma", "IDH-mutant", "Integrated diagnosis", "needs tissue"):
        assert absent not in text
    assert "A tumour of 50.0 mL was outlined" in text


def test_an_experiment_is_marked_beside_every_answer():
    text = _text(_page(evidence=Evidence(experimental=TASKS, reason=NO_EVIDENCE)))
    assert "Experimental: no evidence about a real patient" in text
    assert text.index("Experimental: no evidence") < text.index("Images")
    for title in ("IDH mutation", "1p/19q codeletion", "MGMT promoter methylation"):
        assert f"{title} (experimental)" in text
    assert "Molecular and histological type (experimental)" in text
    assert "Integrated diagnosis, as far as images go (experimental)" in text
    assert "This is an experiment and no evidence" in text
    assert "xperiment" not in _text(_page())
