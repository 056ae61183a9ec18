"""What training carries from step to step."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from gmmas_jax.errors import UserError
from gmmas_jax.objectives.combine import Objective
from gmmas_jax.train import rng


@struct.dataclass
class TrainState:
    """The whole state of a run; everything else follows from the config and the step.

    Attributes:
        step: int32 [], completed steps, skipped ones included: the number of batches consumed.
        skipped: int32 [], how many of them left the rest of the state untouched because the loss or
            its gradient was not finite.
        params: {"model": …, "objective": …}, float32.
        batch_stats: Running statistics of BatchNorm; empty for a network without.
        opt_state: Of the optimizer.
        ema: Exponential moving average of params["model"], or None.
    """

    step: Array
    skipped: Array
    params: dict[str, Any]
    batch_stats: dict[str, Any]
    opt_state: Any
    ema: dict[str, Any] | None


def example_inputs(patch: Sequence[int], whole: Sequence[int]) -> tuple[Array, Array, Array, Array]:
    """Returns (image, present, whole, box) of one empty example, to initialise a network.

    Args:
        patch: (d, h, w) of a patch, in voxels.
        whole: (D, H, W) of the whole volume's grid, in voxels.
    """
    image = jnp.zeros((1, *patch, 4), jnp.float32)
    volume = jnp.zeros((1, *whole, 4), jnp.float32)
    box = jnp.concatenate([jnp.zeros((1, 1, 3)), jnp.ones((1, 1, 3))], axis=1)
    return image, jnp.ones((1, 4), jnp.float32), volume, box


def make_init_fn(
    *,
    model: nn.Module,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    patch: Sequence[int],
    whole: Sequence[int],
    seed: int,
    use_ema: bool,
) -> Callable[[], TrainState]:
    """Returns the function that makes the initial state, to be traced or jitted."""

    def init() -> TrainState:
        variables = model.init(
            {"params": rng.stream_key(seed, "init")}, *example_inputs(patch, whole), train=False
        )
        params = {"model": variables["params"], "objective": objective.init()}
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            skipped=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=dict(variables.get("batch_stats", {})),
            opt_state=optimizer.init(params),
            ema=jax.tree.map(jnp.copy, variables["params"]) if use_ema else None,
        )

    return init


def compile_init(
    init: Callable[[], TrainState], *, shardings: TrainState
) -> Callable[[], TrainState]:
    """Compiles `make_init_fn`'s function so that each array is made where it will lie.

    On a CPU without optimisation: it runs once, and optimising the random numbers of every single
    parameter took ten times as long as running them.

    Args:
        init: From `make_init_fn`.
        shardings: Of the state, from `state_shardings`.
    """
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(init, out_shardings=shardings, compiler_options=options)


def with_weights(state: TrainState, variables: Mapping[str, Any]) -> TrainState:
    """Returns an initial state that begins with given weights, each where its array lies.

    Args:
        state: From `make_init_fn`.
        variables: {"params": …} and, for a network with BatchNorm, "batch_stats".

    Raises:
        UserError: If the weights are those of another network.
    """

    def put(own: Any, given: Any) -> Any:
        ours, theirs = (flatten_dict(dict(tree), sep="/") for tree in (own, given))
        wrong = [
            name
            for name in sorted(ours.keys() | theirs.keys())
            if np.shape(ours.get(name, 0)) != np.shape(theirs.get(name, 0))
        ]
        if wrong:
            raise UserError(
                f"train.weights: of another network than config.model: {wrong[0]} differs, and "
                f"{len(wrong) - 1} more. Use the model section that the weights' config.json has."
            )
        # Copies: the step gives the buffers of its state away, the average's and the parameters'.
        return jax.tree.map(
            lambda mine, new: jax.device_put(np.array(new), mine.sharding),
            own,
            unflatten_dict(theirs, sep="/"),
        )

    params = put(state.params["model"], variables["params"])
    return dataclasses.replace(
        state,
        params={**state.params, "model": params},
        batch_stats=put(state.batch_stats, variables.get("batch_stats", {})),
        ema=None if state.ema is None else put(state.ema, variables["params"]),
    )


def inference_variables(state: TrainState) -> Mapping[str, Any]:
    """Returns the variables to evaluate and export with: the averaged parameters, if kept.

    Returns:
        {"params": …} and, for a network with BatchNorm, "batch_stats".
    """
    params = state.params["model"] if state.ema is None else state.ema
    return {"params": params} | ({"batch_stats": state.batch_stats} if state.batch_stats else {})
