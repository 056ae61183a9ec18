"""Weights on disk: the same bits back, and every way in which a folder can be wrong."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from gmmas_jax.errors import UserError
from gmmas_jax.export.weights import load_weights, save_weights
from tests.inference.tiny import tiny_weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights")
    save(path)
    return path


def save(path: Path, **changes: Any) -> str:
    weights = tiny_weights()
    values = {
        "params": weights.params,
        "batch_stats": weights.batch_stats,
        "config": weights.config,
        "card": "# Tiny\n",
    }
    return save_weights(path, **(values | changes))


def copied(folder: Path, target: Path) -> Path:
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def test_weights_come_back_bit_for_bit(folder: Path):
    weights, loaded = tiny_weights(), load_weights(folder)
    assert jax.tree.structure(weights.params) == jax.tree.structure(dict(loaded.params))
    assert all(
        a.dtype == b.dtype and a.tobytes() == b.tobytes()
        for a, b in zip(
            jax.tree.leaves(weights.params), jax.tree.leaves(loaded.params), strict=True
        )
    )
    assert loaded.batch_stats == {}
    assert loaded.config == json.loads(json.dumps(weights.config))
    assert (folder / "model_card.md").read_text() == "# Tiny\n"


def test_batch_statistics_are_kept_apart_from_parameters(tmp_path: Path):
    config = tiny_weights().config
    save(tmp_path, batch_stats={"encoder": {"mean": np.zeros(3, np.float32)}}, config=config)
    with pytest.raises(UserError, match=r"batch_stats/encoder/mean: 3 in .* absent by config"):
        load_weights(tmp_path)


def test_the_same_weights_give_the_same_file(folder: Path, tmp_path: Path):
    sha256 = save(tmp_path)
    assert (tmp_path / "weights.safetensors").read_bytes() == (
        folder / "weights.safetensors"
    ).read_bytes()
    assert sha256 == load_weights(folder).sha256


def test_weights_that_are_not_finite_are_not_written(tmp_path: Path):
    params = jax.tree.map(lambda leaf: leaf * np.float32(np.nan), tiny_weights().params)
    with pytest.raises(ValueError, match="not finite"):
        save(tmp_path, params=params)
    assert not (tmp_path / "weights.safetensors").exists()


@pytest.mark.parametrize("missing", ["weights.safetensors", "config.json"])
def test_a_missing_file_is_named(folder: Path, tmp_path: Path, missing: str):
    (copied(folder, tmp_path) / missing).unlink()
    with pytest.raises(UserError, match=f"{missing}: cannot be read"):
        load_weights(tmp_path)


@pytest.mark.parametrize("size", [0, 5, 100, 20_000])
def test_a_truncated_file_is_refused(folder: Path, tmp_path: Path, size: int):
    path = copied(folder, tmp_path) / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match="damaged or no safetensors file"):
        load_weights(tmp_path)


def test_a_flipped_bit_is_noticed(folder: Path, tmp_path: Path):
    path = copied(folder, tmp_path) / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged: the numbers"):
        load_weights(tmp_path)


def test_weights_of_another_config_are_refused_with_both_sides(folder: Path, tmp_path: Path):
    path = copied(folder, tmp_path) / "config.json"
    config = json.loads(path.read_text())
    config["model"]["tasks"] = {"idh": 2, "grade": 3}
    path.write_text(json.dumps(config))
    with pytest.raises(UserError) as caught:
        load_weights(tmp_path)
    message = str(caught.value)
    assert "classifier/heads_grade/hidden_0/bias: absent in weights.safetensors, 8 by" in message
    assert "Use the config.json that was written with the weights" in message
    unchecked = load_weights(tmp_path, check_network=False)
    assert unchecked.config["model"]["tasks"] == {"idh": 2, "grade": 3}


def test_a_config_that_describes_no_network_is_refused(folder: Path, tmp_path: Path):
    path = copied(folder, tmp_path) / "config.json"
    config = json.loads(path.read_text())
    for text, found in (
        ("{", "no valid JSON"),
        ("[1]", "no section model, data, inference"),
        (json.dumps(config | {"model": {"depth": 3}}), "describes no network of this version"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=found):
            load_weights(tmp_path)


def test_an_unwritable_folder_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        save(tmp_path / "file")


def test_bfloat16_halves_the_file_and_loads_as_float32(folder: Path, tmp_path: Path):
    sha256 = save(tmp_path, dtype="bfloat16")
    original, loaded = load_weights(folder), load_weights(tmp_path)
    assert loaded.sha256 == sha256
    for a, b in zip(
        jax.tree.leaves(original.params), jax.tree.leaves(loaded.params), strict=True
    ):  # fmt: skip
        assert a.dtype == b.dtype == np.float32
        if a.ndim < 2:
            np.testing.assert_array_equal(a, b)
        else:
            # Eight bits of mantissa.
            np.testing.assert_allclose(a, b, rtol=2**-8, atol=1e-30)
            assert not np.array_equal(a, b) or a.size < 10
    sizes = [(path / "weights.safetensors").stat().st_size for path in (tmp_path, folder)]
    assert sizes[0] < 0.7 * sizes[1]


def test_a_flipped_bit_is_noticed_in_bfloat16_too(tmp_path: Path):
    save(tmp_path, dtype="bfloat16")
    path = tmp_path / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged: the numbers"):
        load_weights(tmp_path)


def test_an_unknown_dtype_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="dtype is 'int4'; expected one of float32, bfloat16"):
        save(tmp_path, dtype="int4")
