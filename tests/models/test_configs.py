"""The networks of the configs: published sizes to the last parameter, and outputs of all."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from gmmas_jax.cases.tasks import TASKS
from gmmas_jax.config import load_config, to_dict
from gmmas_jax.errors import UserError
from gmmas_jax.models.build import make_model

CONFIGS = Path(__file__).parents[2] / "configs"


def load(name: str, *overrides: str):
    return load_config(str(CONFIGS / name), overrides)


def abstract_inputs(config, *, batch: int = 1):
    float32 = jnp.dtype("float32")
    image, whole = (
        jax.ShapeDtypeStruct((batch, *size, 4), float32)
        for size in (config.data.patch, config.data.whole)
    )
    present = jax.ShapeDtypeStruct((batch, 4), float32)
    return image, present, whole, jax.ShapeDtypeStruct((batch, 2, 3), float32)


def parameter_counts(config) -> dict[str, int]:
    model = make_model(**config.model)
    abstract = jax.eval_shape(model.init, jax.random.key(0), *abstract_inputs(config))
    return {
        part: sum(leaf.size for leaf in jax.tree.leaves(params))
        for part, params in abstract["params"].items()
    }


def test_paper_has_the_published_number_of_parameters_in_every_part():
    """The published table; all of it includes biases, batch norm's affine and fusion scalars.

    The published encoder (stem, four averaged convolutions per down-sampling, blocks, tokens,
    4096 x 512 positions, transformer, channel attention of 1024) counts 33,288,804, of which
    512 x 512 + 512 belong to a linear layer that is never called.
    """
    unused = 512 * 512 + 512
    assert parameter_counts(load("gmmas_paper.py", "model.tasks.grade=2")) == {
        "encoder": 33_288_804 - unused,
        "decoder": 3_691_316,
        "global_unet": 13_153_432,
        "classifier": 18_060_168,
    }


def test_paper_with_three_grades_has_one_output_more():
    published = parameter_counts(load("gmmas_paper.py", "model.tasks.grade=2"))
    trained = parameter_counts(load("gmmas_paper.py"))
    assert trained["classifier"] - published.pop("classifier") == 32 + 1
    assert {part: trained[part] for part in published} == published


def test_ours_differs_from_the_paper_by_what_its_fields_say():
    paper, ours = parameter_counts(load("gmmas_paper.py")), parameter_counts(load("gmmas.py"))
    spared_branches = 3 * (13_856 + 55_360 + 221_312)  # of each down-sampling, one of four
    positions = 4096 * 512
    assert paper["encoder"] - ours["encoder"] == spared_branches + positions
    transposed = sum(8 * width**2 + width for width in (64, 32, 16))
    assert paper["global_unet"] - ours["global_unet"] == spared_branches + transposed
    deep_heads = 4 * (32 + 1) + 4 * (64 + 1)
    assert paper["decoder"] - ours["decoder"] == transposed - deep_heads


@pytest.mark.parametrize(
    "name", ["gmmas_paper.py", "gmmas.py", "weights_mini.py", "weights_base.py"]
)
@pytest.mark.parametrize("arg", ["", ":debug"])
def test_outputs_of_every_config(name, arg):
    config = load(name + arg)
    model = make_model(**config.model)
    inputs = abstract_inputs(config, batch=2)

    def forward(key, *arrays):
        first, second = jax.random.split(key)
        variables = model.init(first, *arrays)
        outputs, _ = model.apply(
            variables, *arrays, train=True, rngs={"dropout": second}, mutable=["batch_stats"]
        )
        return variables, outputs

    variables, outputs = jax.eval_shape(forward, jax.random.key(0), *inputs)
    assert ("batch_stats" in variables) == (name == "gmmas_paper.py")
    assert {leaf.dtype.name for leaf in jax.tree.leaves((variables, outputs))} == {"float32"}
    assert outputs["segmentation"].shape == (2, *config.data.patch, 4)
    assert outputs["segmentation_whole"].shape == (2, *config.data.whole, 4)
    finest = config.model.encoder.stem_stride
    assert [deep.shape[1:4] for deep in outputs["segmentation_deep"]] == [
        tuple(size // (finest * 2**level) for size in config.data.patch)
        for level in range(1, len(config.objective.deep_weights) + 1)
    ]
    assert set(outputs["tasks"]) == set(config.objective.tasks)
    for task, logits in outputs["tasks"].items():
        assert logits.shape == (2, len(TASKS[task]))


@pytest.mark.parametrize("name", ["gmmas_paper.py", "gmmas.py"])
def test_a_network_is_rebuilt_from_json(name):
    config = load(name)
    stored = json.loads(json.dumps(to_dict(config)["model"]))
    assert make_model(**stored) == make_model(**config.model)


@pytest.mark.parametrize("name", ["unet2d.py", "munet.py"])
@pytest.mark.parametrize("arg", ["", ":debug"])
def test_networks_of_slices(name, arg):
    config = load(name + arg)
    model = make_model(**config.model)
    inputs = abstract_inputs(config, batch=2)
    variables = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    outputs = jax.eval_shape(model.apply, variables, *inputs)
    assert outputs["segmentation"].shape == (2, *config.data.patch, 2)


def test_munet_is_unet_but_for_its_fusion():
    unet, munet = (to_dict(load(name)) for name in ("unet2d.py", "munet.py"))
    assert unet["model"].pop("fusion") == "concat"
    assert munet["model"].pop("fusion") == "msf"
    assert (unet.pop("name"), munet.pop("name")) == ("unet2d", "munet")
    assert unet == munet


def test_an_unknown_network_is_named():
    with pytest.raises(UserError, match=r"model.network is 'vnet'; expected one of gmmas, unet"):
        make_model(network="vnet")
