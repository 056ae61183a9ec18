"""One example at a time: keys, probabilities, devices, dtypes."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmmas_jax.augment.examples import Numbers, each_example, when
from gmmas_jax.augment.patch import drop_sequences, make_augmentation

SOME = {
    "flip": (0.5, 0.5, 0.5),
    "sequence_dropout": 0.2,
    "rotation": {"probability": 0.7},
    "gaussian_noise": {"probability": 0.5},
}


def test_numbers_are_handed_out_once():
    numbers = Numbers(jnp.arange(8.0) / 8)
    np.testing.assert_allclose(numbers.uniform(2, 2, low=1, high=2).ravel(), 1 + np.arange(4) / 8)
    assert float(numbers.uniform()) == 0.5
    assert not numbers.happens(0.625)
    with pytest.raises(ValueError, match="9 numbers asked for, 8 drawn"):
        numbers.uniform(3)


def test_what_is_not_wanted_is_left_alone():
    function = jax.jit(lambda chosen, x: when(chosen, lambda v: v / 0, x))
    np.testing.assert_array_equal(function(False, jnp.ones(3)), np.ones(3))
    assert np.isinf(function(True, jnp.ones(3))).all()


def test_examples_have_keys_of_their_own():
    batch = {"x": jnp.zeros((4, 3))}
    drawn = each_example(
        lambda key, example: {"x": example["x"] + jax.random.normal(key, (3,))},
        jax.random.key(0),
        batch,
    )
    assert len(np.unique(drawn["x"])) == 12


def test_same_key_same_result_and_examples_differ(batch, augmented, everything):
    twins = {
        name: jax.tree.map(lambda a: np.stack([a[0]] * 2), value) for name, value in batch.items()
    }
    one, same, other = (augmented(twins, seed, **everything) for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert (one["image"] != other["image"]).any()
    assert (one["image"][0] != one["image"][1]).any()
    np.testing.assert_array_equal(one["targets"]["idh"], batch["targets"]["idh"][[0, 0]])


def test_all_stages_together_keep_what_must_be_kept(batch, augmented, everything):
    for seed in range(6):
        result = augmented(batch, seed, **everything)
        for volume, label in (("image", "label"), ("whole", "whole_label")):
            absent = result["present"][:, None, None, None] == 0
            assert (result[volume][np.broadcast_to(absent, result[volume].shape)] == 0).all()
            assert np.isfinite(result[volume]).all()
            assert (result[label][(result[volume] == 0).all(-1)] == 0).all()
            assert set(np.unique(result[label])) <= {0, 1, 2, 3}
        assert (result["present"].sum(1) >= 1).all()
        assert (result["box"][:, 0] < result["box"][:, 1]).all()


@pytest.mark.parametrize("on", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_batches_leave_wide(batch, section, everything, dtype, on):
    images = {name: jnp.asarray(batch[name], dtype) for name in ("image", "whole")}
    labels = {name: jnp.asarray(batch[name], "uint8") for name in ("label", "whole_label")}
    changes = everything if on else {"flip": (0.5, 0.0, 0.0)}
    function = make_augmentation(**section(**changes))
    result = jax.eval_shape(function, jax.random.key(0), batch | images | labels)
    for name, array in batch.items():
        if name != "targets":
            assert result[name].dtype == array.dtype
            assert result[name].shape == array.shape


def test_narrow_batches_give_what_wide_ones_give(batch, augmented, everything):
    narrow = {name: jnp.asarray(batch[name], "float16") for name in ("image", "whole")}
    narrow |= {name: jnp.asarray(batch[name], "uint8") for name in ("label", "whole_label")}
    wide = {name: np.asarray(array, batch[name].dtype) for name, array in narrow.items()}
    one, same = (augmented(batch | arrays, 1, **everything) for arrays in (narrow, wide))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, same)


def test_a_patch_without_the_whole_brain(batch, augmented, everything):
    """All that is drawn is drawn alike; where the whole tells nothing, the patch is the same."""
    alone = {name: value for name, value in batch.items() if "whole" not in name}
    result = augmented(alone, 3, **everything)
    assert set(result) == set(alone) | {"mirrored"}
    assert np.isfinite(result["image"]).all()
    assert (result["image"] != batch["image"]).any((1, 2, 3, 4)).all()
    some = {"flip": (0.5, 0.5, 0.5), "blur": {"probability": 1.0}, "brightness": everything["bias"]}
    one, other = (augmented(value, 3, **some) for value in (alone, batch))
    for name, array in one.items():
        if name != "targets":
            np.testing.assert_allclose(array, other[name], atol=1e-5)


def test_what_is_not_drawn_is_not_computed():
    """Large arrays that a stage computes from small ones must not leave its loop."""

    def fill(value, number):
        return value + number * jnp.arange(float(value.size))

    function = jax.jit(lambda chosen, x, n: when(chosen, fill, x, (n,)))
    arguments = False, jnp.ones(100_003), 2.0
    np.testing.assert_array_equal(function(*arguments), arguments[1])
    np.testing.assert_array_equal(function(True, *arguments[1:])[:2], [1, 3])
    text = function.lower(*arguments).compile().as_text()
    entry = text[text.index("\nENTRY") :]
    assert not [line for line in entry.splitlines() if "100003" in line and " fusion(" in line]


def test_sequences_are_dropped_but_for_one(batch, augmented):
    shown = []
    for seed in range(25):
        result = augmented(batch, seed, sequence_dropout=0.6)
        for name in ("image", "whole"):
            hidden = result["present"][:, None, None, None] == 0
            np.testing.assert_array_equal(result[name], np.where(hidden, 0, batch[name]))
        assert (result["present"] <= batch["present"]).all()
        assert result["present"].dtype == np.float32
        shown.append(result["present"])
    shown = np.concatenate(shown)
    assert shown.sum(1).min() == 1
    assert shown.sum(1).max() >= 3
    assert 0.35 < shown[:, [0, 2, 3]].mean() < 0.6


def test_the_only_sequence_is_never_dropped():
    example = {"present": jnp.array([0.0, 0.0, 1.0, 0.0])}
    example |= {
        name: jnp.ones((2, 2, 2, 4)).at[..., [0, 1, 3]].set(0) for name in ("image", "whole")
    }
    for low in (0.0, 0.5, 0.95):
        result = drop_sequences(Numbers(jnp.full(4, low)), example, 0.99)
        np.testing.assert_array_equal(result["present"], example["present"])


def test_what_is_off_is_not_traced(batch, section):
    def program(**changes):
        function = make_augmentation(**section(flip=(0.5, 0.0, 0.0), **changes))
        return str(jax.make_jaxpr(function)(jax.random.key(0), batch))

    alone = program()
    assert "while" not in alone
    assert "scan" not in alone
    for idle in (
        {"rotation": {"probability": 0.5, "degrees": 0.0}},
        {"elastic": {"probability": 0.5, "displacement": 0.0}},
        {"bias": {"probability": 0.5, "strength": 0.0}},
        {"gaussian_noise": {"probability": 0.5, "highest": 0.0}},
        {"blur": {"probability": 0.5, "sequence_probability": 0.0}},
    ):
        assert program(**idle) == alone
    assert "while" in program(contrast={"probability": 0.5})


def test_draws_of_flips_do_not_depend_on_other_stages(batch, augmented):
    few = augmented(batch, 5, flip=(0.5, 0.5, 0.5), intensity_shift=0.2)
    more = augmented(batch, 5, flip=(0.5, 0.5, 0.5), intensity_shift=0.2, sequence_dropout=1e-6)
    jax.tree.map(np.testing.assert_array_equal, few, more)


PROGRAM = """
import json, sys
import jax, numpy as np
from gmmas_jax.augment.patch import make_augmentation
from gmmas_jax.train.sharding import batch_sharding, make_mesh, replicated

