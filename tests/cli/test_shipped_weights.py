"""`--weights` left out, a name, or a folder: what is taken, told and written."""

import json
import shutil
from pathlib import Path

import pytest

from gmmas_jax.cli import main
from gmmas_jax.cli.case_results import findings_table, predict_folder
from gmmas_jax.cli.network_options import load_predictor
from gmmas_jax.errors import UserError
from gmmas_jax.export import shipped as shipped_module
from gmmas_jax.export.weights import save_weights
from gmmas_jax.inference.predictor import Predictor
from tests.cli.test_predict import RAS, write_case
from tests.inference.tiny import tiny_predictor, tiny_weights


@pytest.fixture(name="shipped", scope="module")
def _shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny weights in the place of shipped ones, trained on generated patients by their config."""
    root = tmp_path_factory.mktemp("shipped")
    weights = tiny_weights()
    config = {**weights.config, "provenance": {"trained_on": "generated"}}
    for name in ("mini", "base"):
        save_weights(root / name, weights.params, {}, config | {"name": f"for_{name}"}, "# Card\n")
        shipped_module.write_checksums(root / name)
    return root


@pytest.fixture(autouse=True)
def _in_their_place(monkeypatch: pytest.MonkeyPatch, shipped: Path) -> None:
    monkeypatch.setattr(shipped_module, "_root", lambda: shipped)


@pytest.fixture(name="generated", scope="module")
def _generated() -> Predictor:
    """A predictor, quickly compiled, of weights that saw generated patients alone."""
    predictor = tiny_predictor()
    predictor.identity["trained_on"] = "generated"
    return predictor


@pytest.mark.parametrize(("weights", "expected"), [(None, "mini"), ("base", "base")])
def test_shipped_weights_are_taken_and_told(weights: str | None, expected: str, capsys):
    predictor = load_predictor(weights)
    assert predictor.identity["name"] == f"GMMAS {expected}"
    assert predictor.identity["config"] == f"for_{expected}"
    assert predictor.identity["trained_on"] == "generated"
    (line,) = capsys.readouterr().err.splitlines()
    sha256 = predictor.identity["weights_sha256"]
    assert line == (
        f"weights: {expected}, which come with gmmas (config for_{expected}, sha256 "
        f"{sha256[:12]}…, trained on generated patients alone)"
    )


@pytest.mark.parametrize(
    ("trained_on", "experimental", "estimated"),
    [("generated", False, False), ("generated", True, True), ("patients", False, True)],
)
def test_uncertainty_is_estimated_of_answers_that_are_shown(
    trained_on, experimental, estimated, tmp_path: Path
):
    weights = tiny_weights()
    config = {**weights.config, "name": "tiny", "provenance": {"trained_on": trained_on}}
    save_weights(tmp_path / "w", weights.params, {}, config, "# Card\n")
    predictor = load_predictor(str(tmp_path / "w"), experimental=experimental)
    assert (predictor.settings.samples > 0) == estimated


def test_a_folder_is_no_shipped_name(shipped: Path, tmp_path: Path, capsys):
    shutil.copytree(shipped / "mini", tmp_path / "mine")
    predictor = load_predictor(str(tmp_path / "mine"))
    assert predictor.identity["name"] == "GMMAS"
    assert capsys.readouterr().err.startswith(f"weights: {tmp_path}/mine (config for_mini, sha256")


@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_without_any_weights_the_user_is_told(verb, monkeypatch, tmp_path: Path, capsys):
    monkeypatch.setattr(shipped_module, "_root", lambda: tmp_path)
    what = [str(tmp_path)] if verb == "predict" else ["--cohort", str(tmp_path / "c.csv")]
    assert main([verb, *what, "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "comes with none. Give a folder of weights with --weights" in line
    assert not (tmp_path / "out").exists()


def test_damaged_shipped_weights_are_refused(shipped: Path, monkeypatch, tmp_path: Path):
    copied = tmp_path / "weights"
    shutil.copytree(shipped, copied)
    (copied / "mini" / "config.json").write_text("{}")
    monkeypatch.setattr(shipped_module, "_root", lambda: copied)
    with pytest.raises(UserError, match=r"config\.json: not what came with gmmas"):
        load_predictor("mini")


@pytest.mark.parametrize("experimental", [False, True])
def test_answers_that_are_no_evidence(generated: Predictor, tmp_path: Path, experimental: bool):
    source = write_case(tmp_path / "in", RAS)
    out = predict_folder(source, generated, tmp_path / "out", experimental=experimental)
    findings = json.loads((out / "findings.json").read_text())
    assert findings["model"]["trained_on"] == "generated"
    table = findings_table(out / "findings.json")
    names = list(generated.tasks)
    assert names
    if experimental:
        assert sorted(findings["tasks"]) == sorted(names)
        assert all(task["experimental"] for task in findings["tasks"].values())
        assert table.count("(experimental: no evidence)") == len(names)
    else:
        assert findings["tasks"] == {}
        assert findings["tasks_withheld"]["tasks"] == names
        assert "withheld (--experimental shows them): IDH mutation" in table
        assert "IDH-" not in (out / "report.html").read_text()
    assert table.startswith("  WT ")
