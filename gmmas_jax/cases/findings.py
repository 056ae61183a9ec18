"""The schema of `findings.json`, and what a schema cannot say."""

import functools
import json
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

import jsonschema

from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.cases.tasks import TASKS
from gmmas_jax.errors import UserError

SCHEMA_VERSION = "1.1"

STATEMENT = (
    "Research use only. This is not a medical device. The findings were computed without a "
    "physician's review and must not be used for diagnosis or treatment."
)
"""The sentence that goes with every result."""

_ROUNDING = 0.01


@functools.cache
def findings_schema() -> dict[str, Any]:
    """Returns the JSON schema (draft 2020-12) of `findings.json`."""
    text = resources.files("gmmas_jax.cases").joinpath("findings.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def validate_findings(findings: Mapping[str, Any], source: str = "findings.json") -> None:
    """Checks findings against the schema and against themselves.

    Beyond the schema: every sequence is present or missing, a task's classes are those of
    `TASKS`, its probabilities belong to the classes and add up to 1, and there is a prediction or
    the model abstained and says why; a task that is withheld has no entry, and there is a reason.

    Args:
        findings: The document, as read from JSON.
        source: What the message names.

    Raises:
        UserError: With all faults, each with the field where it lies.
    """
    validator = jsonschema.Draft202012Validator(findings_schema())
    faults = [
        f"{'.'.join(map(str, error.absolute_path)) or 'document'}: {error.message}"
        for error in validator.iter_errors(dict(findings))
    ]
    if not faults:
        faults = [
            *_sequence_faults(findings),
            *_task_faults(findings),
            *_withheld_faults(findings),
            *_rank_faults(findings),
        ]
    if faults:
        raise UserError(
            f"{source}: not valid findings of schema version {SCHEMA_VERSION}: "
            f"{'; '.join(faults)}. Write the file with the version of gmmas that reads it."
        )


def _sequence_faults(findings: Mapping[str, Any]) -> Iterator[str]:
    named = [*findings["sequences"]["present"], *findings["sequences"]["missing"]]
    if sorted(named) != sorted(SEQUENCES):
        yield f"sequences: present and missing name {named}; expected each of {SEQUENCES} once"


def _task_faults(findings: Mapping[str, Any]) -> Iterator[str]:
    for name, task in findings["tasks"].items():
        classes, probabilities = task["classes"], task["probabilities"]
        if tuple(classes) != TASKS[name]:
            yield f"tasks.{name}.classes: {classes}; expected {list(TASKS[name])}"
        if len(probabilities) != len(classes) or abs(sum(probabilities) - 1) > _ROUNDING:
            yield (
                f"tasks.{name}.probabilities: {probabilities}; expected one per class, sum 1 "
                f"within {_ROUNDING}"
            )
        if task["abstained"] and (task["prediction"] is not None or not task["reason"]):
            yield f"tasks.{name}: abstained, so prediction must be null and reason must say why"
        if not task["abstained"] and task["prediction"] not in classes:
            yield f"tasks.{name}.prediction: {task['prediction']!r}; expected one of {classes}"


def _withheld_faults(findings: Mapping[str, Any]) -> Iterator[str]:
    withheld = findings["tasks_withheld"]
    shown = [name for name in withheld["tasks"] if name in findings["tasks"]]
    if shown:
        yield f"tasks_withheld.tasks: {shown} stand among the tasks; expected one or the other"
    if bool(withheld["tasks"]) != bool(withheld["reason"]):
        yield "tasks_withheld.reason: expected one where tasks are withheld, else null"


def _rank_faults(findings: Mapping[str, Any]) -> Iterator[str]:
    probabilities = [entry["probability"] for entry in findings["integrated_diagnosis"]["ranked"]]
    if probabilities != sorted(probabilities, reverse=True):
        yield "integrated_diagnosis.ranked: not in descending order of probability"
