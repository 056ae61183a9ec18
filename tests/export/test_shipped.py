"""Weights that come with the program: found, chosen, verified, and in the wheel."""

import json
import shutil
from pathlib import Path

import pytest

from gmmas_jax.errors import UserError
from gmmas_jax.export import shipped as module
from gmmas_jax.export.shipped import (
    MAX_BYTES,
    best,
    shipped,
    shipped_folder,
    write_checksums,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(name="root")
def _root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Stands in for the folder of shipped weights; empty."""
    monkeypatch.setattr(module, "_root", lambda: tmp_path)
    return tmp_path


def ship(root: Path, name: str) -> Path:
    folder = root / name
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(name.encode())
    (folder / "config.json").write_text("{}")
    write_checksums(folder)
    return folder


def test_without_weights_the_message_says_what_to_do(root: Path):
    assert shipped() == ()
    with pytest.raises(UserError, match=r"comes with none\. Give a folder of weights"):
        best()
    with pytest.raises(UserError, match=r"--weights mini: these weights do not come .* has none"):
        shipped_folder("mini")


@pytest.mark.parametrize(
    ("there", "expected"),
    [(("mini", "base"), "mini"), (("mini",), "mini"), (("base",), "base")],
)
def test_the_best_of_those_that_are_there(root: Path, there, expected):
    for name in there:
        ship(root, name)
    (root / "other").mkdir()
    assert shipped() == there
    assert best() == expected
    assert shipped_folder(expected) == root / expected


@pytest.mark.parametrize("name", ["weights.safetensors", "config.json"])
def test_a_changed_file_is_named(root: Path, name: str):
    folder = ship(root, "mini")
    (folder / name).write_text("changed")
    with pytest.raises(UserError, match=rf"mini: {name}: not what came with gmmas"):
        shipped_folder("mini")


@pytest.mark.parametrize("name", ["config.json", "sha256"])
def test_a_missing_file_is_named(root: Path, name: str):
    (ship(root, "mini") / name).unlink()
    with pytest.raises(UserError, match=rf"{name}: cannot be read"):
        shipped_folder("mini")


def test_checksums_are_those_of_the_common_tool(root: Path):
    lines = (ship(root, "mini") / "sha256").read_text().splitlines()
    assert [line[64:] for line in lines] == ["  weights.safetensors", "  config.json"]


def test_the_wheel_holds_the_weights(tmp_path: Path):
    """The files that the build takes, of a copy of the project with weights in it."""
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed")
    for name in ("pyproject.toml", "README.md", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path / name)
    for package in ("gmmas_jax", "data_pipelines", "configs"):
        (tmp_path / package).mkdir()
    shutil.copy(ROOT / "gmmas_jax/__init__.py", tmp_path / "gmmas_jax")
    (tmp_path / "gmmas_jax/weights").mkdir()
    shutil.copy(ROOT / "gmmas_jax/weights/__init__.py", tmp_path / "gmmas_jax/weights")
    names = {file.name for file in ship(tmp_path / "gmmas_jax/weights", "mini").iterdir()}
    (tmp_path / "gmmas_jax/weights/mini/model_card.md").write_text("# Card")
    builder = wheel.WheelBuilder(str(tmp_path))
    taken = {file.distribution_path for file in builder.recurse_included_files()}
    expected = {f"gmmas_jax/weights/mini/{name}" for name in names | {"model_card.md"}}
    assert expected <= taken


@pytest.mark.parametrize("name", shipped() or ["none"])
def test_what_is_shipped_can_be_used(name: str):
    if name == "none":
        pytest.skip("this copy comes with no weights yet")
    from gmmas_jax.export.weights import load_weights

    folder = shipped_folder(name)
    assert (folder / "weights.safetensors").stat().st_size <= MAX_BYTES
    weights = load_weights(folder)
    assert weights.trained_on == "generated"
    card = (folder / "model_card.md").read_text()
    assert "Data: none but generated" in card
    assert "are no evidence" in card
    config = json.loads((folder / "config.json").read_text())
    assert config["provenance"]["stored_as"] == "bfloat16"
