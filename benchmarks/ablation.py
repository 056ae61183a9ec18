"""Trains with and without each effect of the generator, and says what it was good for.

    python -m benchmarks.ablation --cohort cohort.csv --rows rows.jsonl
    python -m benchmarks.ablation --cohort cohort.csv --check      # two effects, few steps

One small network at 2 mm learns tidy patients, with no effect at all. From there it goes on over
the same patients' numbers: tidy as before, with one effect (as often and as strong as in `Effects`,
or always where it is off by default), and with all of them; and tidy with other numbers, which says
how much of a difference is chance. Each is scored

- on generated patients that no training saw, in whom that effect is always there and stronger than
  any training showed it (`BEYOND` times its magnitude, or a fraction of it where less is harder);
  all effects together, and chance, on patients with all of them as they are by default;
- on labelled real cases, which are looked at and decide nothing by themselves: they are few.

The difference to the network that went on with tidy patients is what the effect brought. It takes
hours on two cores: `--rows` keeps each row as it is found, and a run that was stopped goes on with
the effects that are not there yet. Writes results/ablation-<date>.{json,md}. No real case comes
near a training step: the patients are drawn inside it, from a number.
"""

import argparse
import datetime
import functools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.machine import save_result
from benchmarks.postprocessing import case_generator
from data_pipelines.readers import read_row
from gmmas_jax.cases.manifest import read_manifest
from gmmas_jax.cases.prepare import Prepared, prepare
from gmmas_jax.cli.synthetic_cohort import GENERATOR
from gmmas_jax.config import load_config, to_dict
from gmmas_jax.errors import UserError
from gmmas_jax.export.weights import Weights
from gmmas_jax.inference.predictor import Predictor
from gmmas_jax.measure import machine_facts
from gmmas_jax.metrics.bootstrap import mean_interval, stream
from gmmas_jax.metrics.segmentation import REGION_NAMES, dice_regions
from gmmas_jax.models.build import make_model
from gmmas_jax.objectives.combine import make_objective
from gmmas_jax.synthesis.anatomy import Anatomy, load_anatomy
from gmmas_jax.synthesis.effects import Effect, Effects
from gmmas_jax.synthesis.stream import generated_example
from gmmas_jax.train.optimizer import make_optimizer
from gmmas_jax.train.state import TrainState, inference_variables, make_init_fn
from gmmas_jax.train.step import make_loss_fn, make_train_step, whole_batch_gradient

CONFIG = "configs/weights_mini.py"
COARSE = (
    "data.spacing_mm=2.0",
    *(f"data.{name}=(48,48,48)" for name in ("patch", "whole")),
    "model.encoder.stem_stride=1",
    "model.encoder.widths=(16,32,48,64)",
    "model.detail_width=0",
    "model.detail_convolutions=0",
    "model.num_classes=5",
    "inference.window=(96,112,80)",
    "inference.min_island_ml=0.0",
    "optimizer.schedule=constant",
    "train.ema_decay=0.98",
)
ANATOMY_MM = 1.0
SEED = 7_000_000
"""Of the patients to validate on; training takes the config's."""

BEYOND = 1.5
LESS_IS_HARDER = ("faint", "thin_ring", "small_core")
WHOLE = (
    *("cyst", "solid_enhancement", "superficial", "hidden_on_t1", "hidden_on_t2", "uneven_oedema"),
    *("protocol", "own_sequence", "dim_on_flair", "like_oedema", "full_head"),
    "mild_on_t2",
)
"""Shares that go up to all there is: nothing lies beyond, and they are always there instead."""

TIDY = Effects().without(*Effects._fields)
EVERY, CHANCE = "all of them", "none, other patients"


def trained_with(name: str) -> Effects:
    """Returns one effect as it is by default, or always where that is never; or all, or none."""
    if name in (EVERY, CHANCE):
        return Effects() if name == EVERY else TIDY
    effect = getattr(Effects(), name)
    if effect.probability == 0:
        effect = effect._replace(probability=1.0)
    return TIDY._replace(**{name: effect})


def beyond(name: str) -> Effects:
    """Returns an effect that is always there, and stronger than training shows it; or all."""
    if name in (EVERY, CHANCE):
        return Effects()
    usual = getattr(Effects(), name).magnitude
    harder = 1 / BEYOND if name in LESS_IS_HARDER else 1.0 if name in WHOLE else BEYOND
    return TIDY._replace(**{name: Effect(1.0, harder * usual)})


