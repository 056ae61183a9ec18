"""From a config and a manifest to trained weights: the parts of a run put together."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from gmmas_jax import __version__
from gmmas_jax.augment.patch import make_augmentation
from gmmas_jax.cases.files import output_folder
from gmmas_jax.cases.manifest import Row, read_manifest
from gmmas_jax.cli.progress import CaseProgress
from gmmas_jax.config import load_config, to_dict
from gmmas_jax.errors import UserError
from gmmas_jax.export.card import class_counts, model_card
from gmmas_jax.export.weights import save_weights
from gmmas_jax.models.gmmas import make_model
from gmmas_jax.objectives.combine import make_objective
from gmmas_jax.train.distributed import initialize
from gmmas_jax.train.loop import FitResult, MakeBatches
from gmmas_jax.train.run import TrainSettings, run_training
from gmmas_jax.train.state import inference_variables
from gmmas_jax.train.step import Batch

if TYPE_CHECKING:
    from data_pipelines.prepared import PreparedIndex

PREPARED = "prepared"
WEIGHTS = "weights"


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        step: The step that it reached.
        weights: The folder of weights; None if the run was stopped before its last step.
    """

    step: int
    weights: Path | None


def train(
    config_file: str,
    overrides: Sequence[str] = (),
    *,
    cohort: Path,
    workdir: Path,
    processes: str = "none",
    workers: int = 2,
) -> Outcome:
    """Trains a network on the training split of a cohort, or goes on where it stopped.

    Args:
        config_file: See `load_config`, as for the overrides.
        overrides: `section.field=value`.
        cohort: The manifest. Rows of the split `train` are used; all rows if none names a split.
        workdir: Folder for all that is written.
        processes: See `distributed.initialize`; "none" if JAX is in use already.
        workers: Threads that read cases.

    Returns:
        How it ended; `weights` holds what the last step, or the average of all steps, came to.

    Raises:
        UserError: If the config, the manifest or a case of it cannot be used, or the folder cannot
            be written or holds another network's run.
    """
    config = to_dict(load_config(config_file, overrides))
    rows = training_rows(read_manifest(cohort), cohort)
    model, objective = make_model(**config["model"]), make_objective(**config["objective"])
    _check(config)
    augmentation = make_augmentation(**config["augment"])
    workdir = output_folder(workdir)
    initialize(processes)
    index = _prepare(rows, cohort, workdir, config["data"], workers)
    result = run_training(
        config=config,
        model=model,
        objective=objective,
        batches=_make_batches(index, config, workers),
        case_name=lambda position: index.cases[position].case_id,
        workdir=workdir,
        transform=augmentation,
        stream=sys.stderr,
    )
    if result.preempted:
        return Outcome(result.step, None)
    weights = workdir / WEIGHTS
    _export(result, config, rows, weights)
    return Outcome(result.step, weights)


def training_rows(rows: Sequence[Row], source: Path) -> list[Row]:
    """Returns the rows to train on: those of the split `train`, or all if none names a split.

    Raises:
        UserError: If there is none.
    """
    chosen = [row for row in rows if row.split == "train"]
    if not chosen and not any(row.split for row in rows):
        chosen = list(rows)
    if not chosen:
        raise UserError(
            f"{source}: no row has split train; expected some. Correct the column, or leave it "
            "empty in all rows to train on all of them."
        )
    return chosen


def _check(config: Mapping[str, Any]) -> None:
    """Finds mistakes that would else be told after the cohort was prepared."""
    TrainSettings(**config["train"])
    heads, tasks = list(config["model"]["tasks"]), list(config["objective"]["tasks"])
    unknown = [task for task in tasks if task not in heads]
    if unknown:
        raise UserError(
            f"objective.tasks names {', '.join(unknown)}, but the network has heads for "
            f"{', '.join(heads) or 'no task'}. Name the same tasks in model.tasks."
        )


def _prepare(
    rows: Sequence[Row], cohort: Path, workdir: Path, data: Mapping[str, Any], workers: int
) -> "PreparedIndex":
    # Of the data side, which importing the library must not load.
    from data_pipelines.cohort import prepare_cohort

    with CaseProgress("prepare", len(rows)) as progress:
        return prepare_cohort(
            rows,
            cohort.parent,
            out=workdir / PREPARED,
            spacing_mm=data["spacing_mm"],
            whole=data["whole"],
            workers=workers,
            on_case=lambda done, _, case_id: progress.done(done, case_id),
        )


def _make_batches(index: "PreparedIndex", config: Mapping[str, Any], workers: int) -> MakeBatches:
    from data_pipelines.pipeline import train_batches

    data = config["data"]

    def batches(start_step: int) -> Iterator[Batch]:
        return train_batches(
            index,
            seed=config["seed"],
            batch_size=data["batch_size"],
            patch=data["patch"],
            foreground=data["foreground"],
            sequence_drop=data["sequence_drop"],
            tasks=config["objective"]["tasks"],
            start_step=start_step,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            workers=workers,
        )

    return batches


def _export(
    result: FitResult, config: Mapping[str, Any], rows: Sequence[Row], folder: Path
) -> None:
    """Writes the weights, on the first process; all must call it, to gather what is split."""
    variables = _on_host(inference_variables(result.state))
    if jax.process_index() != 0:
        return
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    card = model_card(
        config,
        version=__version__,
        parameters=parameters,
        steps=result.step,
        cases=len(rows),
        patients=len({row.patient_id for row in rows}),
        sites=sorted({row.site for row in rows if row.site}),
        class_counts=class_counts(config["objective"]["tasks"], [row.tasks for row in rows]),
        averaged=result.state.ema is not None,
    )
    batch_stats = variables.get("batch_stats", {})
    save_weights(folder, variables["params"], batch_stats, config, card)
    print(f"{parameters:,} parameters after {result.step} steps", file=sys.stderr, flush=True)


def _on_host(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns arrays that may be split over devices and processes as whole NumPy arrays."""
    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, dict(variables))
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(dict(variables), tiled=True)
