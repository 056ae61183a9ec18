"""Measures weights: labelled real cases, each subset of their sequences, and healthy brains.

    python -m benchmarks.shipped_weights --weights mini --cohort cohort.csv
    python -m benchmarks.shipped_weights --weights W --cohort C --healthy 1 --subset-cases 0 --check

The cases go through `gmmas evaluate`, the first also through `gmmas predict` in a process of its
own, which is timed. Healthy brains are generated, with every effect and no tumour: all that is
outlined in them is false. Nothing is chosen here: the settings are those of the weights' config.
Writes results/shipped_weights-<name>-<date>.{json,md}, which the model card quotes.
"""

import argparse
import csv
import datetime
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import save_result
from benchmarks.postprocessing import SEED, generated_cases, unseen
from gmmas_jax.cases.manifest import read_manifest
from gmmas_jax.cases.prepare import prepare
from gmmas_jax.cli.cohort_evaluation import CASES, evaluate
from gmmas_jax.inference.predictor import Predictor
from gmmas_jax.measure import machine_facts
from gmmas_jax.metrics.bootstrap import mean_interval, stream
from gmmas_jax.metrics.segmentation import REGION_NAMES
from gmmas_jax.synthesis.anatomy import load_anatomy

LEAST_ML = 1.0
"""A region of a case counts for the mean over cases "with at least 1 mL of it"."""

FALSE_ML = 0.5
ANATOMY_MM = 1.0


def case_rows(text: str) -> list[dict[str, Any]]:
    """Returns id, Dice and reference volume by region of each case of an evaluation's cases.csv."""
    return [
        {"case": row["case_id"]}
        | {f"dice_{region}": float(row[f"dice_{region}"]) for region in REGION_NAMES}
        | {f"ml_{region}": float(row[f"reference_volume_ml_{region}"]) for region in REGION_NAMES}
        for row in csv.DictReader(text.splitlines())
    ]


def means(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns mean Dice, interval and number of the cases with `LEAST_ML` of each region."""
    result = {}
    for region in REGION_NAMES:
        values = np.array(
            [row[f"dice_{region}"] for row in rows if row[f"ml_{region}"] >= LEAST_ML]
        )
        rng = stream(0, "shipped", region)
        result[region] = {
            "n": len(values),
            "dice": float(values.mean()) if len(values) else None,
            "ci95": mean_interval(values, rng=rng),
        }
    return result


def healthy_volumes(predictor: Predictor, *, cases: int, anatomy: Path) -> list[float]:
    """Returns the volumes in mL that are outlined in generated brains without a tumour."""
    maps = load_anatomy(anatomy, spacing_mm=ANATOMY_MM)
    found = []
    for case in generated_cases(
        maps, seed=SEED + 1, cases=0, healthy=cases, spacing_mm=predictor.spacing_mm
    ):
        label = predictor.predict_prepared(prepare(case, spacing_mm=predictor.spacing_mm)).label
        found.append(float(np.count_nonzero(label)) * predictor.spacing_mm**3 / 1000)
        print(f"{case.case_id}: {found[-1]:.2f} mL", file=sys.stderr, flush=True)
    return found


def timed_prediction(weights: str, folder: Path) -> dict[str, float]:
    """Runs `gmmas predict` on a folder; returns seconds and the peak of its memory in GiB."""
    with tempfile.TemporaryDirectory() as out:
        words = ("predict", str(folder), "--weights", weights, "--out", f"{out}/case")
        began = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", "gmmas_jax", *words])
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
    if process.returncode != 0:
        raise SystemExit(f"gmmas predict {folder} ended with exit code {process.returncode}")
    return {"seconds": seconds, "peak_gib": usage.ru_maxrss / 2**20}


def page(result: Mapping[str, Any]) -> str:
    """Writes the result as Markdown."""
    speed, healthy = result["prediction"], result["healthy_ml"]
    lines = [
        f"# {result['config']} on real cases, {result['date']}",
        "",
        f"Weights {result['weights_sha256']}, trained on {result['trained_on']} patients.",
        "",
        "| case | WT | TC | ET | WT, mL | TC, mL | ET, mL |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in result["cases"]:
        numbers = [f"{row[f'dice_{region}']:.3f}" for region in REGION_NAMES]
        numbers += [f"{row[f'ml_{region}']:.1f}" for region in REGION_NAMES]
        lines.append(f"| {row['case']} | {' | '.join(numbers)} |")
    cells = []
    for region in REGION_NAMES:
        one = result["means"][region]
        interval = "" if one["ci95"] is None else " [{:.2f}, {:.2f}]".format(*one["ci95"])
        mean = "not defined" if one["dice"] is None else f"{one['dice']:.3f}"
        cells.append(f"{mean}{interval}, n = {one['n']}")
    lines += [
        f"| mean Dice [95 %], at least {LEAST_ML:g} mL | {' | '.join(cells)} | | | |",
        "",
        f"`gmmas predict` on {result['cases'][0]['case']}, from start to report: "
        f"{speed['seconds']:.1f} s, peak {speed['peak_gib']:.2f} GiB "
        f"(load {result['machine']['load_before'][0]:g} on {result['machine']['cores']} cores).",
        "",
    ]
    if result["subsets"]:
        lines += [
            "Mean Dice by the sequences shown:",
            "",
            "| sequences | WT | TC | ET |",
            "| --- | --- | --- | --- |",
        ]
        for name, one in result["subsets"].items():
            scores = " | ".join(f"{one['dice'][region]:.3f}" for region in REGION_NAMES)
            lines.append(f"| {name} | {scores} |")
        lines.append("")
    if healthy:
        fine = sum(volume <= FALSE_ML for volume in healthy)
        lines += [
            f"Healthy generated brains with at most {FALSE_ML:g} mL outlined: {fine} of "
            f"{len(healthy)}; mean {np.mean(healthy):.2f} mL, most {max(healthy):.2f} mL.",
            "",
        ]
    return "\n".join(lines)


def main() -> None:
    """Measures, prints the page, and writes it unless it is a check."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--weights", required=True, help="folder, or mini or base")
    parser.add_argument("--cohort", type=Path, required=True, help="manifest of labelled cases")
    parser.add_argument("--healthy", type=int, default=20, help="healthy brains (20)")
    parser.add_argument("--subset-cases", type=int, help="cases to show subsets of (all)")
    parser.add_argument("--anatomy", type=Path, default=Path("anatomy-1mm.npz"))
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    weights = unseen(arguments.weights, SEED + 1)
    facts = machine_facts()
    rows = read_manifest(arguments.cohort)
    first = (arguments.cohort.parent / next(iter(rows[0].images.values()))).parent
    speed = timed_prediction(arguments.weights, first)
    predictor = Predictor(weights)
    with tempfile.TemporaryDirectory() as out:
        metrics = evaluate(
            predictor, arguments.cohort, out, split=None, subset_cases=arguments.subset_cases
        )
        cases = case_rows((Path(out) / CASES).read_text("utf-8"))
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": facts,
        **{name: predictor.identity[name] for name in ("config", "weights_sha256", "trained_on")},
        "prediction": speed,
        "cases": cases,
        "means": means(cases),
        "subsets": metrics["subsets"],
        "healthy_ml": healthy_volumes(
            predictor, cases=arguments.healthy, anatomy=arguments.anatomy
        ),
    }
    text = page(result)
    print(text)
    if not arguments.check:
        save_result(f"shipped_weights-{result['config']}", result, text)


if __name__ == "__main__":
    main()
