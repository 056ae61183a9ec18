from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from gmmas_jax.errors import UserError
from gmmas_jax.models.build import make_model
from gmmas_jax.models.gmmas import GMMAS
from tests.models.small import (
    random_variables,
    run,
    small_config,
    small_inputs,
    small_model,
)

PRESENT = jnp.array([[1.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]])


def shapes_of(outputs):
    return jax.tree.map(lambda leaf: leaf.shape, outputs)


def output_shapes(model: GMMAS, inputs, **keywords):
    """Shapes and dtypes of the outputs, without computing them."""
    rngs = {"dropout": jax.random.key(0)}
    return jax.eval_shape(
        lambda v, *i: model.apply(v, *i, rngs=rngs, **keywords),
        random_variables(model, *inputs),
        *inputs,
    )


def assert_equal(tree, other) -> None:
    jax.tree.map(np.testing.assert_array_equal, tree, other)


@pytest.fixture(scope="module")
def small():
    """The small network, compiled once for all tests of this file that can share it."""
    model, inputs = small_model(), small_inputs()
    variables = random_variables(model, *inputs)
    compiled = jax.jit(model.apply).lower(variables, *inputs)
    call = compiled.compile(compiler_options={"xla_backend_optimization_level": 0})
    return SimpleNamespace(model=model, variables=variables, inputs=inputs, call=call)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_outputs_have_the_stated_shapes_in_float32(dtype):
    levels = {"widths": [4, 8, 8], "blocks": [1, 2, 1]}
    model = small_model(
        layers={"dtype": dtype}, encoder=levels, global_unet=levels, deep_supervision=2
    )
    outputs = output_shapes(model, small_inputs(patch=8, whole=12))
    assert shapes_of(outputs) == {
        "segmentation": (2, 8, 8, 8, 4),
        "segmentation_deep": ((2, 4, 4, 4, 4), (2, 2, 2, 2, 4)),
        "segmentation_whole": (2, 12, 12, 12, 4),
        "pooled": {"histology": (2, 16), "idh": (2, 16)},
        "tasks": {"histology": (2, 3), "idh": (2, 2)},
    }
    assert {leaf.dtype for leaf in jax.tree.leaves(outputs)} == {jnp.dtype("float32")}


def test_a_folding_stem_still_segments_every_voxel():
    model = small_model(encoder={"stem_stride": 2}, global_unet={"stem_stride": 2})
    outputs = output_shapes(model, small_inputs(patch=16, whole=8))
    assert outputs["segmentation"].shape == (2, 16, 16, 16, 4)
    assert outputs["segmentation_deep"][0].shape == (2, 4, 4, 4, 4)
    assert outputs["segmentation_whole"].shape == (2, 8, 8, 8, 4)


def test_both_decoders_take_the_fusion_of_mu_net():
    inputs = small_inputs()
    models = {name: small_model(skip_fusion=name) for name in ("concat", "msf")}
    shapes = {n: jax.eval_shape(m.init, jax.random.key(0), *inputs) for n, m in models.items()}
    for part in ("decoder", "global_unet"):
        leaves = jax.tree_util.tree_leaves_with_path(shapes["msf"]["params"][part])
        assert any("places" in jax.tree_util.keystr(path) for path, _ in leaves)
    variables = models["msf"].init(jax.random.key(0), *inputs)
    fused = models["msf"].apply(variables, *inputs)["segmentation"]
    mixed = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * 2 if "mix" in jax.tree_util.keystr(path) else leaf, variables
    )
    other = models["msf"].apply(mixed, *inputs)["segmentation"]
    assert fused.shape == other.shape
    assert np.abs(np.asarray(fused - other)).max() > 1e-3


def test_segmentation_alone_has_no_classifier():
    model, inputs = small_model(tasks={}), small_inputs()
    assert set(random_variables(model, *inputs)["params"]) == {"encoder", "decoder", "global_unet"}
    outputs = output_shapes(model, inputs)
    assert outputs["tasks"] == {}
    assert outputs["pooled"] == {}


