"""The model card that goes with a folder of weights."""

from collections.abc import Mapping, Sequence
from typing import Any

from gmmas_jax.cases.tasks import TASKS

CLAIM = (
    "For research only. Not a medical device: not to be used for diagnosis, treatment or any other "
    "decision about a patient."
)


def model_card(
    config: Mapping[str, Any],
    *,
    version: str,
    parameters: int,
    steps: int,
    cases: int,
    patients: int,
    sites: Sequence[str],
    class_counts: Mapping[str, Mapping[str, int]],
    averaged: bool,
) -> str:
    """Writes down what a network was trained on, how, and what it is not for.

    Args:
        config: The whole config.
        version: Of this program.
        parameters: Number of the network's parameters.
        steps: Steps of training.
        cases: Training cases.
        patients: Patients that they are of.
        sites: Where they come from, as far as the manifest says.
        class_counts: Per task, class name to number of training cases.
        averaged: Whether the weights are the moving average of training.

    Returns:
        Markdown.
    """
    data = config["data"]
    estimated = ", ".join(config["objective"]["tasks"]) or "nothing else"
    origin = ", ".join(sites) or "not stated in the manifest"
    synthetic = (
        "- The training patients are synthetic: every number of accuracy on synthetic patients "
        "says how well the network learned the generator, not how well it reads real scans.\n"
        if "synthetic" in sites
        else ""
    )
    tasks = "\n".join(
        f"| {task} | {', '.join(f'{name}: {count}' for name, count in counts.items())} | "
        f"{cases - sum(counts.values())} |"
        for task, counts in class_counts.items()
    )
    return f"""# {config["name"] or "unnamed"}

{CLAIM}

## What it is
A GMMAS network (arXiv 2501.17758; this implementation: gmmas {version}) with {parameters:,} \
parameters. From one to four of the MRI sequences t1n, t1c, t2w, t2f (skull-stripped, \
co-registered) it outlines glioma and estimates {estimated}.

## What it was trained on
{cases} cases of {patients} patients; site: {origin}. Images at {data["spacing_mm"]:g} mm, each \
sequence standardised within the brain.

| task | training cases per class | not known |
| --- | --- | --- |
{tasks or "| none | | |"}

## How
{steps:,} steps of {data["batch_size"]} patches of {_size(data["patch"])} voxels, the whole brain \
at {_size(data["whole"])}; optimizer {config["optimizer"]["name"]}, learning rate \
{config["optimizer"]["learning_rate"]:g}, seed {config["seed"]}. The weights are \
{"the moving average over training" if averaged else "those of the last step"}. `config.json` \
holds every other setting.

## Limits
{synthetic}- It was not tested on other scanners, ages, species or diseases than those of its \
training cases, nor after surgery unless the cases say so.
- Its probabilities are not calibrated unless the evaluation's report says so.
- A sequence that is missing makes the outline worse; without t1c enhancing tumour is a guess.
- MGMT promoter methylation has not been shown to be visible on MRI.
"""


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


def _size(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
