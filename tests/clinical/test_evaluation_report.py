import html
import re

import numpy as np
import pytest

from gmmas_jax.cases.sequences import SUBSETS
from gmmas_jax.clinical import comparison, figures
from gmmas_jax.clinical.evaluation_report import evaluation_report
from gmmas_jax.metrics.evaluation import CaseResult, summarise

TASKS = {
    "idh": ("wildtype", "mutant"),
    "histology": ("glioblastoma", "astrocytoma", "oligodendroglioma"),
    "mgmt": ("unmethylated", "methylated"),
}
PNG = b"\x89PNG"


def _results(n=12, mgmt_score=0.5):
    """IDH is always right, MGMT is `mgmt_score` for the methylated cases and 0.5 for the others."""
    results = []
    for i in range(n):
        mutant, methylated = i % 2, int(i % 4 < 2)
        score = mgmt_score if methylated else 0.5
        histology = np.full(3, 0.1)
        histology[i % 3] = 0.8
        results.append(
            CaseResult(
                f"case-{i}",
                dice={"WT": 0.6 + 0.03 * i, "TC": 0.5},
                hd95={"WT": 4.0, "TC": 373.1},
                nsd={"WT": 0.8, "TC": 0.4},
                reference_volumes_ml={"WT": 40.0, "TC": 0.0},
                task_probabilities={
                    "idh": [0.9 - 0.8 * mutant, 0.1 + 0.8 * mutant],
                    "histology": histology,
                    "mgmt": [1 - score, score],
                },
                task_truth={"idh": mutant, "histology": i % 3, "mgmt": methylated},
                task_abstained={"idh": False, "mgmt": True},
            )
        )
    return results


def _text(results, *, subset_dice=None, **options):
    metrics = summarise(results, tasks=TASKS, seed=0, subset_dice=subset_dice, repeats=100)
    arguments = {"tasks": TASKS, "title": "gmmas_mini on a cohort", "synthetic": True}
    page = evaluation_report(metrics, results, **(arguments | options))
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", body))), page


def test_the_page_says_what_it_must():
    text, page = _text(_results())
    assert text.count("Research use only") == 2
    assert "gmmas-whole-region-1" in text
    assert "Synthetic patients are not patients." in text
    assert "With 12 cases the intervals are wide" in text
    assert "IDH-wildtype 6, IDH-mutant 6" in text
    assert "Majority accuracy" in text
    assert "absent in 12 of the references" in text
    assert "0.765 [" in text  # mean WT Dice
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "<script" not in page


def test_mgmt_on_synthetic_patients_is_explained_with_its_verdict():
    text, _ = _text(_results())
    assert "MGMT leaves no trace in the images, by construction." in text
    assert "contains 0.5 is the correct answer. It does." in text
    text, _ = _text(_results(mgmt_score=0.9))
    assert "It does not:" in text
    assert "leaks the label" in text
    text, _ = _text(_results(), synthetic=False)
    assert "by construction" not in text
    assert "Synthetic patients" not in text


def test_an_accuracy_no_better_than_the_majority_is_named():
    text, page = _text(_results())
    assert "No better than always naming the most frequent class: MGMT" in text
    assert page.count('class="number worse"') == 1


def test_subsets_are_in_order_and_the_dearest_loss_is_bold():
    subset_dice = {
        s: [{"WT": 0.5 + 0.3 * ("t2f" in s), "TC": 0.2 + 0.5 * ("t1c" in s)}] for s in SUBSETS
    }
    text, page = _text(_results(), subset_dice=subset_dice)
    assert page.count("●") == sum(len(s) for s in SUBSETS)
    assert page.count("○") == 60 - 32
    costs = re.findall(r"<tr><td>(T[^<]*)</td>(.*?)</tr>", page[page.index("Left out") :], re.S)
    assert [name for name, _ in costs[:4]] == ["T1", "T1 + contrast", "T2", "T2-FLAIR"]
    bold = {name: re.findall(r"<b>([^<]*)</b>", cells) for name, cells in costs[:4]}
    assert bold == {"T1": [], "T1 + contrast": ["−50.0"], "T2": [], "T2-FLAIR": ["−30.0"]}
    assert "+0.0" not in text


