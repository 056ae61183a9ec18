"""From a config and a manifest to trained weights: the parts of a run put together."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.tree_util import Partial

from gmmas_jax import __version__
from gmmas_jax.augment.patch import make_augmentation
from gmmas_jax.cases.files import output_folder
from gmmas_jax.cases.manifest import read_manifest
from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.cli.network_options import open_weights
from gmmas_jax.cli.training_store import build_for_training, open_store, training_cases
from gmmas_jax.config import load_config, to_dict
from gmmas_jax.errors import UserError
from gmmas_jax.export.card import model_card
from gmmas_jax.export.provenance import SECTION, gone_on, of_cases, of_stream
from gmmas_jax.export.weights import save_weights
from gmmas_jax.inference.settings import substitutes_of
from gmmas_jax.models.build import make_model
from gmmas_jax.objectives.combine import Objective, make_objective
from gmmas_jax.synthesis.anatomy import load_anatomy
from gmmas_jax.synthesis.effects import Effects
from gmmas_jax.synthesis.stream import counters, make_generation
from gmmas_jax.train.distributed import initialize
from gmmas_jax.train.loop import FitResult, MakeBatches
from gmmas_jax.train.run import TrainSettings, run_training
from gmmas_jax.train.state import inference_variables
from gmmas_jax.train.step import Batch, Transform
from gmmas_jax.train.step_log import CaseName

if TYPE_CHECKING:
    from data_pipelines.prepared import PreparedIndex

WEIGHTS = "weights"
ANATOMY_MM = 1.0


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
    workdir: Path,
    store: Path | None = None,
    cohort: Path | None = None,
    generated: bool = False,
    processes: str = "none",
    workers: int = 2,
) -> Outcome:
    """Trains a network on the training split of a cohort, or goes on where it stopped.

    Args:
        config_file: See `load_config`, as for the overrides.
        overrides: `section.field=value`.
        workdir: Folder for all that is written.
        store: What `gmmas build` made. Cases of the split `train` are used; all of them if none has
            a split.
        cohort: In place of a store, the manifest to build it of, in `workdir`.
        generated: In place of both, patients that the training step generates.
        processes: See `distributed.initialize`; "none" if JAX is in use already.
        workers: Threads that read cases.

    Returns:
        How it ended; `weights` holds what the last step, or the average of all steps, came to.

    Raises:
        UserError: If the config, the store, the manifest or a case of it cannot be used, or the
            folder cannot be written or holds another network's run.
    """
    if (store is not None) + (cohort is not None) + generated != 1:
        raise UserError(
            "a store, a cohort or generated patients to train on: expected exactly one of them."
        )
    config = to_dict(load_config(config_file, overrides))
    index = None if store is None else open_store(store, config["data"])
    if cohort is not None:
        training_cases(read_manifest(cohort), cohort)
    model, objective = make_model(**config["model"]), make_objective(**config["objective"])
    if not generated:
        _check_stream(config["data"])
    _check(config, objective)
    augmentation = make_augmentation(**config["augment"])
    workdir = output_folder(workdir)
    initialize(processes)
    begins = open_weights(config["train"]["weights"]) if config["train"]["weights"] else None
    if generated:
        source = _generated_patients(config, workdir)
    else:
        if index is None:
            assert cohort is not None  # Checked above.
            index = build_for_training(cohort, workdir, config["data"])
        stored = _stored_slices if config["data"]["slices"] != "none" else _stored_cases
        source = stored(index, config, workers)
    config[SECTION] = source.provenance
    if begins is not None:
        config[SECTION] = gone_on(source.provenance, begins.config, sha256=begins.sha256)
    result = run_training(
        config=config,
        model=model,
        objective=objective,
        batches=source.batches,
        case_name=source.case_name,
        workdir=workdir,
        transform=_one_after_the_other(source.generation, augmentation),
        weights=None if begins is None else begins.variables,
        stream=sys.stderr,
    )
    if result.preempted:
        return Outcome(result.step, None)
    weights = workdir / WEIGHTS
    _export(result, config, weights)
    return Outcome(result.step, weights)


@dataclass(frozen=True)
class _Source:
    """Where a run's examples come from.

    Attributes:
        batches: As for `run_training`.
        case_name: As for `run_training`.
        provenance: The config's section of that name.
        generation: What makes examples of a batch on the device, where the host does not.
    """

    batches: MakeBatches
    case_name: CaseName
    provenance: dict[str, Any]
    generation: Transform | None = None


def _generated_patients(config: Mapping[str, Any], workdir: Path) -> _Source:
    data, synthesis = config["data"], config["synthesis"]
    effects = Effects.of(synthesis["effects"])
    if effects.resection.probability > 0 and config["model"]["num_classes"] < 5:
        raise UserError(
            "synthesis.effects.resection makes cavities, label 4, but model.num_classes is "
            f"{config['model']['num_classes']}. Set model.num_classes=5 or its probability to 0."
        )
    anatomy = load_anatomy(workdir / f"anatomy-{ANATOMY_MM:g}mm.npz", spacing_mm=ANATOMY_MM)
    generation = make_generation(
        anatomy,
        seed=config["seed"],
        patch=data["patch"],
        whole=data["whole"],
        spacing_mm=data["spacing_mm"],
        foreground=data["foreground"],
        healthy=synthesis["healthy"],
        all_sequences=synthesis["all_sequences"],
        shown=synthesis["shown"],
        effects=effects,
        tasks=config["objective"]["tasks"],
    )

    def batches(start_step: int) -> Iterator[Batch]:
        return counters(
            batch_size=data["batch_size"],
            start_step=start_step,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    return _Source(
        batches,
        lambda number: f"generated patient {number}",
        of_stream(config["objective"]["tasks"]),
        generation,
    )


def _one_after_the_other(
    generation: Transform | None, augmentation: Transform | None
) -> Transform | None:
    """Returns the transform of a training step: examples are made, then augmented."""
    if generation is None or augmentation is None:
        return generation or augmentation

    def transform(generation: Transform, key: jax.Array, batch: Batch) -> Batch:
        first, second = jax.random.split(key)
        return augmentation(second, generation(first, batch))

    # The generation carries arrays, which must stay arguments of the program: see `Transform`.
    return Partial(transform, generation)


def _check(config: Mapping[str, Any], objective: Objective) -> None:
    """Finds mistakes that would else be told after the cohort was prepared."""
    TrainSettings(**config["train"])
    data = config["data"]
    if data["views"] != objective.views:
        raise UserError(
            f"data.views is {data['views']}; expected {objective.views}, as many views of an "
            f"example as the objective of {config['name']} has a use for. Set "
            f"data.views={objective.views}."
        )
    heads, tasks = list(config["model"].get("tasks", {})), list(config["objective"]["tasks"])
    unknown = [task for task in tasks if task not in heads]
    if unknown:
        raise UserError(
            f"objective.tasks names {', '.join(unknown)}, but the network has heads for "
            f"{', '.join(heads) or 'no task'}. Name the same tasks in model.tasks."
        )


def _check_stream(data: Mapping[str, Any]) -> None:
    from data_pipelines.pipeline import check_settings

    check_settings(
        patch=data["patch"],
        foreground=data["foreground"],
        sequence_drop=data["sequence_drop"],
        cutmix=data["cutmix"],
        cutmix_feather=data["cutmix_feather"],
        views=data["views"],
        view_overlap=data["view_overlap"],
    )


def _stored_cases(index: "PreparedIndex", config: Mapping[str, Any], workers: int) -> _Source:
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
            balance=data["balance"],
            unlabelled_share=data["unlabelled_share"],
            cutmix=data["cutmix"],
            cutmix_task=data["cutmix_task"],
            cutmix_feather=data["cutmix_feather"],
            views=data["views"],
            view_overlap=data["view_overlap"],
            start_step=start_step,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            workers=workers,
        )

    batches(0)  # What does not fit the cases is told here, before minutes of compiling.
    return _Source(
        batches,
        lambda position: index.cases[position].case_id,
        of_cases(index.cases, config["objective"]["tasks"]),
    )


def _stored_slices(index: "PreparedIndex", config: Mapping[str, Any], workers: int) -> _Source:
    from data_pipelines.slices import slice_batches

    data, substitutes = config["data"], substitutes_of(config["inference"]["substitutes"])
    rows, columns, depth = data["patch"]
    if depth != 1:
        raise UserError(
            f"data.patch is {data['patch']}; expected a depth of 1 with data.slices="
            f"{data['slices']}."
        )
    needed = config["model"].get("sequences", SEQUENCES)
    _check_sequences(index, needed, substitutes)

    def batches(start_step: int) -> Iterator[Batch]:
        slices = slice_batches(
            index,
            seed=config["seed"],
            batch_size=data["batch_size"],
            size=(rows, columns),
            sequences=SEQUENCES,
            label="labels",
            lesion_only=data["slices"] == "lesion",
            start_step=start_step,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            workers=workers,
        )
        return (_as_patches(batch, substitutes) for batch in slices)

    batches(0)  # What does not fit the cases is told here, before minutes of compiling.
    return _Source(
        batches,
        lambda position: index.cases[position].case_id,
        of_cases(index.cases, config["objective"]["tasks"]),
    )


def _check_sequences(
    index: "PreparedIndex", needed: Sequence[str], substitutes: Mapping[str, str]
) -> None:
    """Refuses cases that lack a sequence of a network that cannot do without."""
    for case in index.cases:
        missing = [
            name for name in needed if not {name, substitutes.get(name, name)} & set(case.sequences)
        ]
        if missing:
            raise UserError(
                f"{case.case_id}: has no {' and no '.join(missing)}; expected "
                f"{' and '.join(needed)} of every case, which is all that the network sees. Leave "
                "the case out, or name a sequence in its place, such as "
                f"inference.substitutes={missing[0]}:t2w."
            )


def _as_patches(batch: Mapping[str, np.ndarray], substitutes: Mapping[str, str]) -> Batch:
    """Returns slices [b h w] as patches that are one voxel deep, with no whole volume beside."""
    size = len(batch["label"])
    image, present = batch["image"][:, :, :, None].copy(), batch["present"].copy()
    for name, other in substitutes.items():
        place, source = SEQUENCES.index(name), SEQUENCES.index(other)
        lacks = present[:, place] == 0
        image[lacks, ..., place] = image[lacks, ..., source]
        present[lacks, place] = present[lacks, source]
    flat = {"image": image, "present": present, "label": batch["label"][..., None]}
    nothing = {
        "whole": np.zeros((size, 1, 1, 1, len(SEQUENCES)), np.float32),
        "whole_label": np.zeros((size, 1, 1, 1), np.int32),
        "box": np.tile(np.array([[0.0] * 3, [1.0] * 3], np.float32), (size, 1, 1)),
        "targets": {},
        "target_valid": {},
    }
    kept = {name: batch[name] for name in ("label_valid", "case_index")}
    return flat | nothing | kept


def _export(result: FitResult, config: Mapping[str, Any], folder: Path) -> None:
    """Writes the weights, on the first process; all must call it, to gather what is split."""
    variables = _on_host(inference_variables(result.state))
    if jax.process_index() != 0:
        return
    parameters = write_trained_weights(
        folder,
        variables,
        config,
        steps=result.step,
        averaged=result.state.ema is not None,
        dtype="float32",
    )
    print(f"{parameters:,} parameters after {result.step} steps", file=sys.stderr, flush=True)


def write_trained_weights(
    folder: Path,
    variables: Mapping[str, Any],
    config: Mapping[str, Any],
    *,
    steps: int,
    averaged: bool,
    dtype: str,
) -> int:
    """Writes weights with the card that their config and its provenance call for.

    Args:
        folder: See `save_weights`.
        variables: {"params": …} and, if any, "batch_stats", NumPy arrays.
        config: Of the run, with the section `provenance`.
        steps: Of training.
        averaged: Whether the parameters are the moving average.
        dtype: See `save_weights`.

    Returns:
        The number of parameters.
    """
    own = {"steps": steps, "averaged": averaged, "stored_as": dtype}
    config = {**config, SECTION: {**config[SECTION], **own}}
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    card = model_card(config, version=__version__, parameters=parameters)
    batch_stats = variables.get("batch_stats", {})
    save_weights(folder, variables["params"], batch_stats, config, card, dtype=dtype)
    return parameters


def _on_host(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns arrays that may be split over devices and processes as whole NumPy arrays."""
    if jax.process_count() == 1:
        return jax.tree.map(np.asarray, dict(variables))
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(dict(variables), tiled=True)
