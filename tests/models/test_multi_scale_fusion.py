"""MSF against NumPy, in images and volumes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmmas_jax.models.fusion import MultiScaleFusion
from gmmas_jax.models.options import LayerOptions
from tests.models.small import SMALL, random_variables

OPTIONS = LayerOptions(**SMALL["layers"])
SHAPES = [(2, 9, 8, 16), (2, 6, 5, 7, 16)]


def features(shape, seed=0):
    draws = np.random.default_rng(seed)
    return (draws.normal(size=shape).astype(np.float32) for _ in range(2))


def by_numpy(params, x, y):
    """Equations 1 and 2, written out with loops over the kernel."""
    params = jax.tree.map(np.asarray, params)
    rank = x.ndim - 2
    p1, p2, p3 = params["mix"]
    info = p1 * x + p2 * y + p3
    mean = info.mean(tuple(range(1, 1 + rank)))
    hidden = np.maximum(mean @ params["squeeze"]["kernel"] + params["squeeze"]["bias"], 0)
    channels = hidden @ params["expand"]["kernel"] + params["expand"]["bias"]
    maps = np.stack([info.mean(-1), info.max(-1)], -1)
    padded = np.pad(maps, [(0, 0), *[(3, 3)] * rank, (0, 0)], mode="reflect")
    places = np.zeros((*x.shape[:-1], 1), np.float64)
    for offset in itertools.product(range(7), repeat=rank):
        window = [slice(o, o + size) for o, size in zip(offset, x.shape[1:-1], strict=True)]
        places += padded[(slice(None), *window)] @ params["places"]["kernel"][offset]
    places += params["places"]["bias"]
    logits = channels.reshape(len(x), *[1] * rank, -1) + places
    weight = 1 / (1 + np.exp(-logits))
    return info + weight * x + (1 - weight) * y, weight


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_what_the_equations_say(shape):
    x, y = features(shape)
    layer = MultiScaleFusion(OPTIONS)
    params = random_variables(layer, jnp.asarray(x), jnp.asarray(y))["params"]
    fused, kept = layer.apply({"params": params}, x, y, mutable=["intermediates"])
    expected, weight = by_numpy(params, x, y)
    np.testing.assert_allclose(fused, expected, atol=1e-5)
    np.testing.assert_allclose(kept["intermediates"]["weight"][0], weight, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("logit", [-100.0, 0.0, 1.0, 100.0])
def test_with_a_constant_weight_it_is_its_closed_form(shape, logit):
    x, y = features(shape, seed=1)
    layer = MultiScaleFusion(OPTIONS)
    params = layer.init(jax.random.key(0), x, y)["params"]
    params = jax.tree.map(jnp.zeros_like, params) | {"mix": jnp.array([0.5, 2.0, 0.25])}
    params["places"]["bias"] = jnp.array([logit])
    weight = 1 / (1 + np.exp(-logit))
    expected = (0.5 + weight) * x + (3.0 - weight) * y + 0.25
    np.testing.assert_allclose(layer.apply({"params": params}, x, y), expected, atol=1e-5)


def test_at_the_start_it_is_the_sum_and_a_weighted_mean():
    x, y = features(SHAPES[0])
    layer = MultiScaleFusion(OPTIONS)
    params = layer.init(jax.random.key(0), x, y)["params"]
    np.testing.assert_array_equal(params["mix"], [1, 1, 0])
    fused, kept = layer.apply({"params": params}, x, y, mutable=["intermediates"])
    weight = np.asarray(kept["intermediates"]["weight"][0])
    np.testing.assert_allclose(fused - x - y, weight * x + (1 - weight) * y, atol=1e-5)
    assert weight.shape == x.shape


@pytest.mark.parametrize(("rank", "kernel"), [(2, 7**2), (3, 7**3)])
def test_its_parameters_are_counted(rank, kernel):
    x = jnp.zeros((1, *[8] * rank, 16))
    params = jax.eval_shape(MultiScaleFusion(OPTIONS).init, jax.random.key(0), x, x)["params"]
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert count == 3 + (16 * 2 + 2) + (2 * 16 + 16) + (2 * kernel + 1)
