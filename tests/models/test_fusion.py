import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmmas_jax.models.fusion import (
    ChannelAttentionFusion,
    SequenceFusion,
    fusion_shares,
    max_pool,
)
from gmmas_jax.models.options import LayerOptions
from gmmas_jax.models.resize import space_to_depth
from tests.models.small import SMALL, random_variables
from tests.models.test_layers import correlate

OPTIONS = LayerOptions(**SMALL["layers"])
ALL = np.ones((2, 4), np.float32)


def volume(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def stem(**changes) -> SequenceFusion:
    fields = {"features": 5, "stride": 1, "dropout": 0.0, "options": OPTIONS}
    return SequenceFusion(**fields | changes)


def fused_by_numpy(params, image: np.ndarray, present: np.ndarray, stride: int) -> np.ndarray:
    """The published order: a convolution per sequence, then their weighted mean."""
    kernel, bias = np.asarray(params["kernel"]), np.asarray(params["bias"])
    total = 0.0
    weights = np.exp(np.asarray(params["strength"]) - 1.0) * present
    for s in range(4):
        own = np.asarray(space_to_depth(jnp.asarray(image[..., s : s + 1]), stride))
        part = slice(s * stride**3, (s + 1) * stride**3)
        features = correlate(own, kernel[:, :, :, part]) + bias[s]
        total = total + weights[:, s, None, None, None, None] * features
    return total / weights.sum(axis=1)[:, None, None, None, None]


@pytest.mark.parametrize("stride", [1, 2])
def test_stem_is_the_renormalised_mean_of_a_convolution_per_sequence(stride):
    image, layer = volume(2, 4, 4, 6, 4), stem(stride=stride)
    present = np.array([[1, 1, 1, 1], [0, 1, 0, 1]], np.float32)
    params = random_variables(layer, image, jnp.asarray(present), False)["params"]
    result = layer.apply({"params": params}, image, jnp.asarray(present), False)
    np.testing.assert_allclose(
        result, fused_by_numpy(params, np.asarray(image), present, stride), atol=1e-5
    )


def test_stem_dropout_drops_channels_of_single_sequences():
    image, layer = volume(2, 2, 2, 2, 4), stem(dropout=0.5)
    present = jnp.asarray(ALL)
    params = random_variables(layer, image, present, False)["params"]
    params["kernel"] = jnp.zeros_like(params["kernel"])
    params["bias"] = jnp.array([[1.0], [10.0], [100.0], [1000.0]]) * jnp.ones((4, 5))
    params["strength"] = jnp.ones(4)
    result = layer.apply(
        {"params": params}, image, present, True, rngs={"dropout": jax.random.key(0)}
    )
    # The mean of 4 with kept ones doubled: each channel is half a sum of some powers of ten.
    assert len(np.unique(result)) > 4
    for value in np.unique(2 * np.asarray(result)):
        assert set(f"{value:.0f}") <= {"0", "1"}
    np.testing.assert_array_equal(result, np.broadcast_to(result[:, :1, :1, :1], result.shape))


def test_stem_without_dropped_channels_is_the_same_in_training():
    image, layer = volume(2, 4, 4, 4, 4), stem(dropout=1e-6)
    present = jnp.array([[1.0, 0.0, 1.0, 1.0], [1.0] * 4])
    params = random_variables(layer, image, present, False)["params"]
    rngs = {"dropout": jax.random.key(0)}
    trained = layer.apply({"params": params}, image, present, True, rngs=rngs)
    np.testing.assert_allclose(
        trained, layer.apply({"params": params}, image, present, False), atol=1e-5
    )


def test_shares_are_equal_at_first_and_zero_where_nothing_is_present():
    present = jnp.array([[1.0, 1.0, 1.0, 1.0], [0.0, 1.0, 1.0, 0.0], [0.0] * 4])
    shares = fusion_shares(jnp.ones(4), present)
    np.testing.assert_allclose(shares, [[0.25] * 4, [0, 0.5, 0.5, 0], [0.0] * 4])
    stronger = fusion_shares(jnp.array([1.0, 1.0 + np.log(3.0), 1.0, 1.0]), present)
    np.testing.assert_allclose(stronger[1], [0, 0.75, 0.25, 0], rtol=1e-6)


def test_channel_attention_against_numpy():
    x, y = volume(2, 3, 4, 5, 6), volume(2, 3, 4, 5, 10, seed=1)
    layer = ChannelAttentionFusion(OPTIONS)
    params = random_variables(layer, x, y)["params"]
    p = {name: np.asarray(leaf, float) for name, leaf in params.items()}
    assert {name: leaf.shape for name, leaf in p.items()} == {
        "squeeze": (16, 2),
        "expand": (2, 16),
        "gate": (32, 16),
        "project": (16, 6),
    }
    z = np.concatenate([x, y], axis=-1).astype(float)

    def bottleneck(pooled: np.ndarray) -> np.ndarray:
        return np.maximum(pooled @ p["squeeze"], 0.0) @ p["expand"]

    average, maximum = bottleneck(z.mean(axis=(1, 2, 3))), bottleneck(z.max(axis=(1, 2, 3)))
    gate = 1 / (1 + np.exp(-np.concatenate([average, maximum], axis=-1) @ p["gate"]))
    expected = (gate[:, None, None, None] * z) @ p["project"] + np.asarray(x)
    np.testing.assert_allclose(layer.apply({"params": params}, x, y), expected, atol=1e-5)


def test_the_gradient_of_the_maximum_is_shared_by_its_voxels():
    x = volume(2, 2, 2, 2, 3).at[0, 0, 0, 1, 2].set(9.0).at[0, 1, 1, 0, 2].set(9.0)
    weight = volume(2, 3, seed=1)
    np.testing.assert_array_equal(max_pool(x), x.max(axis=(1, 2, 3)))
    ours, exact = (
        jax.grad(lambda x, pool=pool: (pool(x) * weight).sum())(x)
        for pool in (max_pool, lambda x: x.max(axis=(1, 2, 3)))
    )
    np.testing.assert_allclose(ours, exact, rtol=1e-6)
    np.testing.assert_allclose(ours[0, 1, 1, 0, 2], weight[0, 2] / 2, rtol=1e-6)
