"""Chooses the repairs of the outline (`inference.postprocessing`), on generated patients alone.

    python -m benchmarks.postprocessing --weights runs/weights-mini/weights --cases 24 --healthy 6
    python -m benchmarks.postprocessing --weights W --check    # two patients, writes nothing

The patients are generated here, with every effect, from keys that no training uses: there is no
way to give it a real case. The network predicts each once, without repairs; then one setting after
the other is tried over a few values on these masks, and of those whose mean Dice gains at least
`LEAST_GAIN` and is within as much of the best's the mildest kept, for each takes some of a real
tumour away; then all are gone over again until nothing changes. Healthy patients count with Dice 1
where nothing is outlined, else 0. Writes results/postprocessing-<name>-<date>.{json,md}.
"""

import argparse
import dataclasses
import datetime
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.machine import save_result
from gmmas_jax.cases.case import Case, Grid
from gmmas_jax.cases.prepare import prepare
from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.errors import UserError
from gmmas_jax.export.shipped import NAMES, shipped_folder
from gmmas_jax.export.weights import Weights, load_weights
from gmmas_jax.inference.postprocessing import CERTAIN, Cleaning, clean_label
from gmmas_jax.inference.predictor import Predictor
from gmmas_jax.metrics.segmentation import dice_regions
from gmmas_jax.synthesis.anatomy import Anatomy, anatomy_affine, load_anatomy
from gmmas_jax.synthesis.effects import Effects
from gmmas_jax.synthesis.frame import whole_frame
from gmmas_jax.synthesis.generator import draw_traits, show

SEED = 20_261_121
"""Of the validation patients; a training's patients come from `config.seed`."""

LEAST_GAIN = 0.001
REGIONS = ("WT", "TC", "ET")
ANATOMY_MM = 1.0

