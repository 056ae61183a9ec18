"""The step: what it changes, what it leaves alone, and in how many pieces it may be taken."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from dummy_training import PATCH, WHOLE, DummyNet, make_batches, make_config

from gmmas_jax.augment.examples import widen
from gmmas_jax.objectives.combine import make_objective
from gmmas_jax.train.optimizer import make_optimizer
from gmmas_jax.train.rng import stream_key
from gmmas_jax.train.sharding import make_mesh, state_shardings
from gmmas_jax.train.state import inference_variables, make_init_fn
from gmmas_jax.train.step import (
    accumulated_gradient,
    compile_train_step,
    make_loss_fn,
    make_train_step,
    whole_batch_gradient,
)

CONFIG = make_config()
OBJECTIVE = make_objective(**CONFIG["objective"])
OPTIMIZER = make_optimizer(steps=10, **CONFIG["optimizer"])
QUICK = {"xla_backend_optimization_level": 0}
"""These tests compile for longer than they compute."""
NOISY, PLAIN = DummyNet(batch_norm=True), DummyNet(dropout=0.0)


@functools.cache
def _initial(model):
    init = make_init_fn(
        model=model,
        objective=OBJECTIVE,
        optimizer=OPTIMIZER.transformation,
        patch=PATCH,
        whole=WHOLE,
        seed=0,
        use_ema=True,
    )
    return jax.jit(init, compiler_options=QUICK)()


@functools.cache
def _step(model, microbatches=1):
    loss_fn = make_loss_fn(model=model, objective=OBJECTIVE)
    gradient_fn = whole_batch_gradient(loss_fn)
    if microbatches > 1:
        gradient_fn = accumulated_gradient(loss_fn, objective=OBJECTIVE, microbatches=microbatches)
    step = make_train_step(gradient_fn=gradient_fn, optimizer=OPTIMIZER, seed=0, ema_decay=0.9)
    return jax.jit(step, compiler_options=QUICK)


def _batch(step=0, **arguments):
    return next(make_batches(8, **arguments)(step))


def _equal(one, other):
    return jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), one, other))


def test_everything_moves_and_is_float32():
    old = _initial(NOISY)
    new, metrics = _step(NOISY)(old, _batch())
    assert (int(new.step), int(new.skipped)) == (1, 0)
    assert {leaf.dtype for leaf in jax.tree.leaves((new.params, new.ema, new.batch_stats))} == {
        jnp.dtype("float32")
    }
    for name in ("params", "ema", "batch_stats", "opt_state"):
        assert not _equal(getattr(old, name), getattr(new, name)), name
    assert float(metrics["loss"][1]) == 1
    assert float(metrics["nonfinite"][0]) == 0
    assert {"loss/idh", "accuracy/idh", "dice/WT", "gradient_norm", "learning_rate"} <= set(metrics)
    np.testing.assert_allclose(metrics["learning_rate"][0], 0.005, rtol=1e-6)
    variables = inference_variables(new)
    assert _equal(variables["params"], new.ema)
    assert set(variables) == {"params", "batch_stats"}


@pytest.mark.parametrize("what", ["image", "gradient"])
def test_step_that_is_not_finite_leaves_the_state_alone(what):
    step, old = _step(NOISY), _initial(NOISY)
    bad = _batch(poisoned=(0,))
    if what == "gradient":
        # The loss stays finite; only squaring the gradient overflows.
        old = old.replace(params=old.params | {"objective": {"log_variance": {
            name: jnp.asarray(-70.0) for name in OBJECTIVE.init()["log_variance"]}}})  # fmt: skip
        bad = _batch()
    new, metrics = step(old, bad)
    assert (int(new.step), int(new.skipped)) == (1, 1)
    for name in ("params", "ema", "batch_stats", "opt_state"):
        assert _equal(getattr(old, name), getattr(new, name)), name
    assert float(metrics["nonfinite"][0]) == 1
    others = {name: value for name, value in metrics.items() if name != "nonfinite"}
    assert all(float(total) == float(count) == 0 for total, count in others.values())


def test_run_goes_on_after_a_skipped_step_as_if_it_had_not_been():
    step, old = _step(PLAIN), _initial(PLAIN)
    skipped, _ = step(old, _batch(poisoned=(0,)))
    after, metrics = step(skipped, _batch(1))
    direct, expected = step(old, _batch(1))
    assert _equal(after.params, direct.params)
    assert _equal(after.opt_state, direct.opt_state)
    assert float(metrics["learning_rate"][0]) == float(expected["learning_rate"][0])


def test_microbatches_give_the_gradient_of_the_batch():
    old, batch = _initial(PLAIN), _batch()
    whole, expected = _step(PLAIN)(old, batch)
    parts, metrics = _step(PLAIN, 4)(old, batch)
    for name, (total, count) in expected.items():
        np.testing.assert_allclose(metrics[name][0], total, rtol=1e-5, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(metrics[name][1], count, err_msg=name)
    # Adam's first step divides by the gradient's size; compare the moments it was made from.
    distance = optax.tree.norm(jax.tree.map(jnp.subtract, whole.opt_state, parts.opt_state))
    assert float(distance) < 1e-5


def test_dropout_differs_between_steps_but_not_between_runs():
    step, old = _step(NOISY), _initial(NOISY)
    once, again = step(old, _batch())[0], step(old, _batch())[0]
    later = step(old.replace(step=old.step + 1, skipped=old.skipped + 1), _batch())[0]
    assert _equal(once.params, again.params)
    assert not _equal(once.params, later.params)


def _darken(key, batch):
    strength = jax.random.uniform(key, (), minval=0.1, maxval=0.2)
    return {**batch, "image": batch["image"] * strength}


def test_transform_sees_each_batch_with_its_own_key():
    batch, mesh = _batch(), make_mesh(data=-1, fsdp=1)
    shardings = state_shardings(_initial(PLAIN), mesh, split_above_bytes=2**20)

    def seen(state, batch):
        return state.replace(step=state.step + 1), {"image": batch["image"].mean()}

    step = compile_train_step(seen, mesh=mesh, shardings=shardings, seed=0, transform=_darken)
    with jax.set_mesh(mesh):
        state, first = step(jax.tree.map(jnp.copy, _initial(PLAIN)), batch)
        _, second = step(state, batch)
    shares = [float(metrics["image"]) / float(batch["image"].mean()) for metrics in (first, second)]
    keys = [stream_key(0, "transform", index) for index in (0, 1)]
    expected = [jax.random.uniform(key, minval=0.1, maxval=0.2) for key in keys]
    np.testing.assert_allclose(shares, expected, rtol=1e-4)


def test_narrow_batches_reach_the_step_wide():
    batch = {
        "image": jnp.asarray([0.5, -2.0], jnp.float16),
        "label": jnp.asarray([3, 0], jnp.uint8),
        "case_index": jnp.arange(2),
        "mirrored": jnp.asarray([True, False]),
    }
    wide = widen(batch)
    dtypes = {name: str(array.dtype) for name, array in wide.items()}
    assert dtypes == {
        "image": "float32",
        "label": "int32",
        "case_index": "int32",
        "mirrored": "bool",
    }
    assert wide["image"].tolist() == [0.5, -2.0]
    mesh, state = make_mesh(data=-1, fsdp=1), _initial(PLAIN)
    shardings = state_shardings(state, mesh, split_above_bytes=2**20)

    def seen(state, batch):
        assert batch["image"].dtype == jnp.float32
        return state, {"image": batch["image"].mean()}

    image = _batch()["image"].astype(jnp.float16)
    step = compile_train_step(seen, mesh=mesh, shardings=shardings, seed=0)
    with jax.set_mesh(mesh):
        _, metrics = step(jax.tree.map(jnp.copy, state), {"image": image})
    np.testing.assert_allclose(metrics["image"], image.astype(jnp.float32).mean(), rtol=1e-5)
