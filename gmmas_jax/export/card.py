"""The model card that goes with a folder of weights."""

from collections.abc import Mapping, Sequence
from typing import Any

from gmmas_jax.export.provenance import GENERATED, SECTION

CLAIM = (
    "For research only. Not a medical device: not to be used for diagnosis, treatment or any other "
    "decision about a patient."
)

_EVIDENCE = (
    "- Its answers about the tumour's type (IDH, 1p/19q, histology) are no evidence. Generated "
    "patients get their type by rules that we wrote after the literature, and the network learned "
    "these rules: whether real tumours follow them closely enough was not shown. `gmmas predict` "
    "withholds these answers; `--experimental` shows them, each marked as an experiment.\n"
)
_ANY = "one to four of the MRI sequences t1n, t1c, t2w, t2f"
_SYNTHETIC = (
    "- The training patients are synthetic: every number of accuracy on synthetic patients "
    "says how well the network learned the generator, not how well it reads real scans.\n"
)


def model_card(config: Mapping[str, Any], *, version: str, parameters: int) -> str:
    """Writes down what a network was trained on, how, and what it is not for.

    Args:
        config: The whole config, with the section that `export.provenance` describes, `steps`,
            `averaged`, `stored_as` and perhaps `start_share` in it.
        version: Of this program.
        parameters: Number of the network's parameters.

    Returns:
        Markdown.
    """
    data, made, model = config["data"], config[SECTION], config["model"]
    estimated = ", ".join(config["objective"]["tasks"]) or "nothing else"
    generated = made["trained_on"] == GENERATED
    synthetic = (
        (_SYNTHETIC if generated or "synthetic" in made["sites"] else "")
        + (_EVIDENCE if generated and config["objective"]["tasks"] else "")
    )  # fmt: skip
    stored = (
        " Kernels and matrices are stored as bfloat16 and computed with as float32."
        if made["stored_as"] == "bfloat16"
        else ""
    )
    return f"""# {config["name"] or "unnamed"}

{CLAIM}

## What it is
{_network(model)}; this implementation: gmmas {version}; {parameters:,} parameters. From \
{" and ".join(model["sequences"]) if "sequences" in model else _ANY} (skull-stripped, \
co-registered) it outlines glioma and estimates {estimated}.

## What it was trained on
{_trained_on(config, generated)} Images at {data["spacing_mm"]:g} mm, each \
sequence standardised within the brain.
{_class_table(made)}
## How
{_begun(made)}{made["steps"]:,} steps; batch size {data["batch_size"]}, patches of \
{_size(data["patch"])} voxels, the whole brain at {_size(data["whole"])}; optimizer \
{config["optimizer"]["name"]}, learning rate {config["optimizer"]["learning_rate"]:g}, seed \
{config["seed"]}. The weights are \
{"the moving average over training" if made["averaged"] else "those of the last step"}\
{_mean(made)}.{stored} \
`config.json` holds every other setting.

## Limits
{synthetic}- It was not tested on other scanners, ages, species or diseases than those of its \
training cases, nor after surgery unless the cases say so.
- Its probabilities are not calibrated unless the evaluation's report says so.
- A sequence that is missing makes the outline worse; without t1c enhancing tumour is a guess.
- MGMT promoter methylation has not been shown to be visible on MRI.
"""


def _network(model: Mapping[str, Any]) -> str:
    if model.get("network", "gmmas") == "gmmas":
        return "A GMMAS network (arXiv 2501.17758)"
    kind = "MU-Net (Zhang and Chen)" if model["fusion"] == "msf" else "U-Net (Ronneberger 2015)"
    return f"A {kind} that sees one axial slice at a time and outlines the tumour as a whole"


def _trained_on(config: Mapping[str, Any], generated: bool) -> str:
    made = config[SECTION]
    counted = f"{made['cases']} cases of {made['patients']} patients"
    if generated and not made["cases"]:
        steps = made["steps"] * config["data"]["batch_size"]
        return (
            "Data: none but generated. Every one of its examples shows another patient "
            f"({steps:,} in all), made while training from tissue maps of the MNI152 average "
            "brain: no scan of any patient was used."
        )
    if generated:
        return (
            f"Data: none but generated. {counted}, all made by `gmmas synth`; site: "
            f"{', '.join(made['sites'])}."
        )
    if not made["cases"]:
        return "Patients; how many and from where is not recorded."
    return f"{counted}; site: {', '.join(made['sites']) or 'not stated in the manifest'}."


def _begun(made: Mapping[str, Any]) -> str:
    """Returns a sentence about the weights that training began with, or nothing."""
    if not (began := made.get("begun_from")):
        return ""
    length = f" of {began['steps']:,} steps" if began["steps"] else ""
    return (
        f"Training began with weights{length} (sha256 {began['sha256'][:12]}…, trained on "
        f"{began['trained_on']}). "
    )


def _mean(made: Mapping[str, Any]) -> str:
    """Returns that the weights are a mean with those that training began with, if they are."""
    if not (share := made.get("start_share")):
        return ""
    return f", averaged with the weights that training began with, at a share of {share:g}"


def _class_table(made: Mapping[str, Any]) -> str:
    """Returns the classes' counts; an endless stream has none."""
    if not made["cases"]:
        return ""
    rows = "\n".join(
        f"| {task} | {', '.join(f'{name}: {count}' for name, count in counts.items())} | "
        f"{made['cases'] - sum(counts.values())} |"
        for task, counts in made["class_counts"].items()
    )
    return f"""
| task | training cases per class | not known |
| --- | --- | --- |
{rows or "| none | | |"}
"""


def _size(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
