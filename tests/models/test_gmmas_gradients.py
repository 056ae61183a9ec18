import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmmas_jax.models.encoders import BackboneEncoder
from gmmas_jax.models.options import EncoderOptions, LayerOptions, TransformerOptions
from tests.models.small import SMALL, random_variables, run, small_inputs, small_model


def small_gradients(remat: str, image, present, whole, box, **changes):
    """Gradients of every parameter, in training, of a loss that all outputs enter."""
    model = small_model(layers={"remat": remat, **changes})
    variables = random_variables(model, *small_inputs())

    def loss(params, *inputs):
        outputs, _ = model.apply(
            variables | {"params": params},
            *inputs,
            train=True,
            rngs={"dropout": jax.random.key(1)},
            mutable=["batch_stats"],
        )
        del outputs["pooled"]
        return sum(jnp.square(leaf).mean() for leaf in jax.tree.leaves(outputs))

    return jax.grad(loss)(variables["params"], image, present, whole, box)


@pytest.fixture(scope="module")
def inputs():
    """A batch in which a case lacks two sequences, whose voxels are not numbers."""
    image, present, whole, box = small_inputs()
    present = present.at[1, :2].set(0.0)
    absent = present[:, None, None, None, :] == 0
    return jnp.where(absent, jnp.nan, image), present, jnp.where(absent, jnp.nan, whole), box


@pytest.fixture(scope="module")
def gradients(inputs):
    return run(lambda *arrays: small_gradients("none", *arrays), *inputs)


def test_gradients_are_finite_and_reach_every_parameter(gradients):
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert bool(jnp.isfinite(leaf).all()), path
        assert float(jnp.abs(leaf).max()) > 0, path


def test_batch_norm_trains_under_remat(inputs):
    gradients = jax.eval_shape(lambda *i: small_gradients("all", *i, norm="batch"), *inputs)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(gradients))


def test_recomputing_activations_changes_no_gradient():
    image, present, _, _ = small_inputs(batch=1)
    middle = jnp.ones((1, 2, 2, 2, 3))

    def gradients(remat: str):
        encoder = BackboneEncoder(
            EncoderOptions(**SMALL["encoder"]),
            TransformerOptions(**SMALL["transformer"]),
            LayerOptions(**SMALL["layers"] | {"remat": remat}),
        )
        inputs = (image, present, middle, True)
        variables = random_variables(encoder, *inputs[:-1], False)

        def loss(variables):
            levels, fused = encoder.apply(variables, *inputs, rngs={"dropout": jax.random.key(1)})
            return jnp.square(fused).sum() + levels[-1].sum()

        traced = str(jax.make_jaxpr(jax.grad(loss))(variables))
        return run(jax.grad(loss), variables), traced.count("remat")

    expected, none = gradients("none")
    assert none == 0
    for remat, least in (("transformer", 1), ("all", 3)):
        recomputed, count = gradients(remat)
        assert count >= least
        jax.tree.map(
            lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5),
            recomputed,
            expected,
        )
