"""Compares windows of inference: the same weights on the same generated patients.

    python -m benchmarks.windows --weights mini --windows 144,176,144 80,80,80
    python -m benchmarks.windows --weights mini --windows 80,80,80 --cases 1 --check

Group norm takes its statistics over the window: a network that learned in patches on tumours sees
other statistics where the window holds a whole brain. How much that costs is told by windows of the
size of its patches. The patients have a tumour and every effect, and no training uses them; no
outline is repaired. Writes results/windows-<name>-<date>.{json,md}.
"""

import argparse
import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import save_result
from benchmarks.postprocessing import ANATOMY_MM, SEED, generated_cases, unseen
from benchmarks.shipped_weights import LEAST_ML, means
from gmmas_jax.cases.prepare import Prepared, prepare
from gmmas_jax.inference.postprocessing import Cleaning
from gmmas_jax.inference.predictor import Predictor
from gmmas_jax.metrics.segmentation import REGION_NAMES, dice_regions, region_mask
from gmmas_jax.synthesis.anatomy import load_anatomy


def measure(predictor: Predictor, prepared: Prepared, *, case: str) -> dict[str, Any]:
    """Returns Dice and reference volume of each region, and what is outlined falsely, in mL."""
    truth = prepared.label
    assert truth is not None  # Generated patients have one.
    label = predictor.predict_prepared(prepared).label
    voxel_ml = predictor.spacing_mm**3 / 1000
    dice = dice_regions(label, truth, regions=REGION_NAMES)
    result: dict[str, Any] = {
        "case": case,
        "false_ml": float(np.count_nonzero((label > 0) & (truth == 0)) * voxel_ml),
        "missed_ml": float(np.count_nonzero((label == 0) & (truth > 0)) * voxel_ml),
    }
    for region in REGION_NAMES:
        result[f"dice_{region}"] = float(dice[region])
        result[f"ml_{region}"] = float(np.count_nonzero(region_mask(truth, region)) * voxel_ml)
    return result


def gains(
    rows: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Returns what `means` does, of the change of Dice in each case."""
    changes = []
    for row, old in zip(rows, before, strict=True):
        names = [f"dice_{region}" for region in REGION_NAMES]
        changes.append({**row, **{name: row[name] - old[name] for name in names}})
    return means(changes)


def page(result: Mapping[str, Any]) -> str:
    """Writes the result as Markdown."""
    lines = [
        f"# {result['config']} in windows of different sizes, {result['date']}",
        "",
        f"Weights {result['weights_sha256']}, whose training patches were "
        f"{'×'.join(map(str, result['patch']))}. {result['cases']} generated patients (seed "
        f"{result['seed']}), windows that overlap by {result['overlap']:g}, no repairs. Mean Dice "
        f"over those with at least {LEAST_ML:g} mL of a region; in brackets the change against the "
        "first row, and its 95 % interval over patients.",
        "",
        "| window | WT | TC | ET | outlined falsely, mL | missed, mL |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for index, one in enumerate(result["windows"]):
        cells = []
        for region in REGION_NAMES:
            dice, gain = one["means"][region]["dice"], one["gains"][region]
            text = "not defined" if dice is None else f"{dice:.3f}"
            if index and gain["ci95"] is not None:
                text += " ({:+.3f} [{:+.3f}, {:+.3f}])".format(gain["dice"], *gain["ci95"])
            cells.append(f"{text}, n = {gain['n']}")
        cells += [
            f"{np.mean([row[name] for row in one['rows']]):.1f}"
            for name in ("false_ml", "missed_ml")
        ]
        lines.append(f"| {'×'.join(map(str, one['window']))} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _window(text: str) -> tuple[int, int, int]:
    d, h, w = (int(length) for length in text.split(","))
    return d, h, w


def main() -> None:
    """Measures, prints the page, and writes it unless it is a check."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--weights", required=True, help="folder, or mini or base")
    parser.add_argument("--windows", nargs="+", required=True, help="each d,h,w in voxels")
    parser.add_argument("--cases", type=int, default=12, help="generated patients (12)")
    parser.add_argument("--anatomy", type=Path, default=Path("anatomy-1mm.npz"))
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    weights = unseen(arguments.weights, SEED)
    maps = load_anatomy(arguments.anatomy, spacing_mm=ANATOMY_MM)
    spacing = float(weights.config["data"]["spacing_mm"])
    patients = [
        (case.case_id, prepare(case, spacing_mm=spacing))
        for case in generated_cases(
            maps, seed=SEED, cases=arguments.cases, healthy=0, spacing_mm=spacing
        )
    ]
    windows: list[dict[str, Any]] = []
    for text in arguments.windows:
        size = _window(text)
        predictor = Predictor(weights, samples=0)
        # Replaced, not set: the replacement is checked as a config is.
        predictor.settings = dataclasses.replace(
            predictor.settings, window=size, cleaning=Cleaning()
        )
        rows = [measure(predictor, prepared, case=name) for name, prepared in patients]
        before = windows[0]["rows"] if windows else rows
        windows.append(
            {"window": size, "rows": rows, "means": means(rows), "gains": gains(rows, before)}
        )
    result = {
        "date": datetime.date.today().isoformat(),
        "config": weights.config["name"] or "unnamed",
        "weights_sha256": weights.sha256,
        "patch": weights.config["data"]["patch"],
        "overlap": weights.config["inference"]["overlap"],
        "cases": arguments.cases,
        "seed": SEED,
        "windows": windows,
    }
    text = page(result)
    print(text)
    if not arguments.check:
        save_result(f"windows-{result['config']}", result, text)


if __name__ == "__main__":
    main()
