"""`gmmas export`: from a checkpoint to weights that can be shipped."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from gmmas_jax.cli import exporting, main
from gmmas_jax.config import base_config, to_dict
from gmmas_jax.export.shipped import verify
from gmmas_jax.export.weights import load_weights, save_weights
from tests.inference.tiny import tiny_weights

OFFSET = 3.0
STREAM = {"trained_on": "generated", "cases": 0, "patients": 0, "sites": ["synthetic"]}


def run_config(**changes: Any) -> dict[str, Any]:
    base, tiny = to_dict(base_config()), tiny_weights().config
    config = base | tiny | {"data": base["data"] | tiny["data"]}
    config["provenance"] = STREAM | {"class_counts": {}}
    config["train"] = config["train"] | {"ema_decay": 0.9}
    return {**config, **changes}


@pytest.fixture(name="run")
def _run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, Any], list]:
    """Stands in for a run's checkpoints; returns its folder, its config, and what was asked for."""
    config, asked = run_config(), []
    for step in (5, 40):
        (tmp_path / "run" / "checkpoints" / str(step)).mkdir(parents=True)

    def load(folder: Path, step: int | None) -> tuple[dict, dict]:
        asked.append((folder.name, step))
        return {"params": tiny_weights().params}, {"config": config}

    monkeypatch.setattr(exporting, "load_for_inference", load)
    return tmp_path / "run", config, asked


def test_weights_card_and_checksums_are_written(run, tmp_path: Path, capsys):
    folder, config, asked = run
    out = tmp_path / "mini"
    words = ["export", str(folder), "--dtype", "bfloat16", "--out", str(out)]
    changes = ("--config.inference.min_island_ml=0.3", "--config.inference.fill_core=true")
    assert main([*words, *changes]) == 0
    assert asked == [("checkpoints", None)]
    weights = load_weights(out)
    verify(out)
    assert weights.trained_on == "generated"
    made = weights.config["provenance"]
    assert (made["steps"], made["averaged"], made["stored_as"]) == (40, True, "bfloat16")
    # What was asked for, and the defaults of what an older run did not know.
    inference = weights.config["inference"]
    assert (inference["min_island_ml"], inference["fill_core"]) == (0.3, True)
    assert inference["min_core_island_ml"] == 0.0
    assert inference["window"] == config["inference"]["window"]
    assert "Data: none but generated" in (out / "model_card.md").read_text()
    for a, b in zip(
        jax.tree.leaves(weights.params), jax.tree.leaves(tiny_weights().params), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=2**-8, atol=1e-30)
    shown = capsys.readouterr().out
    assert "of step 40, moving average" in shown
    assert weights.sha256 in shown


@pytest.mark.parametrize("where", ["checkpoints", "checkpoints/5"])
def test_folders_that_can_be_named(run, tmp_path: Path, where: str):
    folder, _, asked = run
    assert main(["export", str(folder / where), "--out", str(tmp_path / "out")]) == 0
    step = 5 if where.endswith("5") else None
    assert asked == [("checkpoints", step)]
    made = json.loads((tmp_path / "out/config.json").read_text())["provenance"]
    assert made["steps"] == (5 if step else 40)


def test_a_run_that_does_not_say_what_it_saw(run, tmp_path: Path, capsys):
    folder, config, _ = run
    del config["provenance"]
    words = ["export", str(folder), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "does not say what it was trained on" in capsys.readouterr().err
    assert main([*words, "--trained-on", "patients"]) == 0
    assert load_weights(tmp_path / "out").trained_on == "patients"
    assert main([*words, "--trained-on", "generated"]) == 0
    assert load_weights(tmp_path / "out").trained_on == "generated"


def test_a_record_cannot_be_overruled(run, tmp_path: Path, capsys):
    words = ["export", str(run[0]), "--out", str(tmp_path / "out"), "--trained-on", "patients"]
    assert main(words) == 2
    assert "was trained on generated patients by its own record" in capsys.readouterr().err


def test_what_training_used_cannot_be_changed(run, tmp_path: Path, capsys):
    words = ["export", str(run[0]), "--out", str(tmp_path / "out"), "--config.train.steps=7"]
    assert main(words) == 2
    assert "expected a field of inference" in capsys.readouterr().err
    words[-1] = "--config.inference.overlapp=0.5"
    assert main(words) == 2
    assert "Did you mean inference.overlap?" in capsys.readouterr().err


def _begun(config: dict[str, Any], folder: Path, **changes: Any) -> None:
    """Writes weights, all larger by `OFFSET`, and records that training began with them."""
    start = jax.tree.map(lambda value: value + OFFSET, dict(tiny_weights().params))
    sha256 = save_weights(folder, start, {}, tiny_weights().config, "card")
    config["train"]["weights"] = str(folder)
    began = {"sha256": sha256, "trained_on": "generated", "steps": 7} | changes
    config["provenance"] = config["provenance"] | {"begun_from": began}


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_a_mean_with_the_weights_that_training_began_with(run, tmp_path: Path, share: float):
    folder, config, _ = run
    _begun(config, tmp_path / "start")
    out = tmp_path / "out"
    assert main(["export", str(folder), "--out", str(out), "--start-share", str(share)]) == 0
    weights = load_weights(out)
    verify(out)
    assert weights.config["provenance"]["start_share"] == share
    assert f"at a share of {share:g}" in (out / "model_card.md").read_text()
    for a, b in zip(
        jax.tree.leaves(weights.params), jax.tree.leaves(tiny_weights().params), strict=True
    ):
        np.testing.assert_allclose(a, b + share * OFFSET, rtol=1e-6, atol=1e-6)


def test_a_mean_needs_the_weights_that_training_began_with(run, tmp_path: Path, capsys):
    folder, config, _ = run
    words = ["export", str(folder), "--out", str(tmp_path / "out"), "--start-share"]
    for share in ("1", "-0.5"):
        assert main([*words, share]) == 2
        assert "expected a number from 0 to below 1" in capsys.readouterr().err
    assert main([*words, "0.5"]) == 2
    assert "began with random weights" in capsys.readouterr().err
    _begun(config, tmp_path / "start", sha256="0" * 64)
    assert main([*words, "0.5"]) == 2
    assert "began with weights of sha256 000000000000" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "start")
    assert main([*words, "0.5"]) == 2
    assert "expected a folder of weights" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_mean_has_no_running_statistics(run, tmp_path: Path, monkeypatch, capsys):
    folder, config, _ = run
    _begun(config, tmp_path / "start")
    variables = {"params": tiny_weights().params, "batch_stats": {"norm": np.ones(3)}}
    monkeypatch.setattr(exporting, "load_for_inference", lambda *_: (variables, {"config": config}))
    words = ["export", str(folder), "--out", str(tmp_path / "out"), "--start-share", "0.5"]
    assert main(words) == 2
    assert "has batch norm" in capsys.readouterr().err


def test_no_checkpoint_is_told(tmp_path: Path, capsys):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 2
    assert "holds no checkpoint" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "run")
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()
