"""What weights were trained on, as fields of `config.json` that programs can read.

The section `provenance` is written by training into the run's config and so into every checkpoint:

    trained_on: "generated" or "patients"
    cases, patients: how many; 0 of an endless stream
    sites: where they come from, as far as the manifest says
    class_counts: {task: {class: training cases}}

    begun_from: {"sha256", "trained_on", "steps"} of the weights it went on from, if any

and gains `steps`, `averaged` and `stored_as` where the weights themselves are written, and
`start_share` where they are a mean with the weights that training began with.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gmmas_jax.cases.tasks import TASKS

GENERATED, PATIENTS, UNKNOWN = "generated", "patients", "unknown"
TRAINED_ON = (GENERATED, PATIENTS, UNKNOWN)
"""Generated patients alone; at least one real one; not stated, as in earlier versions' weights."""

SECTION = "provenance"
_SYNTHETIC = "synthetic"


class _TrainingCase(Protocol):
    @property
    def patient_id(self) -> str: ...

    @property
    def site(self) -> str | None: ...

    @property
    def tasks(self) -> Mapping[str, str]: ...


def trained_on(config: Mapping[str, Any]) -> str:
    """Returns one of `TRAINED_ON` for the config of weights or of a checkpoint."""
    section = config.get(SECTION)
    found = section.get("trained_on") if isinstance(section, Mapping) else None
    return found if found in TRAINED_ON else UNKNOWN


def begun_from(config: Mapping[str, Any]) -> str:
    """Returns in words what a run's first step started with."""
    made = (config.get(SECTION) or {}).get("begun_from")
    return f"the weights of sha256 {made['sha256'][:12]}…" if made else "random weights"


def gone_on(
    section: Mapping[str, Any], weights: Mapping[str, Any], *, sha256: str
) -> dict[str, Any]:
    """Returns the section of a run that goes on from weights: it owes to their patients too.

    Args:
        section: From `of_stream` or `of_cases`.
        weights: The config of the weights.
        sha256: Of the weights.
    """
    before, own = trained_on(weights), section["trained_on"]
    both = own if own == before else PATIENTS if PATIENTS in (own, before) else UNKNOWN
    steps = (weights.get(SECTION) or {}).get("steps")
    began = {"sha256": sha256, "trained_on": before, "steps": steps}
    return {**section, "trained_on": both, "begun_from": began}


def of_stream(tasks: Sequence[str]) -> dict[str, Any]:
    """Returns the section for an endless stream of generated patients."""
    return {
        "trained_on": GENERATED,
        "cases": 0,
        "patients": 0,
        "sites": [_SYNTHETIC],
        "class_counts": class_counts(tasks, ()),
    }


def of_cases(cases: Sequence[_TrainingCase], tasks: Sequence[str]) -> dict[str, Any]:
    """Returns the section for the cases of a store.

    They count as generated if the manifest calls the site of every one of them synthetic, as
    `gmmas synth` writes it; one case of another or no site makes them patients.

    Args:
        cases: Training cases.
        tasks: Names of `TASKS` that the network was trained for.
    """
    synthetic = bool(cases) and all(case.site == _SYNTHETIC for case in cases)
    return {
        "trained_on": GENERATED if synthetic else PATIENTS,
        "cases": len(cases),
        "patients": len({case.patient_id for case in cases}),
        "sites": sorted({case.site for case in cases if case.site}),
        "class_counts": class_counts(tasks, [case.tasks for case in cases]),
    }


def class_counts(
    tasks: Sequence[str], cases: Sequence[Mapping[str, str]]
) -> dict[str, dict[str, int]]:
    """Counts the classes of each task.

    Args:
        tasks: Names of `TASKS`.
        cases: Per case, task name to class name where known.
    """
    return {
        task: {name: sum(case.get(task) == name for case in cases) for name in TASKS[task]}
        for task in tasks
    }
