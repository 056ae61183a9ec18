"""Integrated diagnosis by the logic of WHO CNS5 (2021) for adult-type diffuse gliomas.

IDH splits first, 1p/19q only within IDH-mutant tumours:

    P(oligodendroglioma) = P(mutant) · P(codeleted | mutant)
    P(astrocytoma)       = P(mutant) · (1 − P(codeleted | mutant))
    P(glioblastoma)      = P(wildtype)

so the 1p/19q head is read as conditional on IDH-mutant. Histology and grade heads do not enter:
they check the result, and a disagreement is flagged. Images show neither TERT promoter, EGFR,
+7/−10, CDKN2A/B nor H3, and an IDH-wildtype glioma without those or necrosis is no glioblastoma:
every statement is "imaging suggests", never a diagnosis. Source: Louis et al., Neuro-Oncology 2021.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from gmmas_jax.cases.tasks import TASKS

GLIOBLASTOMA = "Glioblastoma, IDH-wildtype"
ASTROCYTOMA = "Astrocytoma, IDH-mutant"
OLIGODENDROGLIOMA = "Oligodendroglioma, IDH-mutant and 1p/19q-codeleted"
MUTANT_GLIOMA = "IDH-mutant diffuse glioma, 1p/19q not assessed"

TISSUE_TESTS = {
    GLIOBLASTOMA: (
        "IDH1/2, H3, and necrosis, microvascular proliferation, TERT promoter, EGFR or +7/−10"
    ),
    ASTROCYTOMA: "IDH1/2, ATRX or 1p/19q, and CDKN2A/B (homozygous deletion makes it grade 4)",
    OLIGODENDROGLIOMA: "IDH1/2 and whole-arm loss of 1p and 19q",
    MUTANT_GLIOMA: "IDH1/2, 1p/19q and CDKN2A/B",
}
"""What the pathologist would need to confirm each entry."""

_HISTOLOGY = {
    "glioblastoma": GLIOBLASTOMA,
    "astrocytoma": ASTROCYTOMA,
    "oligodendroglioma": OLIGODENDROGLIOMA,
}
_GRADES = {GLIOBLASTOMA: ("4",), ASTROCYTOMA: ("2", "3", "4"), OLIGODENDROGLIOMA: ("2", "3")}


@dataclass(frozen=True)
class Candidate:
    """One diagnosis and its probability in [0, 1]."""

    diagnosis: str
    probability: float


@dataclass(frozen=True)
class IntegratedDiagnosis:
    """Diagnoses, most probable first, and what in the predictions cannot all be true."""

    ranked: tuple[Candidate, ...]
    contradictions: tuple[str, ...]


def integrate(
    probabilities: Mapping[str, Sequence[float]], *, abstained: Collection[str] = ()
) -> IntegratedDiagnosis:
    """Combines the tasks' probabilities.

    Args:
        probabilities: by task, [k] floats in the order of `TASKS`.
        abstained: tasks whose prediction is withheld. They still enter the ranking with their
            probabilities, but what is withheld contradicts nothing.

    Returns:
        The ranked diagnoses, empty without an IDH estimate, and the contradictions.
    """
    if "idh" not in probabilities:
        return IntegratedDiagnosis((), ())
    wildtype, mutant = probabilities["idh"]
    candidates = [Candidate(GLIOBLASTOMA, wildtype)]
    if "codel_1p19q" in probabilities:
        _, codeleted = probabilities["codel_1p19q"]
        candidates.append(Candidate(OLIGODENDROGLIOMA, mutant * codeleted))
        candidates.append(Candidate(ASTROCYTOMA, mutant * (1 - codeleted)))
    else:
        candidates.append(Candidate(MUTANT_GLIOMA, mutant))
    ranked = tuple(sorted(candidates, key=lambda c: c.probability, reverse=True))
    answers = {
        task: TASKS[task][max(range(len(row)), key=row.__getitem__)]
        for task, row in probabilities.items()
        if task not in abstained
    }
    return IntegratedDiagnosis(ranked, tuple(_contradictions(answers)))


def compatible(answers: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the diagnoses that the answers on IDH and 1p/19q leave open.

    Args:
        answers: task to predicted class; withheld predictions have no entry.

    Returns:
        One diagnosis, or two where 1p/19q is not answered; empty where IDH is not answered.
    """
    if "idh" not in answers:
        return ()
    if answers["idh"] == "wildtype":
        return (GLIOBLASTOMA,)
    by_codeletion = {"codeleted": (OLIGODENDROGLIOMA,), "intact": (ASTROCYTOMA,)}
    return by_codeletion.get(answers.get("codel_1p19q", ""), (ASTROCYTOMA, OLIGODENDROGLIOMA))


def _contradictions(answers: Mapping[str, str]) -> list[str]:
    """Returns in words which of the answers (task to class) cannot all be true."""
    found = []
    if answers.get("idh") == "wildtype" and answers.get("codel_1p19q") == "codeleted":
        found.append(
            "1p/19q codeletion is predicted together with IDH-wildtype. Codeletion defines "
            "oligodendroglioma, which is IDH-mutant: at least one of the two is wrong. The ranking "
            "follows IDH."
        )
    diagnoses = compatible(answers)
    if not diagnoses:
        return found
    follows = " or ".join(diagnoses)
    histology = answers.get("histology")
    if histology is not None and _HISTOLOGY[histology] not in diagnoses:
        found.append(
            f"The histology estimate ({histology}) disagrees with what follows from IDH and "
            f"1p/19q: {follows}."
        )
    grades = sorted({grade for diagnosis in diagnoses for grade in _GRADES[diagnosis]})
    grade = answers.get("grade")
    if grade is not None and grade not in grades:
        found.append(
            f"WHO grade {grade} is predicted, but what follows from IDH and 1p/19q "
            f"({follows}) has {'grade' if len(grades) == 1 else 'grades'} "
            f"{' or '.join(grades)} only."
        )
    return found
