"""MU-Net against U-Net: both trained on the same slices, several seeds, one page.

    python -m gmmas_jax.cli.slice_comparison --cohort cohort.csv --out comparison

Networks see the cases of the split `train`; `val` gives the curves (loss, overall accuracy, mean
accuracy, mean IoU: Figure 4 of the paper), `test` the table, the results by size of the lesion and
the contours (Figure 5). A third network is U-Net made as narrow as it takes to have MU-Net's number
of parameters: fusion spares half of each decoder's first convolution.

What is there already in the folder is not trained again.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gmmas_jax.cases.case import Case
from gmmas_jax.cases.files import output_folder, write_json, write_text
from gmmas_jax.cases.labels import region_mask
from gmmas_jax.cases.manifest import Row, read_manifest
from gmmas_jax.cases.prepare import Prepared, prepare
from gmmas_jax.cli.training import WEIGHTS, train
from gmmas_jax.clinical.slice_page import comparison_page, contour_pictures
from gmmas_jax.config import load_config, to_dict
from gmmas_jax.errors import UserError
from gmmas_jax.inference.predictor import Predictor
from gmmas_jax.metrics.bootstrap import mean_interval, stream
from gmmas_jax.metrics.pixels import confusion, scores
from gmmas_jax.metrics.segmentation import dice_score
from gmmas_jax.models.build import make_model
from gmmas_jax.train.checkpoint import load_for_inference
from gmmas_jax.train.logging import read_log
from gmmas_jax.train.state import example_inputs

POINTS = 10
"""Checkpoints of each run that are scored for the curves."""

SIZES = ("small", "medium", "large")
"""Thirds of the test cases that have a lesion, by its volume."""


@dataclass(frozen=True)
class Network:
    """One of the networks that are compared.

    Attributes:
        title: For tables.
        config: The experiment.
        overrides: Beyond those of all.
    """

    title: str
    config: str
    overrides: tuple[str, ...] = ()


def networks(overrides: Sequence[str]) -> tuple[Network, ...]:
    """Returns U-Net, MU-Net, and the U-Net with as many parameters as MU-Net."""
    unet, munet = Network("U-Net", "configs/unet2d.py"), Network("MU-Net", "configs/munet.py")
    widths = to_dict(load_config(munet.config, overrides))["model"]["widths"]
    wanted = parameters(munet, overrides)

    def narrowed(share: float) -> Network:
        text = ",".join(str(max(1, round(width * share))) for width in widths)
        return Network("U-Net, narrowed", unet.config, (f"model.widths={text}",))

    candidates = [narrowed(share) for share in np.linspace(0.9, 1.0, 41).tolist()]
    best = min(candidates, key=lambda one: abs(parameters(one, overrides) - wanted))
    return unet, munet, best


def parameters(network: Network, overrides: Sequence[str]) -> int:
    """Returns the number of a network's parameters; computes nothing else."""
    config = to_dict(load_config(network.config, (*overrides, *network.overrides)))
    model = make_model(**config["model"])
    inputs = example_inputs(config["data"]["patch"], config["data"]["whole"])
    shapes = jax.eval_shape(lambda key: model.init(key, *inputs), jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


def compare(
    cohort: Path,
    out: Path,
    *,
    seeds: Sequence[int],
    overrides: Sequence[str] = (),
    real: Path | None = None,
) -> dict[str, Any]:
    """Trains what is not trained yet, scores everything, and writes comparison.{json,html}.

    Args:
        cohort: Manifest with the splits train, val and test.
        out: Folder for everything.
        seeds: Of the trainings, one run of each network for each.
        overrides: Changes of both configs, `section.field=value`.
        real: Manifest of further cases, whose predictions are shown; labels are not needed.

    Returns:
        What comparison.json holds.

    Raises:
        UserError: If the cohort lacks a split, or a training fails.
    """
    out = output_folder(out)
    rows = read_manifest(cohort)
    of_split = {name: [row for row in rows if row.split == name] for name in ("val", "test")}
    for name, members in of_split.items():
        if not members:
            raise UserError(f"{cohort}: no case has the split {name}; expected some.")
    compared = networks(overrides)
    result: dict[str, Any] = {"seeds": list(seeds), "networks": {}}
    predictors: dict[str, Predictor] = {}
    for network in compared:
        runs = []
        for seed in seeds:
            workdir = out / f"{_slug(network.title)}-{seed}"
            print(f"== {network.title}, seed {seed}", file=sys.stderr, flush=True)
            predictor = _trained(network, cohort, workdir, seed=seed, overrides=overrides)
            predictors.setdefault(network.title, predictor)
            runs.append(
                {
                    "seed": seed,
                    "loss": _losses(workdir),
                    "curve": _curve(predictor, workdir, of_split["val"], cohort.parent),
                    "cases": _scored([predictor], of_split["test"], cohort.parent)[0],
                }
            )
            write_json(workdir / "scores.json", runs[-1])
        result["networks"][network.title] = {
            "parameters": parameters(network, overrides),
            "runs": runs,
        }
    result["summary"] = {
        title: summarise(entry["runs"]) for title, entry in result["networks"].items()
    }
    examples = _examples(result, of_split["test"])
    pictures = contour_pictures(predictors, _read(examples, cohort.parent))
    if real is not None:
        others = [(row, "real") for row in read_manifest(real)]
        pictures += contour_pictures(predictors, _read(others, real.parent))
    write_json(out / "comparison.json", result)
    write_text(out / "comparison.html", comparison_page(result, pictures))
    return result


def summarise(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the means over cases and seeds.

    Returns:
        {"lesion_slices" and "all_slices": mean over the seeds of `pixels.scores` of the pooled
        pixels, with each seed's mean IoU; "dice": mean over cases of the volume's Dice, averaged
        over seeds, with its interval; "by_size": {size: the same, its range of volumes and its mean
        IoU on slices with lesion, averaged over seeds}}.
    """
    summary: dict[str, Any] = {}
    for kind in ("lesion_slices", "all_slices"):
        own = [_pooled(run["cases"], kind) for run in runs]
        summary[kind] = {name: float(np.mean([one[name] for one in own])) for name in own[0]}
        summary[kind]["mean_iou_of_seeds"] = [one["mean_iou"] for one in own]
    dice = np.mean([[case["dice"] for case in run["cases"]] for run in runs], 0)
    volumes = np.array([case["lesion_ml"] for case in runs[0]["cases"]])
    summary["dice"] = _mean(dice, "all")
    summary["by_size"] = {
        size: _mean(dice[members], size)
        | {
            "ml": [float(volumes[members].min()), float(volumes[members].max())],
            "mean_iou": float(
                np.mean(
                    [
                        _pooled([run["cases"][m] for m in members], "lesion_slices")["mean_iou"]
                        for run in runs
                    ]
                )
            ),
        }
        for size, members in _thirds(runs[0]["cases"]).items()
    }
    return summary


def _thirds(cases: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Returns the positions of the cases with a lesion by its size, small to large in each."""
    volumes = np.array([case["lesion_ml"] for case in cases])
    order = np.argsort(volumes, kind="stable")
    thirds = np.array_split(order[volumes[order] > 0], len(SIZES))
    return {size: third for size, third in zip(SIZES, thirds, strict=True) if len(third)}


def _mean(values: np.ndarray, name: str) -> dict[str, Any]:
    return {
        "n": len(values),
        "mean": float(values.mean()),
        "ci95": mean_interval(values, rng=stream(0, "slices", name)),
    }


def _trained(
    network: Network, cohort: Path, workdir: Path, *, seed: int, overrides: Sequence[str]
) -> Predictor:
    """Trains a network, or finds it trained, with a checkpoint for every point of the curve."""
    own = (*overrides, *network.overrides, f"seed={seed}")
    steps = load_config(network.config, own).train.steps
    every = max(1, steps // POINTS)
    kept = (f"train.checkpoint_every={every}", f"train.keep_checkpoints={POINTS + 1}")
    train(network.config, (*own, *kept), workdir=workdir, cohort=cohort)
    return Predictor.from_weights(workdir / WEIGHTS)


def _losses(workdir: Path) -> list[tuple[int, float]]:
    return [
        (int(record["step"]), float(record["loss"]))
        for record in read_log(workdir / "metrics.jsonl")
        if "loss" in record
    ]


def _curve(
    predictor: Predictor, workdir: Path, rows: Sequence[Row], root: Path
) -> list[dict[str, float]]:
    """Scores every checkpoint of a run on all slices with lesion of some cases."""
    folder = workdir / "checkpoints"
    steps = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
    states = [predictor.with_variables(load_for_inference(folder, step)[0]) for step in steps]
    return [
        {"step": step, **_pooled(cases, "lesion_slices")}
        for step, cases in zip(steps, _scored(states, rows, root), strict=True)
    ]


def _pooled(cases: Sequence[Mapping[str, Any]], kind: str) -> dict[str, float]:
    return scores(np.sum([np.array(case[kind]) for case in cases], 0))


def _scored(
    predictors: Sequence[Predictor], rows: Sequence[Row], root: Path
) -> list[list[dict[str, Any]]]:
    """Returns for each predictor what `_score` says of each case; every case is read once."""
    results: list[list[dict[str, Any]]] = [[] for _ in predictors]
    for case, split in _read([(row, row.split or "") for row in rows], root):
        prepared = prepare(case, spacing_mm=predictors[0].spacing_mm)
        if prepared.label is None:
            raise UserError(f"{case.case_id}: has no mask; expected one of each case of {split}.")
        for predictor, cases in zip(predictors, results, strict=True):
            found = region_mask(predictor.predict_prepared(prepared).label, "WT")
            cases.append({"case": case.case_id, **_score(found, prepared)})
    return results


def _score(found: np.ndarray, prepared: Prepared) -> dict[str, Any]:
    """Returns the confusion over the slices with lesion and over all, and the volume's Dice.

    At the network's spacing, inside the brain's box.
    """
    assert prepared.label is not None
    truth = region_mask(prepared.label, "WT")
    lesion = truth.any((0, 1))
    return {
        "lesion_ml": float(truth.sum()) * prepared.spacing_mm**3 / 1000,
        "dice": dice_score(found, truth),
        "lesion_slices": _confusion(found[:, :, lesion], truth[:, :, lesion]),
        "all_slices": _confusion(found, truth),
    }


def _confusion(found: np.ndarray, truth: np.ndarray) -> list[list[int]]:
    return confusion(found.astype(np.int64), truth.astype(np.int64), classes=2).tolist()


def _read(rows: Sequence[tuple[Row, str]], root: Path) -> Iterator[tuple[Case, str]]:
    from data_pipelines.readers import read_row

    return ((read_row(row, root), note) for row, note in rows)


def _examples(result: Mapping[str, Any], rows: Sequence[Row]) -> list[tuple[Row, str]]:
    """Returns the middle case of each third by size."""
    thirds = _thirds(next(iter(result["networks"].values()))["runs"][0]["cases"])
    return [(rows[members[len(members) // 2]], size) for size, members in thirds.items()]


def _slug(title: str) -> str:
    return "-".join(title.lower().replace(",", "").split())


def main() -> None:
    """Compares, and says where the page is."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cohort", type=Path, required=True, help="manifest with splits")
    parser.add_argument("--out", type=Path, required=True, help="folder for everything")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(0 1 2)")
    parser.add_argument("--real", type=Path, help="manifest of cases to show predictions of")
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change of both configs, such as train.steps=2000",
    )
    arguments = parser.parse_args()
    try:
        result = compare(
            arguments.cohort,
            arguments.out,
            seeds=arguments.seeds,
            overrides=arguments.config,
            real=arguments.real,
        )
    except UserError as error:
        sys.exit(f"slice_comparison: error: {error}")
    print(json.dumps(result["summary"], indent=1))
    print(f"page: {arguments.out / 'comparison.html'}")


if __name__ == "__main__":
    main()