def test_only_batch_norm_keeps_running_statistics():
    inputs = small_inputs()
    assert set(random_variables(small_model(), *inputs)) == {"params"}
    model = small_model(layers={"norm": "batch"})
    assert set(random_variables(model, *inputs)) == {"params", "batch_stats"}
    _, updated = output_shapes(model, inputs, train=True, mutable=["batch_stats"])
    assert {leaf.dtype for leaf in jax.tree.leaves(updated)} == {jnp.dtype("float32")}


def test_parameters_are_float32_under_the_bfloat16_policy():
    variables = random_variables(small_model(layers={"dtype": "bfloat16"}), *small_inputs())
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_the_bfloat16_policy_computes_what_is_large_in_bfloat16():
    model, inputs = small_model(layers={"dtype": "bfloat16"}), small_inputs()
    variables = random_variables(model, *inputs)
    jaxpr = jax.make_jaxpr(model.apply)(variables, *inputs)
    volumes = [
        equation
        for equation in equations(jaxpr.jaxpr)
        if equation.primitive.name in ("conv_general_dilated", "dot_general")
        and equation.invars[0].aval.ndim >= 4
    ]
    assert len(volumes) > 20
    assert {equation.invars[0].aval.dtype.name for equation in volumes} == {"bfloat16"}
    exponentials = [e for e in equations(jaxpr.jaxpr) if e.primitive.name == "exp"]
    assert {equation.invars[0].aval.dtype.name for equation in exponentials} == {"float32"}


