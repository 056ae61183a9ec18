"""Optimizers, learning-rate schedules, weight-decay masks, moving averages."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from gmmas_jax.errors import UserError

NAMES = ("adamw", "sgd")
SCHEDULES = ("constant", "poly", "cosine")


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """An optimizer and what it was told about the learning rate.

    Attributes:
        transformation: Gradients to updates, clipping and weight decay included.
        schedule: Number of completed updates (skipped steps do not count) to learning rate.
    """

    transformation: optax.GradientTransformation
    schedule: optax.Schedule


def make_optimizer(
    *,
    name: str,
    learning_rate: float,
    steps: int,
    schedule: str = "poly",
    warmup_steps: int = 0,
    power: float = 0.9,
    final_fraction: float = 0.0,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    momentum: float = 0.99,
    nesterov: bool = True,
) -> Optimizer:
    """Makes an optimizer.

    Args:
        name: "adamw" (Loshchilov & Hutter 2019) or "sgd" (with weight decay in the gradient, as in
            nnU-Net).
        learning_rate: The highest, reached after the warm-up.
        steps: Updates of the whole run, the warm-up included.
        schedule: "constant", "poly" ((1 − t/T)^power, the published one), or "cosine".
        warmup_steps: Updates of a linear rise from learning_rate / warmup_steps.
        power: Of "poly".
        final_fraction: Of the learning rate, where "poly" and "cosine" end.
        weight_decay: Of what `decays` says.
        clip_norm: Largest norm of the gradient of all parameters together; None does not clip.
        b1: Of AdamW, as the next two.
        b2: Likewise.
        eps: Likewise.
        momentum: Of SGD, as the next.
        nesterov: Likewise.

    Raises:
        UserError: On an unknown word or an impossible number.
    """
    if name not in NAMES:
        raise UserError(f"optimizer.name is {name!r}; expected one of {', '.join(NAMES)}.")
    rate = make_schedule(
        schedule=schedule,
        learning_rate=learning_rate,
        steps=steps,
        warmup_steps=warmup_steps,
        power=power,
        final_fraction=final_fraction,
    )
    if name == "adamw":
        update = optax.adamw(
            rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=decay_mask
        )
    else:
        update = optax.chain(
            optax.add_decayed_weights(weight_decay, mask=decay_mask),
            optax.sgd(rate, momentum=momentum, nesterov=nesterov),
        )
    if clip_norm is None:
        return Optimizer(update, rate)
    if clip_norm <= 0:
        raise UserError(f"optimizer.clip_norm is {clip_norm}; expected a positive number or none.")
    return Optimizer(optax.chain(optax.clip_by_global_norm(clip_norm), update), rate)


def make_schedule(
    *,
    schedule: str,
    learning_rate: float,
    steps: int,
    warmup_steps: int,
    power: float,
    final_fraction: float,
) -> optax.Schedule:
    """Makes a learning-rate schedule; see `make_optimizer` for the arguments and errors."""
    if schedule not in SCHEDULES:
        raise UserError(
            f"optimizer.schedule is {schedule!r}; expected one of {', '.join(SCHEDULES)}."
        )
    if learning_rate <= 0:
        raise UserError(f"optimizer.learning_rate is {learning_rate}; expected a positive number.")
    if not 0 <= warmup_steps < max(steps, 1):
        raise UserError(
            f"optimizer.warmup_steps is {warmup_steps}, but train.steps is {steps}; "
            "the warm-up must end before the run does."
        )
    length = max(steps - warmup_steps, 1)
    if schedule == "constant":
        after = optax.constant_schedule(learning_rate)
    elif schedule == "poly":
        after = optax.polynomial_schedule(
            learning_rate, learning_rate * final_fraction, power, length
        )
    else:
        after = optax.cosine_decay_schedule(learning_rate, length, alpha=final_fraction)
    if not warmup_steps:
        return after
    # Not from 0: the first update would do nothing.
    rise = optax.linear_schedule(learning_rate / warmup_steps, learning_rate, warmup_steps)
    return optax.join_schedules([rise, after], [warmup_steps])


def decays(path: tuple[str, ...], ndim: int) -> bool:
    """Says whether weight decay applies to a parameter.

    It applies to kernels alone: not to biases, norms' scales, fusion weights and log-variances (all
    of at most one axis, or named bias), nor to learned positions.

    Args:
        path: Names from the root to the parameter.
        ndim: Its number of axes.
    """
    position = any(part.startswith(("pos_", "position")) for part in path)
    return ndim > 1 and path[-1] != "bias" and not position


def decay_mask(params: Any) -> Any:
    """Returns the tree of booleans that `decays` gives for a tree of parameters."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: decays(tuple(str(key.key) for key in path), leaf.ndim), params
    )


def update_ema(ema: Any, params: Any, *, decay: float, updates: Array) -> Any:
    """Moves the average of the parameters on by one update.

    The first updates use a smaller decay, min(decay, (1 + n) / (10 + n)), so that the average
    forgets the random initial values.

    Args:
        ema: float32 tree.
        params: The same tree after the update.
        decay: The final decay, below 1.
        updates: Scalar, how many updates were completed before this one.
    """
    count = updates.astype(jnp.float32)
    rate = jnp.minimum(decay, (1.0 + count) / (10.0 + count))
    return jax.tree.map(lambda old, new: rate * old + (1.0 - rate) * new, ema, params)
