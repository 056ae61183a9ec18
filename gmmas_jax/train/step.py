"""One training step: a pure function of state and batch, and its compiled form."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import Array
from jax.sharding import Mesh
from jax.tree_util import Partial

from gmmas_jax.augment.examples import widen
from gmmas_jax.objectives.combine import Metrics, Objective
from gmmas_jax.train import rng
from gmmas_jax.train.optimizer import Optimizer, update_ema
from gmmas_jax.train.sharding import batch_sharding, replicated
from gmmas_jax.train.state import TrainState

Batch = Mapping[str, Any]
"""See `data_pipelines.pipeline`: arrays and dicts of arrays with the batch as their first axis."""

Gradients = tuple[Any, Array, dict[str, Any], Metrics]
"""(gradients, loss, batch_stats, metrics)."""

GradientFn = Callable[[Any, dict[str, Any], Batch, Array], Gradients]
"""(params, batch_stats, batch, key) to Gradients."""

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]

Transform = Callable[[Array, Batch], Batch]
"""(key, batch) to batch, for example an augmentation on the accelerator.

One that needs large arrays is a `jax.tree_util.Partial` of them: they are passed to the compiled
program, in which they would else be written out as constants.
"""


class LossFn(Protocol):
    """What a gradient is taken of; `counts` and `share` as in `Objective.__call__`."""

    def __call__(
        self,
        params: Any,
        batch_stats: dict[str, Any],
        batch: Batch,
        key: Array,
        *,
        counts: Mapping[str, Array] | None = None,
        share: float = 1.0,
    ) -> tuple[Array, tuple[dict[str, Any], Metrics]]:
        """Returns loss, (batch_stats, metrics)."""
        ...


def make_loss_fn(*, model: nn.Module, objective: Objective) -> LossFn:
    """Joins a network and an objective."""

    def loss_fn(
        params: Any,
        batch_stats: dict[str, Any],
        batch: Batch,
        key: Array,
        *,
        counts: Mapping[str, Array] | None = None,
        share: float = 1.0,
    ) -> tuple[Array, tuple[dict[str, Any], Metrics]]:
        variables = {"params": params["model"]}
        if batch_stats:
            variables["batch_stats"] = batch_stats
        outputs, updated = model.apply(
            variables,
            batch["image"],
            batch["present"],
            batch["whole"],
            batch["box"],
            train=True,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        loss, metrics = objective(params["objective"], outputs, batch, counts=counts, share=share)
        return loss, (updated["batch_stats"] if batch_stats else {}, metrics)

    return loss_fn


def whole_batch_gradient(loss_fn: LossFn) -> GradientFn:
    """Takes the gradient of a batch in one piece."""

    def gradient_fn(
        params: Any, batch_stats: dict[str, Any], batch: Batch, key: Array
    ) -> Gradients:
        (loss, (batch_stats, metrics)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
            params, batch_stats, batch, key
        )
        return gradients, loss, batch_stats, metrics

    return gradient_fn


def accumulated_gradient(loss_fn: LossFn, *, objective: Objective, microbatches: int) -> GradientFn:
    """Takes the gradient of a batch in pieces, one after the other, to save memory.

    The denominators of all losses are those of the whole batch, so the result is the gradient of
    the whole batch also where labels are missing. Three things still see a microbatch at a time:
    BatchNorm, dropout's keys, and Dice with `batch_sums`.
    """

    def gradient_fn(
        params: Any, batch_stats: dict[str, Any], batch: Batch, key: Array
    ) -> Gradients:
        counts = objective.counts(batch)
        value_and_gradient = jax.value_and_grad(loss_fn, has_aux=True)

        def accumulate(carry: Any, piece: tuple[Batch, Array]) -> tuple[Any, Metrics]:
            gradients, loss, batch_stats = carry
            part, index = piece
            (value, (batch_stats, metrics)), gradient = value_and_gradient(
                params,
                batch_stats,
                part,
                jax.random.fold_in(key, index),
                counts=counts,
                share=1.0 / microbatches,
            )
            gradients = jax.tree.map(jnp.add, gradients, gradient)
            return (gradients, loss + value, batch_stats), metrics

        # Every n-th example, not runs of them: each device keeps working on its own examples.
        parts = jax.tree.map(
            lambda array: jnp.swapaxes(array.reshape(-1, microbatches, *array.shape[1:]), 0, 1),
            dict(batch),
        )
        start = (jax.tree.map(jnp.zeros_like, params), jnp.zeros((), jnp.float32), batch_stats)
        (gradients, loss, batch_stats), metrics = jax.lax.scan(
            accumulate, start, (parts, jnp.arange(microbatches))
        )
        return gradients, loss, batch_stats, jax.tree.map(lambda values: values.sum(0), metrics)

    return gradient_fn


def make_train_step(
    *,
    gradient_fn: GradientFn,
    optimizer: Optimizer,
    seed: int,
    ema_decay: float | None = None,
) -> TrainStep:
    """Makes the step.

    A step whose loss or gradient is not finite changes nothing of the state but `step` and
    `skipped`: the next step sees the next batch, and the optimizer never saw this one.

    Args:
        gradient_fn: `whole_batch_gradient` or `accumulated_gradient`.
        optimizer: From `make_optimizer`.
        seed: The run's seed, for dropout.
        ema_decay: Of the parameters' average; None if the state keeps none.

    Returns:
        (state, batch) to (state, metrics). Besides those of the objective, metrics hold loss,
        gradient_norm (before clipping), learning_rate, and nonfinite (1 for a skipped step); in a
        skipped step all but the last have a count of 0.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = rng.stream_key(seed, "dropout", state.step)
        gradients, loss, batch_stats, metrics = gradient_fn(
            state.params, state.batch_stats, batch, key
        )
        norm = optax.tree.norm(gradients)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        done = state.step - state.skipped
        updates, opt_state = optimizer.transformation.update(
            gradients, state.opt_state, state.params
        )
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema is not None and ema_decay is not None:
            ema = update_ema(ema, params["model"], decay=ema_decay, updates=done)
        new, old = (
            (params, batch_stats, opt_state, ema),
            (
                state.params,
                state.batch_stats,
                state.opt_state,
                state.ema,
            ),
        )
        kept = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
        rate = jnp.asarray(optimizer.schedule(done), jnp.float32)
        one = jnp.ones((), jnp.float32)
        metrics = metrics | {
            "loss": (loss, one),
            "gradient_norm": (norm, one),
            "learning_rate": (rate, one),
        }
        metrics = jax.tree.map(lambda value: jnp.where(finite, value, 0.0), metrics)
        state = TrainState(
            step=state.step + 1,
            skipped=state.skipped + jnp.where(finite, 0, 1),
            params=kept[0],
            batch_stats=kept[1],
            opt_state=kept[2],
            ema=kept[3],
        )
        return state, metrics | {"nonfinite": (jnp.where(finite, 0.0, 1.0), one)}

    return train_step


