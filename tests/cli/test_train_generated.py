"""`gmmas train --generated`: the shipped weights' experiment, small, in a coarse head."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from gmmas_jax.cli import main, training
from gmmas_jax.export.weights import load_weights
from gmmas_jax.synthesis.anatomy import FORMAT, quantised
from gmmas_jax.train.logging import read_log
from tests.synthesis.coarse_head import SPACING, coarse_maps, coarse_priors

pytestmark = pytest.mark.slow


def _write_anatomy(folder):
    arrays = {"maps": quantised(coarse_maps()), "priors": quantised(coarse_priors())}
    np.savez(folder / "anatomy-8mm.npz", format=FORMAT, spacing_mm=SPACING, **arrays)


@pytest.fixture(name="train", scope="module")
def _train(tmp_path_factory):
    """Returns the function that trains in a folder, with options."""
    changes = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("cache")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_disable_most_optimizations": True,
    }
    before = {name: jax.config.values[name] for name in changes}
    for name, value in changes.items():
        jax.config.update(name, value)

    def train(workdir, *options):
        _write_anatomy(workdir)
        words = ("train", "--config", "configs/weights_mini.py:debug", "--generated")
        words += ("--workdir", str(workdir), "--processes", "none")
        words += ("--config.optimizer.schedule=constant", *options)
        with pytest.MonkeyPatch.context() as patch, jax.numpy_rank_promotion("allow"):
            patch.setattr(training, "ANATOMY_MM", SPACING)
            return main(list(words))

    yield train
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(name="whole", scope="module")
def _whole(train, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    assert train(workdir) == 0
    return workdir


def test_it_ends_with_weights(whole):
    weights = load_weights(whole / "weights")
    assert weights.config["name"] == "weights_mini"
    log = read_log(whole / "metrics.jsonl")
    assert [record["step"] for record in log] == [1, 2, 3, 4]
    assert all(np.isfinite(record["loss"]) for record in log)


def test_no_scan_can_reach_it(whole, tmp_path):
    """A process that trains on generated patients never loads what could read a scan."""
    del whole  # Its programs lie in the cache: they take minutes to compile.
    code = """
import sys
import jax
from gmmas_jax.cli import main, training
jax.config.update("jax_numpy_rank_promotion", "allow")
training.ANATOMY_MM = 8.0
words = "train --config configs/weights_mini.py:debug --generated --processes none --workdir"
options = ("--config.optimizer.schedule=constant", "--config.train.steps=2")
assert main([*words.split(), sys.argv[1], *options]) == 0
readers = ("nibabel", "SimpleITK", "pydicom", "tensorflow", "data_pipelines")
loaded = [name for name in sys.modules if name.split(".")[0] in readers]
assert not loaded, loaded
"""
    _write_anatomy(tmp_path)
    quickly = os.environ | {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_COMPILATION_CACHE_DIR": jax.config.values["jax_compilation_cache_dir"],
    }
    words = [sys.executable, "-c", code, str(tmp_path)]
    subprocess.run(words, check=True, timeout=900, env=quickly)
    assert load_weights(tmp_path / "weights").trained_on == "generated"


def test_cavities_need_a_fifth_class(train, tmp_path, capsys):
    assert train(tmp_path, "--config.synthesis.effects.resection.probability=0.5") == 2
    assert "Set model.num_classes=5" in capsys.readouterr().err


def test_a_run_that_was_stopped_ends_with_the_same_weights(whole, train, tmp_path, capsys):
    assert train(tmp_path, "--config.train.steps=2") == 0
    assert train(tmp_path) == 0
    assert "continuing from the checkpoint of step 2" in capsys.readouterr().err
    parts, uninterrupted = (load_weights(folder / "weights") for folder in (tmp_path, whole))
    for one, other in zip(
        jax.tree.leaves(parts.params), jax.tree.leaves(uninterrupted.params), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_training_begins_with_weights_and_says_so(whole, train, tmp_path):
    begun = f"--config.train.weights={whole / 'weights'}"
    one_step = ("--config.train.steps=1", "--config.optimizer.warmup_steps=0")
    tiny = "--config.optimizer.learning_rate=1e-6"
    assert train(tmp_path, *one_step, tiny, begun) == 0
    before, after = (load_weights(folder / "weights") for folder in (whole, tmp_path))
    began = after.config["provenance"]["begun_from"]
    assert began == {"sha256": before.sha256, "trained_on": "generated", "steps": 4}
    # A step moves no parameter by more than its rate, or so.
    for one, other in zip(
        jax.tree.leaves(after.params), jax.tree.leaves(before.params), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-5)