class Trainer:
    """A network and its compiled step; effects are arguments of it, so that one program does."""

    def __init__(self, config: Mapping[str, Any], anatomy: Anatomy):
        """Compiles nothing yet."""
        self.config, self._anatomy = config, anatomy
        model, objective = make_model(**config["model"]), make_objective(**config["objective"])
        optimizer = make_optimizer(steps=10**6, **config["optimizer"])
        data = config["data"]
        self.begin = jax.jit(
            make_init_fn(
                model=model,
                objective=objective,
                optimizer=optimizer.transformation,
                patch=data["patch"],
                whole=data["whole"],
                seed=config["seed"],
                use_ema=True,
            )
        )
        make = functools.partial(
            generated_example,
            patch=data["patch"],
            whole=data["whole"],
            spacing_mm=data["spacing_mm"],
            foreground=data["foreground"],
            healthy=config["synthesis"]["healthy"],
            all_sequences=config["synthesis"]["all_sequences"],
            shown=config["synthesis"]["shown"],
            tasks=config["objective"]["tasks"],
        )
        self._step = jax.jit(
            make_train_step(
                gradient_fn=whole_batch_gradient(make_loss_fn(model=model, objective=objective)),
                optimizer=optimizer,
                seed=config["seed"],
                ema_decay=config["train"]["ema_decay"],
            )
        )

        @jax.jit
        def patient(number: jax.Array, anatomy: Anatomy, effects: Effects) -> dict[str, Any]:
            key = jax.random.fold_in(jax.random.key(config["seed"]), number)
            return jax.tree.map(lambda x: x[None], make(key, anatomy, effects=effects))

        self._patient = patient

    def train(
        self, state: TrainState, effects: Effects, *, steps: int, skip: int = 0
    ) -> TrainState:
        """Goes on for some steps; the patients' numbers are those of the steps, and `skip` more."""
        start = int(state.step) + skip
        for number in range(start, start + steps):
            batch = self._patient(np.int32(number), self._anatomy, effects)
            state, _ = self._step(state, batch)
        return jax.block_until_ready(state)


def dice(predictor: Predictor, cases: Sequence[Prepared]) -> np.ndarray:
    """Returns Dice [cases 3] of whole tumour, core, enhancing tumour."""
    rows = []
    for case in cases:
        assert case.label is not None
        found = predictor.predict_prepared(case).label
        scores = dice_regions(found, case.label, regions=REGION_NAMES)
        rows.append([scores[region] for region in REGION_NAMES])
    return np.array(rows)


def difference(name: str, after: np.ndarray, before: np.ndarray) -> dict[str, Any]:
    """Returns the mean difference of the regions' mean Dice over the same cases, with interval."""
    change = (after - before).mean(1)
    rng = stream(0, "ablation", name)
    return {
        "n": len(change),
        "change": float(change.mean()),
        "ci95": mean_interval(change, rng=rng),
        "by_region": dict(zip(REGION_NAMES, map(float, (after - before).mean(0)), strict=True)),
    }


def measure(
    trainer: Trainer,
    anatomy: Anatomy,
    real: Sequence[Prepared],
    *,
    names: Sequence[str],
    first: int,
    more: int,
    cases: int,
) -> Iterator[dict[str, Any]]:
    """Trains and scores every variant; yields a row for each, and trains nothing for no variant."""
    if not names:
        return
    spacing = trainer.config["data"]["spacing_mm"]
    make = case_generator(anatomy, seed=SEED, spacing_mm=spacing)
    started = trainer.train(trainer.begin(), TIDY, steps=first)
    tidy = inference_variables(trainer.train(started, TIDY, steps=more))
    predictor = Predictor(Weights(tidy["params"], {}, trainer.config))
    tidy_real = dice(predictor, real)
    for name in names:
        hard = beyond(name)
        held_out = [prepare(make(n, hard, False), spacing_mm=spacing) for n in range(cases)]
        skip = more if name == CHANCE else 0
        own = trainer.train(started, trained_with(name), steps=more, skip=skip)
        with_it = predictor.with_variables(inference_variables(own))
        yield {
            "effect": name,
            "generated": difference(name, dice(with_it, held_out), dice(predictor, held_out)),
            "real": difference(f"{name}, real", dice(with_it, real), tidy_real),
        }


