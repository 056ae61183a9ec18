"""Generated batches: those of a store in all but where they come from."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from gmmas_jax.cases.tasks import TASKS
from gmmas_jax.errors import UserError
from gmmas_jax.synthesis.effects import PLAIN
from gmmas_jax.synthesis.stream import _present, counters, make_generation
from gmmas_jax.train.step import _as_tree, widen

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "seed": 3,
    "patch": (8, 10, 8),
    "whole": (16, 20, 16),
    "spacing_mm": 8.0,
    "foreground": 1.0,
    "healthy": 0.25,
    "all_sequences": 0.5,
    "shown": (0.5, 0.5, 0.5, 0.5),
    "effects": PLAIN,
    "tasks": ("idh", "histology", "outcome"),
}
BATCH = 24


def _first(steps, **arguments):
    return [b["case_index"] for b in itertools.islice(counters(**arguments), steps)]


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_any_number_of_processes_gives_the_same_patients(processes):
    parts = [
        _first(3, batch_size=8, start_step=5, process_index=i, process_count=processes)
        for i in range(processes)
    ]
    joined = [np.concatenate(own) for own in zip(*parts, strict=True)]
    np.testing.assert_array_equal(np.concatenate(joined), np.arange(40, 64))
    assert joined[0].dtype == np.int32


def test_a_later_start_is_the_rest_of_the_same_stream():
    arguments = {"batch_size": 2, "process_index": 0, "process_count": 1}
    whole, rest = _first(6, start_step=0, **arguments), _first(2, start_step=4, **arguments)
    np.testing.assert_array_equal(whole[4:], rest)
    far = _first(1, start_step=2**31, **arguments)[0]
    assert (far >= 0).all()


def test_sequences_are_drawn_as_said():
    keys = jax.random.split(jax.random.key(0), 6000)
    present = np.asarray(jax.jit(jax.vmap(lambda key: _present(key, 0.4, (0.5,) * 4)))(keys))
    codes = (present @ [1, 2, 4, 8]).astype(int)
    shares = np.bincount(codes, minlength=16) / len(codes)
    assert shares[0] == 0
    np.testing.assert_allclose(shares[1:15], 0.6 / 15, atol=0.012)
    assert shares[15] == pytest.approx(0.4 + 0.6 / 15, abs=0.025)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ((0.4, 0.0, 0.8, 1.0), (0.4, 0.0, 0.8, 1.0)),
        # Nothing would be shown in 0.6 x 0.2 of the draws, which are repeated.
        ((0.4, 0.0, 0.8, 0.0), (0.4 / 0.88, 0.0, 0.8 / 0.88, 0.0)),
    ],
)
def test_each_sequence_has_a_probability_of_its_own(shown, expected):
    keys = jax.random.split(jax.random.key(1), 6000)
    present = jax.jit(jax.vmap(lambda key: _present(key, 0.0, shown)))(keys)
    np.testing.assert_allclose(np.mean(present, 0), expected, atol=0.025)


@pytest.mark.parametrize("shown", [(0.5, 0.5, 0.5), (0.5, 0.5, 0.5, 1.5), (0.0,) * 4])
def test_impossible_probabilities_are_refused_by_name(anatomy, shown):
    with pytest.raises(UserError, match=r"synthesis\.shown is .* t1n, t1c, t2w, t2f"):
        make_generation(anatomy, **SETTINGS | {"shown": shown})


def test_fields_and_shapes_are_those_of_a_store(anatomy):
    from data_pipelines.examples import example_kinds

    generation = make_generation(anatomy, **SETTINGS)
    numbers = {"case_index": jnp.zeros(2, jnp.int32)}
    made = jax.eval_shape(generation, jax.random.key(0), numbers)
    kinds = example_kinds(SETTINGS["patch"], SETTINGS["whole"], SETTINGS["tasks"], views=1)
    stored = jax.tree.map(
        lambda kind: jax.ShapeDtypeStruct((2, *kind.shape), kind.dtype.as_numpy_dtype), kinds
    )
    assert made == jax.eval_shape(widen, stored)


def test_the_anatomy_is_an_argument_of_the_program(anatomy):
    """It is a leaf of the transform, so that `jit` passes it."""
    generation = make_generation(anatomy, **SETTINGS)
    for transform in (generation, Partial(lambda inner, key, batch: inner(key, batch), generation)):
        assert any(leaf is anatomy.maps for leaf in jax.tree.leaves(_as_tree(transform)))
    assert jax.tree.leaves(_as_tree(lambda key, batch: batch)) == []


@pytest.fixture(name="batch", scope="module")
def _batch(anatomy):
    generation = make_generation(anatomy, **SETTINGS)
    numbers = {"case_index": jnp.arange(BATCH, dtype=jnp.int32)}
    function = jax.jit(lambda generation, key, batch: generation(key, batch))
    return jax.device_get(function(generation, jax.random.key(0), numbers))


@pytest.mark.slow
def test_images_are_z_scores_of_what_is_shown(batch):
    for example in range(BATCH):
        for channel in range(4):
            whole, near = (batch[name][example, ..., channel] for name in ("whole", "image"))
            if batch["present"][example, channel]:
                inside = whole[whole != 0]
                assert inside.mean() == pytest.approx(0, abs=0.01)
                assert inside.std() == pytest.approx(1, abs=0.01)
                assert (near != 0).any()
            else:
                assert not whole.any()
                assert not near.any()
    assert {0.0, 1.0} == set(np.unique(batch["present"]))


@pytest.mark.slow
def test_patches_lie_on_tumour_and_the_healthy_have_none(batch):
    well = batch["target_valid"]["idh"] == 0
    assert 1 <= well.sum() <= BATCH // 2
    tumour = (batch["label"] > 0).any((1, 2, 3))
    np.testing.assert_array_equal(tumour, ~well)
    np.testing.assert_array_equal((batch["whole_label"] > 0).any((1, 2, 3)), ~well)
    assert (batch["label_valid"] == 1).all()
    # As near to the patch's middle as the brain's box allows: most often in its inner half.
    middle = (batch["label"][:, 2:-2, 2:-2, 2:-2] > 0).any((1, 2, 3))
    assert middle[~well].mean() > 0.8


@pytest.mark.slow
def test_targets_are_one_hot_or_unknown(batch):
    well = batch["target_valid"]["idh"] == 0
    for task in ("idh", "histology"):
        target = batch["targets"][task]
        assert target.shape == (BATCH, len(TASKS[task]))
        np.testing.assert_array_equal(target.sum(1), np.where(well, 0, 1))
        np.testing.assert_array_equal(batch["target_valid"][task], np.where(well, 0, 1))
    mutant = batch["targets"]["idh"][:, 1]
    np.testing.assert_array_equal(mutant, batch["targets"]["histology"][:, 1:].sum(1))
    assert not batch["targets"]["outcome"].any()
    assert not batch["target_valid"]["outcome"].any()


@pytest.mark.slow
def test_the_box_says_where_the_patch_lies_in_the_whole(batch):
    """The whole volume, read where the box says, has its brain and tumour where the patch has."""
    patch, whole = np.array(SETTINGS["patch"]), np.array(SETTINGS["whole"])
    agree, tumour = [], []
    for example in range(BATCH):
        low, high = batch["box"][example]
        assert (high > low).all()
        steps = [low[a] + (np.arange(patch[a]) + 0.5) / patch[a] * (high[a] - low[a])
                 for a in range(3)]  # fmt: skip
        index = [np.floor(s * whole[a]).astype(int) for a, s in enumerate(steps)]
        inside = np.ix_(*[(i >= 0) & (i < whole[a]) for a, i in enumerate(index)])
        seen = np.ix_(*[i[(i >= 0) & (i < whole[a])] for a, i in enumerate(index)])
        channel = int(batch["present"][example].argmax())
        near = batch["image"][example, ..., channel][inside] != 0
        far = batch["whole"][example, ..., channel][seen] != 0
        agree.append((near == far).mean())
        one, other = (batch[n][example][p] > 0 for n, p in (("label", inside),
                                                              ("whole_label", seen)))  # fmt: skip
        if one.any():
            tumour.append(2 * (one & other).sum() / (one.sum() + other.sum()))
    assert np.mean(agree) > 0.9
    assert np.mean(tumour) > 0.7


PROGRAM = """
import sys, json
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_disable_most_optimizations", True)
from gmmas_jax.synthesis.anatomy import Anatomy, quantised
from gmmas_jax.synthesis.stream import make_generation
from gmmas_jax.train.sharding import AXES, batch_sharding, replicated, to_global
from jax.sharding import AxisType, Mesh
from tests.synthesis.coarse_head import SPACING, coarse_maps, coarse_priors
from tests.synthesis.test_stream import SETTINGS

