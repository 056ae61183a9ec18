"""`gmmas train` from a manifest to weights, and on from where it stopped."""

import json

import jax
import numpy as np
import pytest

from gmmas_jax.cases.manifest import Row
from gmmas_jax.cli import main
from gmmas_jax.cli.training_store import training_cases
from gmmas_jax.errors import UserError
from gmmas_jax.export.weights import load_weights
from gmmas_jax.train.logging import read_log
from tests.cli.cohorts import write_cohort, write_config

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True, scope="module")
def _compile_quickly(tmp_path_factory):
    """All runs here compile the same two programs; the cache keeps them."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("cache")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    yield
    jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture(name="train", scope="module")
def _train(tmp_path_factory):
    """Returns the function that trains on one cohort, in a folder, with options."""
    folder = tmp_path_factory.mktemp("cohort")
    cohort, config = write_cohort(folder, site="here"), write_config(folder)

    def train(workdir, *options):
        words = ("train", "--config", str(config), "--cohort", str(cohort), "--processes", "none")
        return main([*words, "--workdir", str(workdir), *options])

    train.config = config
    return train


@pytest.fixture(name="finished", scope="module")
def _finished(train, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    assert train(workdir) == 0
    return workdir


def test_run_ends_with_weights_and_a_card(finished):
    weights = load_weights(finished / "weights")
    assert weights.config["name"] == "tiny"
    assert weights.config["train"]["steps"] == 3
    made = weights.config["provenance"]
    assert weights.trained_on == made["trained_on"] == "patients"
    assert (made["steps"], made["averaged"], made["stored_as"]) == (3, True, "float32")
    card = (finished / "weights" / "model_card.md").read_text()
    assert "# tiny" in card
    assert "2 cases of 2 patients; site: here" in card
    assert "| idh | wildtype: 1, mutant: 1 | 0 |" in card
    assert "| histology | glioblastoma: 0, astrocytoma: 0, oligodendroglioma: 0 | 2 |" in card
    assert "moving average" in card
    assert "For research only" in card
    # The moving average, not the last step's parameters.
    from gmmas_jax.train.checkpoint import load_for_inference

    variables, _ = load_for_inference(finished / "checkpoints")
    for ours, kept in zip(
        jax.tree.leaves(weights.params), jax.tree.leaves(variables["params"]), strict=True
    ):
        np.testing.assert_array_equal(ours, kept)


def test_a_store_trains_as_the_cohort_does(finished, train, tmp_path):
    folder = finished / "store"
    words = ("--workdir", str(tmp_path), "--processes", "none", "--store", str(folder))
    assert main(["train", "--config", str(train.config), *words]) == 0
    parts, whole = (load_weights(run / "weights") for run in (tmp_path, finished))
    assert parts.sha256 == whole.sha256
    assert "2 cases of 2 patients; site: here" in (tmp_path / "weights/model_card.md").read_text()


def test_augmentation_reaches_the_step(finished, train, tmp_path):
    off = ("flip=0,0,0", "intensity_scale=0", "intensity_shift=0")
    assert train(tmp_path, *(f"--config.augment.{option}" for option in off)) == 0
    with_augmentation, without = (
        [record["loss"] for record in read_log(folder / "metrics.jsonl")]
        for folder in (finished, tmp_path)
    )
    assert with_augmentation[0] != without[0]


def test_longer_run_goes_on_from_the_checkpoint(finished, train, tmp_path, capsys):
    assert train(tmp_path, "--config.train.steps=2") == 0
    assert train(tmp_path) == 0
    assert "continuing from the checkpoint of step 2" in capsys.readouterr().err
    # As one run of three steps: the learning rate is constant, so the first two are the same.
    parts, whole = (load_weights(folder / "weights") for folder in (tmp_path, finished))
    assert parts.sha256 == whole.sha256


def test_run_with_composites_and_balance_goes_on_as_if_it_had_not_stopped(
    finished, train, tmp_path
):
    mixed = ("cutmix=1", "cutmix_task=idh", "cutmix_feather=1", "balance=idh")
    words = [f"--config.data.{option}" for option in mixed]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(whole, *words) == 0
    assert train(parts, *words, "--config.train.steps=2") == 0
    assert train(parts, *words) == 0
    losses = [
        [row["loss"] for row in read_log(folder / "metrics.jsonl")]
        for folder in (whole, parts, finished)
    ]
    assert losses[0] == losses[1]
    assert losses[0][2] != losses[2][2]  # The options reached the stream.
    ours, theirs = (load_weights(folder / "weights") for folder in (parts, whole))
    assert ours.sha256 == theirs.sha256


def test_finished_run_writes_the_same_weights_again(finished, train):
    before = (finished / "weights" / "weights.safetensors").read_bytes()
    assert train(finished) == 0
    assert (finished / "weights" / "weights.safetensors").read_bytes() == before


def test_folder_of_another_network_is_refused(finished, train, capsys):
    assert train(finished, "--config.model.encoder.widths=8,8") == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("gmmas train: error: ")
    assert "checkpoint of another network: model.encoder.widths was [4, 8]" in lines[-1]
    assert json.loads((finished / "config.json").read_text())["model"]["encoder"]["widths"] == [
        *(4, 8)
    ]


def test_rows_of_the_training_split(tmp_path):
    def row(name, split):
        return Row(case_id=name, patient_id=name, split=split)

    mixed = [row("a", "train"), row("b", "test"), row("c", None)]
    assert [r.case_id for r in training_cases(mixed, tmp_path)] == ["a"]
    unsplit = [row("a", None), row("b", None)]
    assert [r.case_id for r in training_cases(unsplit, tmp_path)] == ["a", "b"]
    with pytest.raises(UserError, match="no row has split train"):
        training_cases([row("a", "test"), row("b", None)], tmp_path)
