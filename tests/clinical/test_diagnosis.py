import pytest

from gmmas_jax.clinical import diagnosis
from gmmas_jax.clinical.diagnosis import ASTROCYTOMA, GLIOBLASTOMA, MUTANT_GLIOMA, OLIGODENDROGLIOMA


def test_probabilities_multiply_down_the_tree():
    result = diagnosis.integrate({"idh": [0.1, 0.9], "codel_1p19q": [0.2, 0.8]})
    assert [c.diagnosis for c in result.ranked] == [OLIGODENDROGLIOMA, ASTROCYTOMA, GLIOBLASTOMA]
    assert [c.probability for c in result.ranked] == pytest.approx([0.72, 0.18, 0.1])
    assert result.contradictions == ()


def test_without_1p19q_the_mutant_branch_stays_whole():
    result = diagnosis.integrate({"idh": [0.1, 0.9]})
    assert [c.diagnosis for c in result.ranked] == [MUTANT_GLIOMA, GLIOBLASTOMA]
    assert diagnosis.integrate({"mgmt": [0.5, 0.5]}).ranked == ()


@pytest.mark.parametrize(
    ("idh", "codeletion", "histology", "grade", "words"),
    [
        # (wildtype, intact) etc. as the larger probability of each pair.
        ("wildtype", "codeleted", None, None, ["codeletion is predicted together"]),
        ("wildtype", "intact", "glioblastoma", "4", []),
        ("wildtype", "intact", "astrocytoma", None, ["histology estimate (astrocytoma)"]),
        ("wildtype", "intact", None, "2", ["WHO grade 2"]),
        ("mutant", "codeleted", "oligodendroglioma", "3", []),
        ("mutant", "codeleted", "astrocytoma", "4", ["histology estimate", "grades 2 or 3 only"]),
        ("mutant", "intact", "astrocytoma", "4", []),
        ("mutant", "intact", "oligodendroglioma", None, ["histology estimate"]),
        ("mutant", None, "astrocytoma", "4", []),
        ("mutant", None, "oligodendroglioma", "2", []),
        ("mutant", None, "glioblastoma", None, ["histology estimate (glioblastoma)"]),
        (None, "codeleted", "glioblastoma", "2", []),
    ],
)
def test_contradictions_of_who_cns5(idh, codeletion, histology, grade, words):
    answers = {"idh": idh, "codel_1p19q": codeletion, "histology": histology, "grade": grade}
    probabilities = {}
    for task, answer in answers.items():
        classes = diagnosis.TASKS[task]
        rest = 0.1 / (len(classes) - 1)
        probabilities[task] = [0.9 if name == answer else rest for name in classes]
    abstained = [task for task, answer in answers.items() if answer is None]
    probabilities |= {t: [1 / len(diagnosis.TASKS[t])] * len(diagnosis.TASKS[t]) for t in abstained}
    found = diagnosis.integrate(probabilities, abstained=abstained).contradictions
    assert len(found) == len(words)
    for text, word in zip(found, words, strict=True):
        assert word in text


def test_what_is_withheld_contradicts_nothing():
    probabilities = {"idh": [0.9, 0.1], "codel_1p19q": [0.45, 0.55]}
    assert len(diagnosis.integrate(probabilities).contradictions) == 1
    assert diagnosis.integrate(probabilities, abstained=["codel_1p19q"]).contradictions == ()


def test_an_answered_idh_decides_even_when_another_entry_ranks_first():
    # P(mutant) = 0.62 splits into 0.31 and 0.31, below P(wildtype) = 0.38.
    result = diagnosis.integrate(
        {"idh": [0.38, 0.62], "codel_1p19q": [0.5, 0.5], "histology": [0.1, 0.8, 0.1]},
        abstained=["codel_1p19q"],
    )
    assert result.ranked[0].diagnosis == GLIOBLASTOMA
    assert result.contradictions == ()
    assert diagnosis.compatible({"idh": "mutant"}) == (ASTROCYTOMA, OLIGODENDROGLIOMA)