path, section = sys.argv[1], json.loads(sys.argv[2])
batch = dict(np.load(path))
mesh = make_mesh(fsdp=2 if jax.device_count() > 1 else 1)
function = jax.jit(
    make_augmentation(**section),
    in_shardings=(replicated(mesh), batch_sharding(mesh)),
    out_shardings=batch_sharding(mesh),
)
with jax.set_mesh(mesh):
    compiled = function.lower(jax.random.key(3), batch).compile()
    result = compiled(jax.random.key(3), jax.device_put(batch, batch_sharding(mesh)))
# Every device works on its own examples: only the flips' small draws may be exchanged.
moved = [line for line in compiled.as_text().splitlines() if "all-gather(" in line]
np.savez(path + "." + str(jax.device_count()), **jax.device_get(result))
print(json.dumps([jax.device_count(), [m for m in moved if "[8,12" in m or "[8,8" in m]]))
"""


@pytest.mark.multiprocess
def test_one_and_eight_devices_agree(batch, section, tmp_path):
    batch.pop("targets")
    np.savez(tmp_path / "batch.npz", **{k: np.concatenate([v] * 4) for k, v in batch.items()})
    results = {}
    for devices in (1, 8):
        environment = os.environ | {
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"
        }
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "batch.npz")]
        done = subprocess.run(
            [*command, json.dumps(section(**SOME))],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        count, moved = json.loads(done.stdout.splitlines()[-1])
        assert (count, moved) == (devices, [])
        results[devices] = np.load(tmp_path / f"batch.npz.{devices}.npz")
    for name, one in results[1].items():
        np.testing.assert_allclose(results[8][name], one, atol=1e-5, err_msg=name)
    assert (results[1]["image"] != np.concatenate([batch["image"]] * 4)).any(
        (1, 2, 3, 4)
    ).sum() >= 6