def test_what_a_sequence_is_worth_is_told_of_the_same_cases_alone():
    """One case has no T2: it counts for all but T2, and not for all four."""
    subset_dice = {s: [{"WT": 0.5}] for s in SUBSETS}
    subset_dice[("t1n", "t1c", "t2f")].append({"WT": 0.1})
    _, page = _text(_results(), subset_dice=subset_dice)
    costs = page[page.index("Left out") :]
    named = re.findall(r"<tr><td>(T[^<]*)</td>(.*?)</tr>", costs, re.S)
    assert [name for name, _ in named[:3]] == ["T1", "T1 + contrast", "T2-FLAIR"]
    # No mask outlines the core: nothing is known of it.
    assert all("–" in cells for _, cells in named[:3])


def test_some_subsets_or_none_are_a_page_too():
    text, _ = _text(_results(), subset_dice={("t1c",): [{"WT": 0.5}]})
    assert "Any of the four sequences" in text
    assert "Left out" not in text
    text, _ = _text(_results())
    assert "Any of the four sequences" not in text


def test_a_cohort_without_masks_or_labels_is_a_page():
    text, _ = _text([CaseResult("a"), CaseResult("b")])
    assert "Segmentation" not in text.replace("segmentation protocol", "")
    assert "not defined" in text
    assert _text([])[0]


def test_names_are_escaped_and_details_shown():
    example = comparison.Example("worst", "<b>x</b>", {"WT": 0.1}, PNG)
    text, page = _text(
        _results(), title="<i>t</i>", examples=[example], details={"weights": "abc123"}
    )
    assert "<i>t</i>" not in page
    assert "<b>x</b>" not in page
    assert "Worst: <b>x</b>" in text
    assert "weights: abc123" in text


def test_best_median_and_worst():
    results = _results(5)
    assert comparison.pick_examples(results) == {
        "best": "case-4", "median": "case-2", "worst": "case-0"
    }  # fmt: skip
    assert comparison.pick_examples([*results[:1], CaseResult("no mask")]) == {"best": "case-0"}
    assert comparison.pick_examples([]) == {}


@pytest.mark.parametrize("sequences", [("t1c", "t2f"), ("t2w",)])
def test_comparison_is_drawn_with_any_sequence(sequences):
    reference = np.zeros((12, 14, 10), np.uint8)
    reference[3:8, 3:9, 3:7] = 2
    reference[4:6, 4:6, 4:6] = 3
    images = dict.fromkeys(sequences, (reference + 1).astype(np.float32))
    for pair in [(np.roll(reference, 1, 0), reference), (reference, reference * 0)]:
        image = comparison.comparison_png(images, *pair, spacing=(1.0, 1.0, 1.0), dpi=20)
        assert image.startswith(PNG)


def test_figures_without_data_are_none():
    assert figures.training_curves([]) is None
    assert figures.training_curves([{"step": 1, "learning_rate": 0.1}]) is None
    assert figures.score_boxes([CaseResult("a")], ["WT"]) is None
    assert figures.roc_curves([CaseResult("a")], TASKS) is None
    assert figures.reliability_diagrams([CaseResult("a")], TASKS) is None


def test_figures_are_drawn():
    records = [
        {"step": s, "kind": "train", "loss": 1 / s, "loss/idh": 1 / s, "dice/WT": 1.0}
        for s in (1, 2, 3)
    ]
    # A metric that starts late is drawn from where it starts.
    records.append({"step": 4, "kind": "train", "accuracy/idh": 0.5})
    assert figures.training_curves(records).startswith(PNG)
    one_class = [r for r in _results() if r.task_truth["idh"] == 1]
    for results in (_results(), one_class):
        assert figures.roc_curves(results, TASKS).startswith(PNG)
        assert figures.reliability_diagrams(results, TASKS).startswith(PNG)
    assert figures.score_boxes(_results(), ["WT", "TC"]) == figures.score_boxes(
        _results(), ["WT", "TC"]
    )


def test_tasks_learned_by_rules_are_called_that():
    text, _ = _text(_results(), synthetic=False, learned_rules=True)
    assert "learned the tumour's type from generated patients alone" in text
    text, _ = _text(_results(), synthetic=False)
    assert "generated patients alone" not in text
