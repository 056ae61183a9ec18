"""U-Net and MU-Net: their parameters, that slices are apart, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmmas_jax.errors import UserError
from gmmas_jax.models.unet import make_unet
from tests.models.small import SMALL, random_variables

LAYERS = SMALL["layers"] | {"norm": "batch", "upsample": "transpose"}
BOX = jnp.zeros((2, 2, 3))
WHOLE = jnp.zeros((2, 2, 2, 2, 4))
ALL = jnp.ones((2, 4))


def network(**changes):
    fields = {
        "sequences": ("t1c", "t2f"),
        "num_classes": 2,
        "widths": (8, 16, 32),
        "fusion": "msf",
        "layers": LAYERS,
    }
    return make_unet(**fields | changes)


def volume(seed=0, shape=(2, 8, 12, 3, 4)):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def parameters(model):
    image = jnp.zeros((1, 16, 16, 1, 4))
    shapes = jax.eval_shape(model.init, jax.random.key(0), image, ALL[:1], WHOLE[:1], BOX[:1])
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


def test_published_sizes():
    """U-Net: the 31,037,698 of the usual implementation with three channels, less one channel."""
    widths = (64, 128, 256, 512, 1024)
    unet = parameters(network(widths=widths, fusion="concat"))
    assert unet == 31_037_698 - 9 * 64
    spared = sum(9 * width * width for width in widths[:-1])
    fusions = sum(3 + 2 * w * (w // 8) + w // 8 + w + 2 * 49 + 1 for w in widths[:-1])
    assert parameters(network(widths=widths)) == unet - spared + fusions


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("upsample", ["transpose", "resize"])
@pytest.mark.parametrize("fusion", ["concat", "msf"])
def test_shapes_and_a_face_like_the_other_network(norm, upsample, fusion):
    model = network(fusion=fusion, layers=LAYERS | {"norm": norm, "upsample": upsample})
    arrays = (volume(), ALL, WHOLE, BOX)
    variables = jax.eval_shape(model.init, jax.random.key(0), *arrays)
    assert ("batch_stats" in variables) == (norm == "batch")
    outputs, _ = jax.eval_shape(
        lambda v, *a: model.apply(v, *a, train=True, mutable=["batch_stats"]), variables, *arrays
    )
    assert outputs["segmentation"].shape == (2, 8, 12, 3, 2)
    assert outputs["segmentation"].dtype == jnp.float32
    assert not any(outputs[name] for name in ("segmentation_deep", "pooled", "tasks"))


def test_a_slice_is_segmented_by_itself():
    model, image = network(), volume()
    variables = model.init(jax.random.key(1), image, ALL, WHOLE, BOX)
    whole = model.apply(variables, image, ALL, WHOLE, BOX)["segmentation"]
    for z in range(3):
        alone = model.apply(variables, image[:, :, :, z : z + 1], ALL, WHOLE, BOX)["segmentation"]
        np.testing.assert_allclose(alone[:, :, :, 0], whole[:, :, :, z], atol=1e-5)
    other = model.apply(variables, image.at[:, :, :, 0].add(1.0), ALL, WHOLE, BOX)["segmentation"]
    changed = np.abs(np.asarray(other - whole)).max((0, 1, 2, 4))
    assert changed[0] > 1e-3
    np.testing.assert_array_equal(changed[1:], 0)


def test_compilation_leaves_the_gradient_of_the_fusion_alone():
    """XLA may compute features twice, rounded otherwise: equality does not find a maximum."""
    model, image = network(widths=(8, 16)), volume(shape=(2, 16, 16, 1, 4))
    variables = random_variables(model, image, ALL, WHOLE, BOX)

    def loss(params):
        outputs, _ = model.apply(
            {**variables, "params": params},
            image,
            ALL,
            WHOLE,
            BOX,
            train=True,
            mutable=["batch_stats"],
        )
        return (jax.nn.log_softmax(outputs["segmentation"])[:, 4:9, 3:12, :, 1]).mean()

    compiled = jax.jit(jax.grad(loss))(variables["params"])
    with jax.disable_jit():
        expected = jax.grad(loss)(variables["params"])
    jax.tree.map(
        lambda one, two: np.testing.assert_allclose(one, two, atol=1e-3 * np.abs(two).max()),
        compiled,
        expected,
    )


def test_it_sees_its_own_sequences_and_no_absent_one():
    model, image = network(), volume()
    variables = model.init(jax.random.key(1), image, ALL, WHOLE, BOX)

    def run(image, present=ALL):
        return model.apply(variables, image, present, WHOLE, BOX)["segmentation"]

    before = run(image)
    np.testing.assert_array_equal(run(image.at[..., 0].set(7.0).at[..., 2].set(jnp.nan)), before)
    assert (run(image.at[..., 1].add(1.0)) != before).any()
    without = ALL.at[:, 1].set(0.0)
    hidden = run(image.at[..., 1].set(jnp.nan), without)
    np.testing.assert_array_equal(hidden, run(image.at[..., 1].set(0.0)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sequences": ()}, "expected one or more of t1n, t1c, t2w, t2f"),
        ({"sequences": ("t1c", "pd")}, "expected one or more of t1n"),
        ({"widths": (8,)}, "two or more levels"),
        ({"widths": (8, 0)}, "two or more levels"),
        ({"fusion": "sum"}, "fusion is 'sum'; expected one of concat, msf"),
        ({"layers": {"norm": "batch"}}, "model.layers"),
    ],
)
def test_wrong_settings_are_named(change, message):
    with pytest.raises(UserError, match=message):
        network(**change)


def test_slices_must_fit_the_strides():
    model = network()
    with pytest.raises(UserError, match=r"measure \(6, 8\) pixels; expected multiples of 4"):
        model.init(jax.random.key(0), volume(shape=(1, 6, 8, 3, 4)), ALL[:1], WHOLE[:1], BOX[:1])