def equations(jaxpr):
    """Every equation of a jaxpr and of those inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner)


def test_absent_sequences_change_no_bit(small):
    image, _, whole, box = small.inputs
    absent = PRESENT[:, None, None, None, :] == 0
    expected = small.call(small.variables, image, PRESENT, whole, box)
    for junk in (jnp.nan, jnp.inf, 1e30):
        soiled = small.call(
            small.variables,
            jnp.where(absent, junk, image),
            PRESENT,
            jnp.where(absent, junk, whole),
            box,
        )
        assert_equal(soiled, expected)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(expected))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_every_present_sequence_counts_in_patch_and_whole(small, count):
    image, _, whole, box = small.inputs
    present = jnp.tile(jnp.arange(4) < count, (2, 1)).astype(jnp.float32)
    expected = small.call(small.variables, image, present, whole, box)
    last = jnp.arange(4)[None, None, None, None] == count - 1
    for changed in (
        (jnp.where(last, image + 1.0, image), whole),
        (image, jnp.where(last, whole * 2.0, whole)),
    ):
        other = small.call(small.variables, changed[0], present, changed[1], box)
        assert float(jnp.abs(other["segmentation"] - expected["segmentation"]).max()) > 1e-4
        assert float(jnp.abs(other["tasks"]["idh"] - expected["tasks"]["idh"]).max()) > 1e-5


def test_a_batch_with_different_masks_equals_its_cases_run_alone_in_two_parts(small):
    image, _, whole, box = small.inputs
    box = box.at[1].set(jnp.array([[0.2, 0.0, 0.5], [0.9, 0.6, 1.0]]))
    together = small.call(small.variables, image, PRESENT, whole, box)

    def alone(variables, image, present, whole, box):
        features = small.model.apply(variables, whole, present, method=GMMAS.global_features)
        outputs = small.model.apply(variables, image, present, features, box, method=GMMAS.patch)
        return outputs | {"segmentation_whole": features["segmentation_whole"]}

    compiled = jax.jit(alone)
    for case in range(2):
        own = slice(case, case + 1)
        single = compiled(small.variables, image[own], PRESENT[own], whole[own], box[own])
        assert single.keys() == together.keys()
        jax.tree.map(
            lambda part, all_: np.testing.assert_allclose(part, all_[own], atol=2e-5),  # noqa: B023
            single,
            together,
        )


def test_features_of_one_case_serve_all_its_windows(small):
    image, present, whole, box = small.inputs
    box = box.at[1].add(0.3)
    whole = jnp.broadcast_to(whole[:1], whole.shape)
    expected = small.call(small.variables, image, present, whole, box)

    def windows(variables):
        features = small.model.apply(
            variables, whole[:1], present[:1], method=GMMAS.global_features
        )
        return small.model.apply(variables, image, present, features, box, method=GMMAS.patch)

    outputs = run(windows, small.variables)
    for name, values in outputs.items():
        jax.tree.map(
            lambda one, two: np.testing.assert_allclose(one, two, atol=2e-5), values, expected[name]
        )


def test_the_classifier_is_repeatable_from_pooled_features(small):
    outputs = small.call(small.variables, *small.inputs)
    logits = small.model.apply(small.variables, outputs["pooled"], method=GMMAS.classify)
    jax.tree.map(
        lambda one, two: np.testing.assert_allclose(one, two, atol=1e-6), logits, outputs["tasks"]
    )


def test_crop_reads_the_box_and_unaligned_features_do_not(small):
    image, present, whole, box = small.inputs
    unaligned = small_model(global_alignment="none")
    compiled = jax.jit(unaligned.apply)
    everywhere = jnp.broadcast_to(jnp.array([[[0.0] * 3, [1.0] * 3]]), box.shape)
    published = compiled(small.variables, image, present, whole, box)
    assert_equal(published, compiled(small.variables, image, present, whole, everywhere))
    cropped = small.call(small.variables, image, present, whole, everywhere)
    jax.tree.map(
        lambda one, two: np.testing.assert_allclose(one, two, atol=2e-5), published, cropped
    )
    elsewhere = small.call(small.variables, image, present, whole, box)
    assert float(jnp.abs(elsewhere["segmentation"] - cropped["segmentation"]).max()) > 1e-3


def test_bfloat16_computes_the_same_network(small):
    model = small_model(layers={"dtype": "bfloat16"})
    outputs = run(model.apply, small.variables, *small.inputs)
    expected = small.call(small.variables, *small.inputs)
    for name in ("segmentation", "segmentation_whole"):
        error = jnp.abs(outputs[name] - expected[name]).mean() / expected[name].std()
        assert float(error) < 0.05


def test_task_order_does_not_matter():
    first = make_model(**small_config(tasks={"idh": 2, "histology": 3}))
    assert first == make_model(**small_config(tasks={"histology": 3, "idh": 2}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": {"norm": "layer"}}, r"model\.layers\.norm is 'layer'; expected one of batch"),
        ({"layers": {"nrom": "group"}}, r"model\.layers has unknown fields \['nrom'\]"),
        ({"encoder": {"blocks": [1]}}, r"model\.encoder\.blocks is \(1,\); expected one number"),
        ({"transformer": {"heads": 5}}, r"model\.transformer\.dim is 24; expected a multiple of"),
        (
            {"global_unet": {"widths": [4] * 3, "blocks": [1] * 3}},
            r"unet\.widths has 3 levels",
        ),
        ({"global_alignment": "warp"}, "global_alignment is 'warp'; expected one of none, crop"),
        ({"deep_supervision": 2}, r"model\.deep_supervision is 2; expected 0 to 1"),
    ],
)
def test_impossible_options_are_refused_by_name(changes, message):
    with pytest.raises(UserError, match=message):
        small_model(**changes)


@pytest.mark.parametrize(("sizes", "name"), [({"patch": 5}, "data.patch"), ({"whole": 3}, "whole")])
def test_sizes_that_the_strides_do_not_divide_are_refused(sizes, name):
    with pytest.raises(UserError, match=f"{name}.*multiples of 2"):
        random_variables(small_model(), *small_inputs(**sizes))
