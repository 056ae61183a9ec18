"""Compares how generated patients and labelled real ones look, in numbers.

    python -m benchmarks.appearance --cohort cohort.csv            # four minutes on two cores
    python -m benchmarks.appearance --cohort cohort.csv --check    # two patients, writes nothing

Signal is told in units of the healthy brain of the same scan: 0 is its median, and 1 half of the
range of its middle two thirds (a standard deviation, were it Gaussian). For each sequence and
tissue: the median of the case, and its standard deviation within the tissue; and how the signal
falls across the outline of the whole tumour, as a share of what oedema has. Then in the network's
own units, the mean and standard deviation of the brain: percentiles of healthy brain, the tissues'
medians, and the medians of the brain's outermost layers. Generated patients have every effect. The
numbers are for looking: nothing is chosen by them here, and no voxel of a real case goes anywhere
else. Writes results/appearance-<date>.{json,md}.
"""

import argparse
import datetime
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from benchmarks.machine import save_result
from benchmarks.postprocessing import SEED, generated_cases
from data_pipelines.readers import read_row
from gmmas_jax.cases.case import Case
from gmmas_jax.cases.labels import LABELS
from gmmas_jax.cases.manifest import read_manifest
from gmmas_jax.cases.prepare import prepare
from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.measure import machine_facts
from gmmas_jax.synthesis.anatomy import load_anatomy

SPACING_MM = 2.0
ANATOMY_MM = 1.0
TISSUES = ("NCR", "ED", "ET")
LEAST_VOXELS = 100
"""Of a tissue, for its numbers to count: 0.8 mL."""

OUTLINE_MM = (-6, -4, -2, 2, 4, 6)
"""Distances from the outline, inside positive; voxels within 1 mm of each are looked at."""

PERCENTILES = (2, 17, 50, 83, 98)
"""Of healthy brain, in the network's units."""

LAYERS = 4
"""Of voxels, counted from the brain's border."""

FAR = 2
"""Voxels around the tumour that count neither as healthy nor as tumour."""

Numbers = dict[str, dict[str, Any]]


def appearance(image: np.ndarray, label: np.ndarray) -> Numbers:
    """Tells how a case looks.

    Args:
        image: [d h w 4] float, in the order of `SEQUENCES`; 0 outside the brain.
        label: [d h w] integers, codes of `LABELS`.

    Returns:
        {sequence: {tissue: (median, spread), …, "outline": share of oedema's signal at each of
        `OUTLINE_MM`, "network": {row of the page: in the network's units}}}; None for a tissue or
        a layer of fewer than `LEAST_VOXELS`.
    """
    brain, tumour = (image != 0).any(-1), label > 0
    healthy = brain & ~ndimage.binary_dilation(tumour, iterations=FAR)
    # The volume may end where the brain does.
    layer = np.ceil(ndimage.distance_transform_edt(np.pad(brain, 1))[1:-1, 1:-1, 1:-1])
    depth = ndimage.distance_transform_edt(tumour) - ndimage.distance_transform_edt(~tumour)
    depth = SPACING_MM * np.where(tumour, depth - 0.5, depth + 0.5)
    found: Numbers = {}
    for place, sequence in enumerate(SEQUENCES):
        signal = image[..., place]
        low, middle, high = np.percentile(signal[healthy], (16, 50, 84))
        own_units = (signal - signal[brain].mean()) / signal[brain].std()
        signal = (signal - middle) / ((high - low) / 2)
        own: dict[str, Any] = {
            tissue: _median_and_spread(signal[label == LABELS.index(tissue)]) for tissue in TISSUES
        }
        if own["ED"] is not None:
            shares = [
                _median_and_spread(signal[brain & (abs(depth - edge) <= 1)]) for edge in OUTLINE_MM
            ]
            own["outline"] = [None if s is None else s[0] / own["ED"][0] for s in shares]
        parts = {
            **{tissue: label == LABELS.index(tissue) for tissue in TISSUES},
            **{f"layer {n}": healthy & (layer == n) for n in range(1, LAYERS + 1)},
        }
        medians = {name: _median_and_spread(own_units[part]) for name, part in parts.items()}
        own["network"] = {
            f"healthy, {percentile} %": float(np.percentile(own_units[healthy], percentile))
            for percentile in PERCENTILES
        } | {name: None if middle is None else middle[0] for name, middle in medians.items()}
        found[sequence] = own
    return found


def _median_and_spread(values: np.ndarray) -> tuple[float, float] | None:
    if len(values) < LEAST_VOXELS:
        return None
    return float(np.median(values)), float(values.std())


