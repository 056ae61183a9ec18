"""A whole training run: what a config's sections say, put together and set going in a folder."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import jax
from flax import linen as nn
from jax.sharding import Mesh

from gmmas_jax.cases.files import output_folder, write_json
from gmmas_jax.errors import UserError
from gmmas_jax.export.provenance import begun_from
from gmmas_jax.objectives.combine import Objective
from gmmas_jax.train.checkpoint import Checkpoints, Meta, differences
from gmmas_jax.train.distributed import process_banner
from gmmas_jax.train.logging import JsonLinesWriter, MultiWriter, TensorBoardWriter, Writer
from gmmas_jax.train.loop import Evaluate, FitResult, MakeBatches, fit
from gmmas_jax.train.optimizer import Optimizer, make_optimizer
from gmmas_jax.train.progress import Progress, make_progress
from gmmas_jax.train.sharding import check_batch_size, make_mesh, state_shardings, with_shardings
from gmmas_jax.train.state import TrainState, compile_init, make_init_fn, with_weights
from gmmas_jax.train.step import (
    TrainStep,
    Transform,
    accumulated_gradient,
    compile_train_step,
    make_loss_fn,
    make_train_step,
    whole_batch_gradient,
)
from gmmas_jax.train.step_log import CaseName


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """The config's `train` section.

    Attributes:
        steps: Length of the run.
        log_every: Steps between lines of the log.
        checkpoint_every: Steps between checkpoints.
        keep_checkpoints: How many of the latest to keep.
        evaluate_every: Steps between evaluations; 0 for at the end only.
        best_metric: Also keep the checkpoint in which this evaluation metric is highest.
        ema_decay: Of the average of the parameters; None keeps none.
        max_nonfinite: How many steps in a row whose loss is not finite end the run.
        microbatches: Pieces in which a batch's gradient is taken, to save memory.
        split_above_bytes: Size from which arrays of the state are split over `mesh.fsdp`.
        weights: Name or folder of the weights that the run begins with; "" for random ones.
    """

    steps: int
    log_every: int
    checkpoint_every: int
    keep_checkpoints: int = 2
    evaluate_every: int = 0
    best_metric: str | None = None
    ema_decay: float | None = None
    max_nonfinite: int = 10
    microbatches: int = 1
    split_above_bytes: int = 2**20
    weights: str = ""

    def __post_init__(self) -> None:
        lowest = dict.fromkeys(("steps", "log_every", "checkpoint_every"), 1)
        lowest |= dict.fromkeys(("keep_checkpoints", "max_nonfinite", "microbatches"), 1)
        for name, least in (lowest | {"evaluate_every": 0, "split_above_bytes": 0}).items():
            if getattr(self, name) < least:
                raise UserError(
                    f"train.{name} is {getattr(self, name)}; expected at least {least}."
                )
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise UserError(
                f"train.ema_decay is {self.ema_decay}; expected a number between 0 and 1, or none."
            )


def run_training(
    *,
    config: Mapping[str, Any],
    model: nn.Module,
    objective: Objective,
    batches: MakeBatches,
    case_name: CaseName,
    workdir: str | Path,
    evaluate: Evaluate | None = None,
    transform: Transform | None = None,
    weights: Mapping[str, Any] | None = None,
    stream: TextIO = sys.stderr,
) -> FitResult:
    """Trains a network, beginning in a folder or continuing there.

    The folder then holds `config.json`, `metrics.jsonl`, `tensorboard/` and `checkpoints/`.

    Args:
        config: The whole config as nested dicts of JSON-able values. Read here are `seed`,
            `data.patch`, `data.whole`, `data.batch_size`, `optimizer`, `train` and `mesh`; `model`
            must be what the checkpoints in the folder were made with.
        model: Linen module: (image, present, whole, box, train) to outputs.
        objective: From `make_objective`.
        batches: See `MakeBatches`.
        case_name: Index of a case, as in a batch's `case_index`, to its id.
        workdir: The folder; made if need be.
        evaluate: See `fit`.
        transform: See `compile_train_step`.
        weights: {"params": …} and, if any, "batch_stats" to begin with in place of random ones; a
            run that goes on has its own.
        stream: Where progress is shown.

    Returns:
        How the run ended.

    Raises:
        UserError: If the config asks for what cannot be, the folder holds another network's run or
            cannot be written, or the losses stop being finite.
    """
    settings = TrainSettings(**config["train"])
    if evaluate is None and (settings.evaluate_every or settings.best_metric):
        raise UserError(
            f"train.evaluate_every is {settings.evaluate_every} and train.best_metric "
            f"{settings.best_metric!r}, but this run has nothing to evaluate by; expected 0 and "
            "None. Compare weights with `gmmas evaluate`."
        )
    optimizer = make_optimizer(steps=settings.steps, **config["optimizer"])
    mesh = make_mesh(**config["mesh"])
    check_batch_size(config["data"]["batch_size"], mesh, microbatches=settings.microbatches)
    folder = output_folder(workdir)
    print(process_banner(), file=stream, flush=True)
    init = make_init_fn(
        model=model,
        objective=objective,
        optimizer=optimizer.transformation,
        patch=config["data"]["patch"],
        whole=config["data"]["whole"],
        seed=config["seed"],
        use_ema=settings.ema_decay is not None,
    )
    shardings = state_shardings(
        jax.eval_shape(init), mesh, split_above_bytes=settings.split_above_bytes
    )
    step = _make_step(config["seed"], settings, model, objective, optimizer)
    with Checkpoints(
        folder / "checkpoints",
        every=settings.checkpoint_every,
        keep=settings.keep_checkpoints,
        best_metric=settings.best_metric,
    ) as checkpoints:
        state, meta = _begin_or_continue(
            init, shardings, mesh, checkpoints, config, weights, stream
        )
        start = int(jax.device_get(state.step))
        if start > settings.steps:
            raise UserError(
                f"{folder} is at step {start}, beyond train.steps={settings.steps}. Set it "
                "higher, or begin in another folder."
            )
        with _reporting(folder, config, start, settings.steps, stream) as (writer, progress):
            return fit(
                state=state,
                train_step=compile_train_step(
                    step, mesh=mesh, shardings=shardings, seed=config["seed"], transform=transform
                ),
                batches=batches,
                mesh=mesh,
                checkpoints=checkpoints,
                meta=meta,
                writer=writer,
                progress=progress,
                case_name=case_name,
                steps=settings.steps,
                log_every=settings.log_every,
                max_nonfinite=settings.max_nonfinite,
                evaluate=evaluate,
                evaluate_every=settings.evaluate_every,
            )


def _make_step(
    seed: int,
    settings: TrainSettings,
    model: nn.Module,
    objective: Objective,
    optimizer: Optimizer,
) -> TrainStep:
    loss_fn = make_loss_fn(model=model, objective=objective)
    if settings.microbatches == 1:
        gradient_fn = whole_batch_gradient(loss_fn)
    else:
        gradient_fn = accumulated_gradient(
            loss_fn, objective=objective, microbatches=settings.microbatches
        )
    return make_train_step(
        gradient_fn=gradient_fn,
        optimizer=optimizer,
        seed=seed,
        ema_decay=settings.ema_decay,
    )


def _begin_or_continue(
    init: Callable[[], TrainState],
    shardings: TrainState,
    mesh: Mesh,
    checkpoints: Checkpoints,
    config: Mapping[str, Any],
    weights: Mapping[str, Any] | None,
    stream: TextIO,
) -> tuple[TrainState, Meta]:
    """Returns the latest checkpoint's state and meta, or the initial state."""
    if checkpoints.latest_step is None:
        with jax.set_mesh(mesh):
            state = compile_init(init, shardings=shardings)()
        return state if weights is None else with_weights(state, weights), {"config": config}
    abstract = with_shardings(jax.eval_shape(init), shardings)
    state, meta = checkpoints.restore(abstract, model=config["model"])
    began, begins = (begun_from(found) for found in (meta["config"], config))
    if began != begins:
        raise UserError(
            f"train.weights says to begin from {begins}, but {checkpoints.latest_step} steps of "
            f"this run began from {began}. Give what it began with, or begin in another folder."
        )
    if jax.process_index() == 0:
        print(f"continuing from the checkpoint of step {checkpoints.latest_step}", file=stream)
        for line in differences(meta["config"], config):
            print(f"  with another setting than before: {line}", file=stream)
    return state, meta | {"config": config}


@contextlib.contextmanager
def _reporting(
    folder: Path, config: Mapping[str, Any], start: int, steps: int, stream: TextIO
) -> Iterator[tuple[Writer, Progress]]:
    """Opens the log and the progress display, on the first process alone."""
    first = jax.process_index() == 0
    writers: list[Writer] = []
    if first:
        write_json(folder / "config.json", config)
        writers = [
            JsonLinesWriter(folder / "metrics.jsonl", start_step=start),
            TensorBoardWriter(folder / "tensorboard", start_step=start),
        ]
    writer = MultiWriter(writers)
    progress = make_progress(stream, start=start, steps=steps, first_process=first)
    try:
        yield writer, progress
    finally:
        progress.close()
        writer.close()
