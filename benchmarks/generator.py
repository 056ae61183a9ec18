"""Times making a patient on the device against the training step that uses it.

    python -m benchmarks.generator                       # configs/weights_mini.py as it is
    python -m benchmarks.generator --patch 128 --batch-size 2     # on an accelerator
    python -m benchmarks.generator --check               # small, one round, writes nothing

Two programs, as in training: a batch of patients with every effect (patch and whole brain), and
loss and gradient on that batch, without the optimizer. Writes results/generator-<date>.{json,md}.
"""

import argparse
import datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.machine import save_result
from gmmas_jax.config import load_config, to_dict
from gmmas_jax.measure import alternate, machine_facts, summary
from gmmas_jax.models.build import make_model
from gmmas_jax.objectives.combine import make_objective
from gmmas_jax.synthesis.anatomy import load_anatomy
from gmmas_jax.synthesis.effects import Effects
from gmmas_jax.synthesis.stream import make_generation
from gmmas_jax.train.step import make_loss_fn

ANATOMY_MM = 1.0
CONFIG = "configs/weights_mini.py"


def measure(
    config: dict[str, Any], *, patch: int, batch_size: int, anatomy: Path, rounds: int
) -> dict[str, Any]:
    """Returns seconds of both programs, {name: summary}, and the generator's share of their sum."""
    model, objective = make_model(**config["model"]), make_objective(**config["objective"])
    data, synthesis = config["data"], config["synthesis"]
    generate = jax.jit(
        make_generation(
            load_anatomy(anatomy, spacing_mm=ANATOMY_MM),
            seed=config["seed"],
            patch=(patch,) * 3,
            whole=data["whole"],
            spacing_mm=data["spacing_mm"],
            foreground=data["foreground"],
            healthy=synthesis["healthy"],
            all_sequences=synthesis["all_sequences"],
            shown=synthesis["shown"],
            effects=Effects.of(synthesis["effects"]),
            tasks=config["objective"]["tasks"],
        )
    )
    key = jax.random.key(0)
    numbers = {"case_index": np.arange(batch_size, dtype=np.int32)}
    batch = generate(key, numbers)
    views = [batch[name] for name in ("image", "present", "whole", "box")]
    variables = jax.jit(model.init)(key, *views)
    params = {"model": variables["params"], "objective": objective.init()}
    gradient = jax.jit(
        jax.value_and_grad(make_loss_fn(model=model, objective=objective), has_aux=True)
    )
    stats = dict(variables.get("batch_stats", {}))
    seconds = alternate(
        {
            "patients": lambda: jax.block_until_ready(generate(key, numbers)),
            "loss and gradient": lambda: jax.block_until_ready(gradient(params, stats, batch, key)),
        },
        rounds=rounds,
    )
    times = {name: summary(values) for name, values in seconds.items()}
    own, other = (times[name]["median_s"] for name in seconds)
    return {"times": times, "share": own / (own + other)}


def page(result: dict[str, Any]) -> str:
    """Writes the result as Markdown."""
    machine = result["machine"]
    rows = "\n".join(
        f"| {name} | {one['median_s']:.4f} | {one['min_s']:.4f} | {one['max_s']:.4f} |"
        for name, one in result["times"].items()
    )
    return f"""# Generated patients against the training step, {result["date"]}

`{result["config"]}`, patch {result["patch"]}³, batch {result["batch_size"]}, {result["device"]}; \
{machine["processor"]}, {machine["cores"]} cores, load {machine["load_before"][0]:g}, \
JAX {machine["jax"]}. Seconds, {result["rounds"]} rounds, in turn.

| | median | least | most |
| --- | --- | --- | --- |
{rows}

The patients take {result["share"]:.0%} of both together.
"""


def main() -> None:
    """Measures, prints the page, and writes it unless it is a check."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--config", default=CONFIG, help=f"experiment ({CONFIG})")
    parser.add_argument("--patch", type=int, help="voxels along each axis (the config's)")
    parser.add_argument("--batch-size", type=int, help="patients at a time (the config's)")
    parser.add_argument("--rounds", type=int, default=10, help="measurements of each (10)")
    parser.add_argument("--anatomy", type=Path, default=Path("anatomy-1mm.npz"))
    parser.add_argument("--check", action="store_true", help="one round, write nothing")
    arguments = parser.parse_args()
    facts = machine_facts()
    config = to_dict(load_config(arguments.config, []))
    setting = {
        "patch": arguments.patch or config["data"]["patch"][0],
        "batch_size": arguments.batch_size or config["data"]["batch_size"],
        "rounds": 1 if arguments.check else arguments.rounds,
    }
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": facts,
        "device": jax.devices()[0].device_kind,
        "config": arguments.config,
        **setting,
        **measure(config, **setting, anatomy=arguments.anatomy),
    }
    text = page(result)
    print(text)
    if not arguments.check:
        save_result("generator", result, text)


if __name__ == "__main__":
    main()