# From mild to strong.
GRID: dict[str, tuple[Any, ...]] = {
    "min_island_ml": (0.0, 0.1, 0.3, 1.0, 3.0),
    "fill_core": (False, True),
    "fill_tumour": (False, True),
    "enhancing_touches_core": (False, True),
    "min_enhancing_island_ml": (0.0, 0.02, 0.05, 0.1, 0.3),
    "min_enhancing_ml": (0.0, 0.05, 0.1, 0.3, 0.5, 1.0),
    "min_core_island_ml": (0.0, 0.05, 0.1, 0.3),
    "min_certain_ml": (0.0, 0.1, 0.3, 1.0, 3.0),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Outline:
    """A network's unrepaired outline of a generated patient, where it is certain, and the truth.

    Attributes:
        found: uint8 [d h w].
        certain: bool [d h w], of tumour.
        truth: uint8 [d h w].
    """

    found: np.ndarray
    certain: np.ndarray
    truth: np.ndarray


def generated_cases(
    anatomy: Anatomy, *, seed: int, cases: int, healthy: int, spacing_mm: float
) -> Iterator[Case]:
    """Generates patients with a tumour, then healthy ones, with every effect."""
    make = case_generator(anatomy, seed=seed, spacing_mm=spacing_mm)
    for number in range(cases + healthy):
        yield make(number, Effects(), number >= cases)


def case_generator(
    anatomy: Anatomy, *, seed: int, spacing_mm: float
) -> Callable[[int, Effects, bool], Case]:
    """Returns the function (number, effects, healthy) to a whole patient, one compiled program."""

    @jax.jit
    def make(
        number: jax.Array, effects: Effects, well: jax.Array, anatomy: Anatomy
    ) -> tuple[jax.Array, jax.Array]:
        key = jax.random.fold_in(jax.random.key(seed), number)
        traits = draw_traits(key, anatomy, effects, healthy=well)
        return show(traits, anatomy, whole_frame(spacing_mm), effects)

    def case(number: int, effects: Effects, healthy: bool) -> Case:
        made = make(np.int32(number), effects, np.bool_(healthy), anatomy)
        image, label = jax.device_get(made)
        grid = Grid(label.shape, anatomy_affine(spacing_mm))
        images = {name: image[..., i] for i, name in enumerate(SEQUENCES)}
        return Case(f"generated-{number}", images, label.astype(np.uint8), grid, grid)

    return case


def outlines(predictor: Predictor, cases: Iterator[Case]) -> list[Outline]:
    """Predicts cases without any repair, at the network's spacing."""
    predictor.settings = dataclasses.replace(predictor.settings, cleaning=Cleaning())
    made = []
    for number, case in enumerate(cases, 1):
        prepared = prepare(case, spacing_mm=predictor.spacing_mm)
        assert prepared.label is not None  # Generated patients have one.
        found = predictor.predict_prepared(prepared)
        certain = found.probabilities[..., 0] <= 1.0 - CERTAIN
        made.append(Outline(found.label, certain, prepared.label))
        print(f"predicted {number}: {case.case_id}", file=sys.stderr, flush=True)
    return made


def score(found: Sequence[Outline], cleaning: Cleaning, *, voxel_ml: float) -> dict[str, float]:
    """Returns the mean Dice by region over all cases, their mean, and what healthy ones got.

    Returns:
        {"WT", "TC", "ET", "mean", "healthy_ml", "healthy_worst_ml"}; the last two are volumes that
        were outlined in healthy patients, 0 without any.
    """
    rows, false_ml = [], [0.0]
    for outline in found:
        label = clean_label(outline.found, cleaning, certain=outline.certain, voxel_ml=voxel_ml)
        rows.append(dice_regions(label, outline.truth, regions=REGIONS))
        if not outline.truth.any():
            false_ml.append(np.count_nonzero(label) * voxel_ml)
    result = {region: float(np.mean([row[region] for row in rows])) for region in REGIONS}
    healthy = false_ml[1:] or false_ml
    return result | {
        "mean": float(np.mean(list(result.values()))),
        "healthy_ml": float(np.mean(healthy)),
        "healthy_worst_ml": float(max(healthy)),
    }


def choose(
    found: Sequence[Outline],
    *,
    voxel_ml: float,
    report: Callable[[dict[str, Any]], None] = lambda row: None,
) -> Cleaning:
    """Searches the grid one setting after the other until a round changes nothing.

    Args:
        found: Unrepaired outlines.
        voxel_ml: Volume of a voxel.
        report: Called with every row that was tried: round, setting, value, scores, kept.
    """
    best = Cleaning()
    reached = score(found, best, voxel_ml=voxel_ml)
    report({"round": 0, "setting": "no repair", "value": "", "kept": True, **reached})
    for number in range(1, 1 + len(GRID)):
        before = best
        for name, values in GRID.items():
            tried = {}
            for value in values:
                if value != getattr(best, name):
                    candidate = dataclasses.replace(best, **{name: value})
                    tried[candidate] = score(found, candidate, voxel_ml=voxel_ml)
            top = max(row["mean"] for row in tried.values())
            enough = max(reached["mean"] + LEAST_GAIN, top - LEAST_GAIN)
            winner = next((one for one, row in tried.items() if row["mean"] >= enough), None)
            for candidate, row in tried.items():
                value = getattr(candidate, name)
                own = candidate == winner
                report({"round": number, "setting": name, "value": value, "kept": own, **row})
            if winner is not None:
                best, reached = winner, tried[winner]
        if best == before:
            break
    return best


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Writes what was tried as Markdown."""
    lines = [
        "| round | setting | value | WT | TC | ET | mean | healthy, mL | worst, mL | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        scores = " | ".join(f"{row[name]:.4f}" for name in (*REGIONS, "mean"))
        lines.append(
            f"| {row['round']} | {row['setting']} | {row['value']} | {scores} | "
            f"{row['healthy_ml']:.2f} | {row['healthy_worst_ml']:.2f} | "
            f"{'kept' if row['kept'] else ''} |"
        )
    return "\n".join(lines)


def options(cleaning: Cleaning) -> str:
    """Returns the chosen settings as `gmmas export` takes them."""
    changed = {
        name: value
        for name, value in dataclasses.asdict(cleaning).items()
        if value != getattr(Cleaning(), name)
    }
    words = (f"--config.inference.{name}={str(value).lower()}" for name, value in changed.items())
    return " ".join(words) or "no repair helps"


def main() -> None:
    """Chooses, prints the table, and writes the result unless it is a check."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--weights", required=True, help="folder, or mini or base")
    parser.add_argument("--cases", type=int, default=24, help="patients with a tumour (24)")
    parser.add_argument("--healthy", type=int, default=6, help="healthy patients (6)")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the patients ({SEED})")
    parser.add_argument("--anatomy", type=Path, help="cached tissue maps at 1 mm (.npz)")
    parser.add_argument("--check", action="store_true", help="two patients, write nothing")
    arguments = parser.parse_args()
    weights = unseen(arguments.weights, arguments.seed)
    predictor = Predictor(weights)
    anatomy = load_anatomy(
        arguments.anatomy or Path("anatomy-1mm.npz"), spacing_mm=ANATOMY_MM
    )  # fmt: skip
    counts = (1, 1) if arguments.check else (arguments.cases, arguments.healthy)
    patients = generated_cases(
        anatomy,
        seed=arguments.seed,
        cases=counts[0],
        healthy=counts[1],
        spacing_mm=predictor.spacing_mm,
    )
    rows: list[dict[str, Any]] = []
    found = outlines(predictor, patients)
    chosen = choose(found, voxel_ml=predictor.spacing_mm**3 / 1000, report=rows.append)
    text = f"{table(rows)}\n\nChosen: {options(chosen)}\n"
    print(text)
    if not arguments.check:
        result = {
            "date": datetime.date.today().isoformat(),
            "weights_sha256": weights.sha256,
            "config": predictor.identity["config"],
            "cases": counts[0],
            "healthy": counts[1],
            "seed": arguments.seed,
            "rows": rows,
            "chosen": dataclasses.asdict(chosen),
        }
        head = (
            f"# Repairs of the outline, {result['date']}\n\nWeights {weights.sha256} "
            f"({result['config']}), {counts[0]} generated patients with a tumour and {counts[1]} "
            f"healthy ones, seed {arguments.seed}. Mean Dice over all.\n\n"
        )
        save_result(f"postprocessing-{result['config']}", result, head + text)


def unseen(name: str, seed: int) -> Weights:
    """Loads weights by folder or name, which must not have learned the patients of a seed."""
    weights = load_weights(shipped_folder(name) if name in NAMES else name)
    check_seed(weights, seed)
    return weights


def check_seed(weights: Weights, seed: int) -> None:
    """Refuses the seed whose patients the weights may have been trained on."""
    if seed == weights.config["seed"]:
        raise UserError(
            f"--seed {seed}: the seed of the training; expected another, whose patients the "
            "network has not seen."
        )


if __name__ == "__main__":
    main()
