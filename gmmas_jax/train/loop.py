"""The one training loop."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from gmmas_jax.train.checkpoint import Checkpoints, Meta, preempted
from gmmas_jax.train.logging import Writer
from gmmas_jax.train.progress import Progress, duration
from gmmas_jax.train.sharding import to_global
from gmmas_jax.train.state import TrainState
from gmmas_jax.train.step import Batch, TrainStep
from gmmas_jax.train.step_log import CaseName, StepLog

Evaluate = Callable[[TrainState], Mapping[str, float]]
MakeBatches = Callable[[int], Iterator[Batch]]
"""A step to the batches from there on: this process's part of each, as NumPy arrays."""


@dataclasses.dataclass(frozen=True)
class FitResult:
    """How a run ended.

    Attributes:
        state: The last state.
        step: Its step.
        preempted: Whether a SIGTERM ended the run before its last step; what was reached is saved.
        metrics: Of the last evaluation, empty if there was none.
    """

    state: TrainState
    step: int
    preempted: bool
    metrics: Mapping[str, float]


def fit(
    *,
    state: TrainState,
    train_step: TrainStep,
    batches: MakeBatches,
    mesh: Mesh,
    checkpoints: Checkpoints,
    meta: Meta,
    writer: Writer,
    progress: Progress,
    case_name: CaseName,
    steps: int,
    log_every: int,
    max_nonfinite: int,
    evaluate: Evaluate | None = None,
    evaluate_every: int = 0,
) -> FitResult:
    """Trains from the state's step to `steps`.

    The order is a contract: evaluate(state) → save(state) → next batch → step → log. A checkpoint
    of step n therefore goes with the log up to n, and the run goes on with the batch that was next.
    A batch is a function of its step, so there is no iterator to save.

    Args:
        state: Initial or restored; it is consumed.
        train_step: From `compile_train_step`.
        batches: See `MakeBatches`; each batch must hold `case_index`.
        mesh: From `make_mesh`.
        checkpoints: Where to save; they say when.
        meta: What every checkpoint's meta holds, "config" foremost; for a restored state with the
            checkpoint's "totals" and "evaluated", which are brought up to date here.
        writer: Of the log.
        progress: For a person to see.
        case_name: Index of a case, as in `case_index`, to its id.
        steps: The step to end at.
        log_every: Steps between lines of the log.
        max_nonfinite: How many steps in a row that are not finite end the run.
        evaluate: State to metrics; called every `evaluate_every` steps and at the end.
        evaluate_every: 0 for at the end only.

    Returns:
        How it ended. On a SIGTERM: after saving, as soon as all processes reached the same step.

    Raises:
        UserError: If too many steps in a row were not finite.
    """
    run = _Run(
        state=state,
        step=int(jax.device_get(state.step)),
        log=StepLog(
            max_nonfinite=max_nonfinite, case_name=case_name, totals=meta.get("totals", {})
        ),
        evaluated=int(meta.get("evaluated", 0)),
    )
    saved = run.step
    stream: Iterator[Batch] | None = None
    with jax.set_mesh(mesh):
        while True:
            last = run.step == steps
            stop = preempted(run.step)
            due = last or (evaluate_every > 0 and run.step % evaluate_every == 0)
            # A machine about to go has no time to evaluate: the next start does it.
            if evaluate is not None and due and run.step > run.evaluated and not stop:
                run.evaluate(evaluate, writer)
            if (checkpoints.due(run.step) or last or stop) and run.step > saved:
                run.save(checkpoints, meta, writer)
                saved = run.step
            if last or stop:
                break
            if stream is None:
                stream = batches(run.step)
            run.advance(train_step, next(stream), mesh, progress)
            if run.step % log_every == 0 or run.step == steps:
                run.write_log(writer, progress)
    checkpoints.wait()
    writer.flush()
    return FitResult(run.state, run.step, stop and not last, run.metrics)


class _Run:
    """What changes from step to step."""

    def __init__(self, *, state: TrainState, step: int, log: StepLog, evaluated: int):
        self.state, self.step, self.log, self.evaluated = state, step, log, evaluated
        self.metrics: Mapping[str, float] = {}
        self._rate = _Rate()

    def evaluate(self, evaluate: Evaluate, writer: Writer) -> None:
        with self._rate.paused():
            self.metrics, self.evaluated = evaluate(self.state), self.step
        writer.write(self.step, "evaluation", self.metrics)

    def save(self, checkpoints: Checkpoints, meta: Meta, writer: Writer) -> None:
        totals = self.log.totals()
        with self._rate.paused():
            # Before the checkpoint: a log that is behind it could not be mended.
            writer.flush()
            fresh = self.metrics if self.evaluated == self.step and self.metrics else None
            extra: dict[str, Any] = {"totals": totals, "evaluated": self.evaluated}
            checkpoints.save(self.step, self.state, meta | extra, fresh)

    def advance(self, train_step: TrainStep, batch: Batch, mesh: Mesh, progress: Progress) -> None:
        first = not self._rate.running
        began = time.monotonic()
        if first:
            progress.say("compiling the training step")
        self.state, metrics = train_step(self.state, to_global(batch, mesh))
        self.step += 1
        self.log.add(self.step, metrics, batch["case_index"])
        if first:
            jax.block_until_ready(metrics)
            progress.say(
                f"compiled; the first step ended after {duration(time.monotonic() - began)}"
            )
            self._rate.start()
        else:
            self._rate.count(len(batch["case_index"]) * jax.process_count())
        progress.step(self.step)

    def write_log(self, writer: Writer, progress: Progress) -> None:
        means = self.log.take_means()
        rate = self._rate.take()
        if rate is not None:
            means["samples_per_second"] = rate
        writer.write(self.step, "train", means)
        progress.log(self.step, means)


class _Rate:
    """Examples per second, without the first, compiling step, evaluations and checkpoints."""

    def __init__(self) -> None:
        self.running = False
        self._since, self._examples = 0.0, 0

    def start(self) -> None:
        self.running, self._since, self._examples = True, time.monotonic(), 0

    def count(self, examples: int) -> None:
        self._examples += examples

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._since += time.monotonic() - began

    def take(self) -> float | None:
        seconds, examples = time.monotonic() - self._since, self._examples
        self._since, self._examples = time.monotonic(), 0
        return examples / seconds if examples and seconds > 0 else None
