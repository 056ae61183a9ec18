"""Optimizers against NumPy, schedules at their corners, masks and averages."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from gmmas_jax.errors import UserError
from gmmas_jax.train.optimizer import decay_mask, make_optimizer, update_ema

PARAMS = {
    "model": {
        "conv": {"kernel": jnp.full((2, 3), 2.0), "bias": jnp.full((3,), 2.0)},
        "attention": {"bias": jnp.full((2, 2), 2.0)},
        "norm": {"scale": jnp.full((3,), 2.0)},
        "position": jnp.full((4, 3), 2.0),
        "pos_embedding": {"table": jnp.full((4, 3), 2.0)},
        "fusion": jnp.full((4,), 2.0),
    },
    "objective": {"log_variance": {"idh": jnp.asarray(2.0)}},
}


def _rates(schedule, steps, at, **arguments):
    optimizer = make_optimizer(
        name="adamw", learning_rate=0.1, steps=steps, schedule=schedule, **arguments
    )
    return [float(optimizer.schedule(step)) for step in at]


def test_schedules():
    assert _rates("constant", 100, (0, 50, 100)) == pytest.approx([0.1] * 3)
    np.testing.assert_allclose(
        _rates("poly", 100, (0, 50, 100)), [0.1, 0.1 * 0.5**0.9, 0], rtol=1e-5, atol=1e-9
    )
    np.testing.assert_allclose(
        _rates("cosine", 100, (0, 25, 100), final_fraction=0.1),
        [0.1, 0.1 * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi / 4))), 0.01],
        rtol=1e-5,
    )


def test_warmup_rises_from_a_first_step_that_counts():
    rates = _rates("poly", 12, range(12), warmup_steps=4)
    np.testing.assert_allclose(rates[:5], [0.025, 0.04375, 0.0625, 0.08125, 0.1], rtol=1e-5)
    assert all(a > b > 0 for a, b in itertools.pairwise(rates[4:]))


def test_weight_decay_spares_biases_norms_positions_and_log_variances():
    mask = decay_mask(PARAMS)
    assert mask["model"]["conv"] == {"kernel": True, "bias": False}
    assert mask["model"]["attention"] == {"bias": False}
    assert mask["model"]["norm"] == {"scale": False}
    assert mask["model"]["position"] is False
    assert mask["model"]["pos_embedding"] == {"table": False}
    assert mask["model"]["fusion"] is False
    assert mask["objective"]["log_variance"] == {"idh": False}


def _one_update(gradient, *, updates=1, **arguments):
    """Returns the value of a kernel and of a bias after updates with the same gradient."""
    optimizer = make_optimizer(steps=100, schedule="constant", **arguments).transformation
    params = {"kernel": jnp.full((1, 1), 2.0), "bias": jnp.full((1,), 2.0)}
    state = optimizer.init(params)
    gradients = {name: jnp.full_like(value, gradient) for name, value in params.items()}
    for _ in range(updates):
        change, state = optimizer.update(gradients, state, params)
        params = {name: value + change[name] for name, value in params.items()}
    return float(params["kernel"][0, 0]), float(params["bias"][0])


def test_adamw_equals_numpy():
    kernel, bias = _one_update(3.0, name="adamw", learning_rate=0.1, weight_decay=0.5)
    # The first bias-corrected step is the gradient's sign; decay is decoupled from it.
    assert bias == pytest.approx(2.0 - 0.1, rel=1e-5)
    assert kernel == pytest.approx(2.0 - 0.1 * (1 + 0.5 * 2.0), rel=1e-5)


def test_sgd_with_nesterov_equals_numpy():
    arguments = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.5}
    kernel, bias = _one_update(3.0, updates=2, nesterov=True, **arguments)
    for value, decay in ((bias, 0.0), (kernel, 0.5)):
        expected, trace = 2.0, 0.0
        for _ in range(2):
            gradient = 3.0 + decay * expected
            trace = gradient + 0.9 * trace
            expected -= 0.1 * (gradient + 0.9 * trace)
        assert value == pytest.approx(expected, rel=1e-5)
    plain, _ = _one_update(3.0, updates=2, nesterov=False, **arguments)
    assert plain != kernel


def test_clipping_is_of_the_global_norm():
    kernel, bias = _one_update(
        3.0, name="sgd", learning_rate=1.0, momentum=0.0, nesterov=False, clip_norm=1.0
    )
    np.testing.assert_allclose([kernel, bias], 2 - 1 / np.sqrt(2), rtol=1e-5)


def test_average_of_the_parameters():
    ema = {"x": jnp.asarray(1.0)}
    first = update_ema(ema, {"x": jnp.asarray(0.0)}, decay=0.999, updates=jnp.asarray(0))
    late = update_ema(ema, {"x": jnp.asarray(0.0)}, decay=0.999, updates=jnp.asarray(10**6))
    np.testing.assert_allclose([first["x"], late["x"]], [0.1, 0.999], rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "adam"}, "optimizer.name is 'adam'"),
        ({"schedule": "step"}, "optimizer.schedule is 'step'"),
        ({"learning_rate": 0.0}, "optimizer.learning_rate is 0.0"),
        ({"clip_norm": -1.0}, "optimizer.clip_norm is -1.0"),
        ({"warmup_steps": 10}, "warmup_steps is 10, but train.steps is 10"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        make_optimizer(**({"name": "adamw", "learning_rate": 0.1, "steps": 10} | arguments))