def kept_rows(path: Path | None, how: Mapping[str, int]) -> list[dict[str, Any]]:
    """Returns the rows of an earlier run.

    Raises:
        UserError: If they were measured with another generator, or number of steps or cases.
    """
    if path is None or not path.exists():
        return []
    rows = [json.loads(text) for text in path.read_text().splitlines()]
    for row in rows:
        if row.pop("how") != how:
            raise UserError(
                f"{path}: {row['effect']!r} was not measured with {how}; give another --rows."
            )
    return rows


def line(row: Mapping[str, Any]) -> str:
    """Returns a row of the table."""
    cells = []
    for where in ("generated", "real"):
        one = row[where]
        low, high = one["ci95"] or (np.nan, np.nan)
        regions = " ".join(f"{value:+.2f}" for value in one["by_region"].values())
        cells += [f"{one['change']:+.3f} [{low:+.3f}, {high:+.3f}]", regions]
    name = row["effect"] if row["effect"] in (EVERY, CHANCE) else f"`{row['effect']}`"
    return f"| {name} | {' | '.join(cells)} |"


def page(result: Mapping[str, Any]) -> str:
    """Writes the result as Markdown."""
    table = "\n".join(line(row) for row in result["rows"])
    there = {row["effect"] for row in result["rows"]}
    rest = ", ".join(f"`{name}`" for name in Effects._fields if name not in there)
    not_measured = f"\nNot measured: {rest}.\n" if rest else ""
    return f"""# The generator's effects, one at a time, {result["date"]}

A small network at 2 mm, {result["first"]} steps on tidy patients, then {result["more"]} with \
the effect against {result["more"]} without. Change of Dice (mean of WT, TC and ET) with its 95 % \
interval, and of each region: on {result["cases"]} generated patients in whom the effect is always \
there and beyond the range of training, and on {result["real_cases"]} real cases. One training \
each: what other patients without any effect changed is chance.

| effect | generated, beyond the range | WT TC ET | real | WT TC ET |
| --- | --- | --- | --- | --- |
{table}
{not_measured}"""


def main() -> None:
    """Measures, prints the table, and writes it unless it is a check."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cohort", type=Path, required=True, help="manifest of labelled cases")
    parser.add_argument("--effects", nargs="*", help="some of them (all)")
    parser.add_argument("--first", type=int, default=500, help="tidy steps before (500)")
    parser.add_argument("--more", type=int, default=200, help="steps with or without (200)")
    parser.add_argument("--cases", type=int, default=12, help="generated patients each (12)")
    parser.add_argument("--anatomy", type=Path, default=Path("anatomy-1mm.npz"))
    parser.add_argument("--rows", type=Path, help="file that keeps what was found, to go on from")
    parser.add_argument("--check", action="store_true", help="few steps, write nothing")
    arguments = parser.parse_args()
    names = tuple(arguments.effects or Effects._fields)
    Effects().without(*names)  # Raises where there is no such effect.
    size = {"first": arguments.first, "more": arguments.more, "cases": arguments.cases}
    if arguments.check:
        names, size = names[:2], {"first": 2, "more": 2, "cases": 2}
    how = size | {"generator": GENERATOR}
    rows = kept_rows(None if arguments.check else arguments.rows, how)
    there = {row["effect"] for row in rows}
    config = to_dict(load_config(CONFIG, COARSE))
    anatomy = load_anatomy(arguments.anatomy, spacing_mm=ANATOMY_MM)
    spacing = config["data"]["spacing_mm"]
    real = [
        prepare(read_row(row, arguments.cohort.parent), spacing_mm=spacing)
        for row in read_manifest(arguments.cohort)
    ]
    missing = [name for name in (EVERY, CHANCE, *names) if name not in there]
    for row in measure(Trainer(config, anatomy), anatomy, real, names=missing, **size):
        rows.append(row)
        print(line(row), file=sys.stderr, flush=True)
        if arguments.rows and not arguments.check:
            with arguments.rows.open("a") as file:
                file.write(json.dumps(row | {"how": how}) + "\n")
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": machine_facts(),
        **how,
        "real_cases": len(real),
        "rows": rows,
    }
    text = page(result)
    print(text)
    if not arguments.check:
        save_result("ablation", result, text)


if __name__ == "__main__":
    main()