anatomy = Anatomy(jnp.asarray(quantised(coarse_maps())), jnp.asarray(coarse_priors()), SPACING)
generation = make_generation(anatomy, **SETTINGS)
made = []
for count in (1, 8):
    devices = np.array(jax.devices()[:count]).reshape(count, 1)
    mesh = Mesh(devices, AXES, axis_types=(AxisType.Auto,) * 2)
    with jax.set_mesh(mesh):
        function = jax.jit(
            lambda generation, key, batch: generation(key, batch),
            in_shardings=(replicated(mesh), replicated(mesh), batch_sharding(mesh)),
            out_shardings=batch_sharding(mesh),
        )
        numbers = to_global({"case_index": np.arange(8, dtype=np.int32)}, mesh)
        placed = jax.device_put(generation, replicated(mesh))
        made.append(jax.device_get(function(placed, jax.random.key(0), numbers)))
one, eight = (jax.tree.leaves(batch) for batch in made)
apart = [np.abs(a.astype(float) - b.astype(float)) for a, b in zip(one, eight)]
values = max(d.max() for d, a in zip(apart, one) if a.dtype.kind == "f")
codes = max((d > 0).mean() for d, a in zip(apart, one) if a.dtype.kind != "f")
print(json.dumps({"devices": jax.device_count(), "values": values, "codes": codes}))
"""


@pytest.mark.slow
@pytest.mark.multiprocess
def test_eight_devices_make_what_one_makes():
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["devices"] == 8
    # Two programs, which add up in different orders; a voxel on a border may fall to either side.
    assert report["values"] < 1e-4
    assert report["codes"] < 1e-3