def compile_train_step(
    step: TrainStep,
    *,
    mesh: Mesh,
    shardings: TrainState,
    seed: int,
    transform: Transform | None = None,
) -> TrainStep:
    """Compiles a step for a mesh; the state that is passed in is consumed.

    Batches may come in narrow dtypes, as a store holds them; the step gets them wide (`widen`).

    Args:
        step: From `make_train_step`.
        mesh: From `make_mesh`; calls must be made inside `jax.set_mesh(mesh)`.
        shardings: Of the state, from `state_shardings`.
        seed: The run's seed, for the transform.
        transform: Is applied to each batch, narrow as it came, before the step.
    """
    compiled = jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
    )

    def transform_next(transform: Transform | None, index: Array, batch: Batch) -> Batch:
        if transform is not None:
            batch = transform(rng.stream_key(seed, "transform", index), batch)
        return widen(batch)

    # A program of its own. In the step's, XLA's CPU backend would compute it again for each reader
    # of the images: a fifth of the mini network's step.
    transformed = jax.jit(
        transform_next,
        in_shardings=(replicated(mesh), replicated(mesh), batch_sharding(mesh)),
        out_shardings=batch_sharding(mesh),
    )
    placed = jax.device_put(_as_tree(transform), replicated(mesh))
    return lambda state, batch: compiled(state, transformed(placed, state.step, batch))


def _as_tree(transform: Transform | None) -> Any:
    """Returns a transform that `jit` takes as an argument: its arrays are the leaves."""
    # A `Partial` of a `Partial` would hide the arrays of the inner one.
    return transform if transform is None or isinstance(transform, Partial) else Partial(transform)
