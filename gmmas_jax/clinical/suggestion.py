"""The one cautious sentence that sums up findings, for the physician and for the patient."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gmmas_jax.clinical.abstention import AbstentionRule
from gmmas_jax.clinical.diagnosis import MUTANT_GLIOMA, TISSUE_TESTS, compatible
from gmmas_jax.clinical.wording import percent


@dataclass(frozen=True)
class Suggestion:
    """What the images suggest.

    Attributes:
        sentence: for the physician.
        tissue: which tests on tissue would settle it; empty where nothing is suggested.
        plain: the same for a lay reader.
    """

    sentence: str
    tissue: str
    plain: str


_PLAIN_NOTHING = (
    "The program was not sure which kind of tumour this is, so it says nothing about it."
)

_PLAIN_WITHHELD = (
    "The program says nothing about which kind of tumour this is. It was taught with pictures that "
    "a computer made, not with pictures of people, and nobody has shown that what it learned there "
    "about kinds of tumours holds for people."
)
_PLAIN_EXPERIMENTAL = (
    "This is an experiment and no evidence: the program was taught with pictures that a computer "
    "made, not with pictures of people."
)


def suggest(findings: Mapping[str, Any], *, rule: AbstentionRule) -> Suggestion:
    """Words the integrated diagnosis.

    Args:
        findings: a valid findings.json document.
        rule: the limits the findings were made with.

    Returns:
        The sentences; they never name a diagnosis whose deciding prediction was withheld.
    """
    if not rule.tumour_found(findings["volumes_ml"]["regions"]["WT"]):
        return Suggestion(
            "No tumour type is suggested. This does not exclude a tumour.",
            "",
            "The program did not mark any tumour. That does not prove that there is none: small or "
            "faint changes can be missed.",
        )
    tasks = findings["tasks"]
    if "idh" in findings["tasks_withheld"]["tasks"]:
        return Suggestion(
            "No tumour type is suggested: this model's answers about it are withheld, since they "
            "are no evidence.",
            "",
            _PLAIN_WITHHELD,
        )
    suggestion = _of_answers(findings, rule)
    if any(task["experimental"] for task in tasks.values()):
        return Suggestion(
            f"Experimental, no evidence about a real patient: {suggestion.sentence}",
            suggestion.tissue,
            f"{suggestion.plain} {_PLAIN_EXPERIMENTAL}",
        )
    return suggestion


def _of_answers(findings: Mapping[str, Any], rule: AbstentionRule) -> Suggestion:
    """Words the diagnosis that follows from what was answered."""
    tasks = findings["tasks"]
    answers = {name: task["prediction"] for name, task in tasks.items() if not task["abstained"]}
    ranked = {
        entry["diagnosis"]: entry["probability"]
        for entry in findings["integrated_diagnosis"]["ranked"]
    }
    diagnoses = compatible(answers)
    if not diagnoses:
        cause = "was withheld" if "idh" in tasks else "is not among this model's predictions"
        return Suggestion(
            f"No tumour type is suggested: IDH status, which decides first, {cause}.",
            "",
            _PLAIN_NOTHING,
        )
    clash = bool(findings["integrated_diagnosis"]["contradictions"])
    but = " Other predictions contradict this." if clash else ""
    plain_but = " Some of its other answers do not fit with this." if clash else ""
    if len(diagnoses) > 1:
        mutant = dict(zip(tasks["idh"]["classes"], tasks["idh"]["probabilities"], strict=True))
        return Suggestion(
            f"Imaging suggests an IDH-mutant diffuse glioma ({percent(mutant['mutant'])}); whether "
            f"astrocytoma or oligodendroglioma stays open.{but}",
            TISSUE_TESTS[MUTANT_GLIOMA],
            "The program found the pictures more like those of a group of tumours called "
            f"“IDH-mutant glioma”. It could not tell which kind within that group.{plain_but}",
        )
    (diagnosis,) = diagnoses
    name = diagnosis[:1].lower() + diagnosis[1:]
    sure = ranked[diagnosis] >= rule.min_probability
    return Suggestion(
        f"Imaging {'suggests' if sure else 'leans towards, without being sure of,'} "
        f"{name} ({percent(ranked[diagnosis])}).{but}",
        TISSUE_TESTS[diagnosis],
        f"The program found the pictures {'more' if sure else 'a little more'} like those of a "
        f"tumour called “{name}” than like others.{plain_but}",
    )