def summary(cases: Sequence[Numbers]) -> dict[str, dict[str, Any]]:
    """Returns, over cases, mean and standard deviation of the medians, and the mean spread.

    Returns:
        {sequence: {tissue: {"cases", "median", "between", "within"}, …, "outline": medians,
        "network": {row: [median, least, most] or None}}}.
    """
    result: dict[str, dict[str, Any]] = {}
    for sequence in SEQUENCES:
        own: dict[str, Any] = {}
        for tissue in TISSUES:
            there = [c[sequence][tissue] for c in cases if c[sequence][tissue] is not None]
            values = np.array(there).reshape(-1, 2)
            own[tissue] = {"cases": len(values)}
            if len(values):
                own[tissue] |= {
                    "median": float(values[:, 0].mean()),
                    "between": float(values[:, 0].std()),
                    "within": float(values[:, 1].mean()),
                }
        rows = [c[sequence]["outline"] for c in cases if "outline" in c[sequence]]
        columns = ([value for value in column if value is not None] for column in zip(*rows))  # noqa: B905
        own["outline"] = [float(np.median(column)) if column else None for column in columns]
        own["network"] = {}
        for row in cases[0][sequence]["network"]:
            there = [c[sequence]["network"][row] for c in cases]
            there = [value for value in there if value is not None]
            own["network"][row] = (
                [float(np.median(there)), min(there), max(there)] if there else None
            )
        result[sequence] = own
    return result


def page(result: dict[str, Any]) -> str:
    """Returns the result as a page of Markdown."""
    lines = [
        f"# How patients look, real and generated, {result['date']}",
        "",
        f"{result['real_cases']} labelled real cases, {result['generated_cases']} generated "
        "patients with every effect. Units of the healthy brain of the same scan (0 its median, 1 "
        "half of the range of its middle two thirds): mean over cases of the median ± standard "
        "deviation between cases; in brackets the spread within a case.",
        "",
        "| sequence | tissue | real | generated |",
        "| --- | --- | --- | --- |",
    ]
    sides = [result[side] for side in ("real", "generated")]
    for sequence in SEQUENCES:
        for tissue in TISSUES:
            cells = " | ".join(_cell(side[sequence][tissue]) for side in sides)
            lines.append(f"| {sequence} | {tissue} | {cells} |")
    distances = " | ".join(f"{edge:+d} mm" for edge in OUTLINE_MM)
    lines += [
        "",
        "Signal across the outline of the whole tumour (inside positive), as a share of oedema's; "
        "median over cases. T2-weighted sequences alone: on T1 oedema is too like brain.",
        "",
        f"| sequence | patients | {distances} |",
        "| --- " * (2 + len(OUTLINE_MM)) + "|",
    ]
    for sequence in ("t2w", "t2f"):
        for name, side in zip(("real", "generated"), sides, strict=True):
            shares = side[sequence]["outline"]
            cells = " | ".join("–" if share is None else f"{share:.2f}" for share in shares)
            lines.append(f"| {sequence} | {name} | {cells} |")
    lines += [
        "",
        "In the network's own units (0 the mean of the brain, 1 its standard deviation): median "
        "over cases, in brackets the least and the most; layers of healthy brain are "
        f"{SPACING_MM:g} mm, counted from its border.",
        "",
        "| sequence | of | real | generated |",
        "| --- | --- | --- | --- |",
    ]
    for sequence in SEQUENCES:
        for row in sides[0][sequence]["network"]:
            cells = " | ".join(_range(side[sequence]["network"][row]) for side in sides)
            lines.append(f"| {sequence} | {row} | {cells} |")
    return "\n".join(lines) + "\n"


def _range(found: list[float] | None) -> str:
    return "–" if found is None else "{:.2f} [{:.2f}, {:.2f}]".format(*found)


def _cell(found: dict[str, Any]) -> str:
    if not found["cases"]:
        return "–"
    return f"{found['median']:.2f} ± {found['between']:.2f} ({found['within']:.2f})"


def measure(cases: Iterable[Case]) -> list[Numbers]:
    """Returns the numbers of each case that has a tumour large enough."""
    found = []
    for case in cases:
        prepared = prepare(case, spacing_mm=SPACING_MM)
        assert prepared.label is not None
        if (prepared.label > 0).sum() >= LEAST_VOXELS:
            found.append(appearance(prepared.image, prepared.label))
    return found


def main() -> None:
    """Measures, prints the page, and writes it unless it is a check."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cohort", type=Path, required=True, help="manifest of labelled cases")
    parser.add_argument("--cases", type=int, default=40, help="generated patients (40)")
    parser.add_argument("--anatomy", type=Path, default=Path("anatomy-1mm.npz"))
    parser.add_argument("--check", action="store_true", help="two patients, write nothing")
    arguments = parser.parse_args()
    rows = read_manifest(arguments.cohort)
    cases = 2 if arguments.check else arguments.cases
    real = measure(read_row(row, arguments.cohort.parent) for row in rows)
    anatomy = load_anatomy(arguments.anatomy, spacing_mm=ANATOMY_MM)
    made = measure(
        generated_cases(anatomy, seed=SEED, cases=cases, healthy=0, spacing_mm=SPACING_MM)
    )
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": machine_facts(),
        "real_cases": len(real),
        "generated_cases": len(made),
        "real": summary(real),
        "generated": summary(made),
    }
    text = page(result)
    print(text)
    if not arguments.check:
        save_result("appearance", result, text)


if __name__ == "__main__":
    main()
