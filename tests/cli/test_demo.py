"""The demo's stages: their commands, what is skipped the second time, and what a failure says.

The stages themselves are stand-ins here that write the files of the real ones.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gmmas_jax.cases.manifest import Row, write_manifest
from gmmas_jax.cli import demonstration, main
from gmmas_jax.cli.demonstration import Plan, demonstrate
from gmmas_jax.errors import UserError

STAGES = ("synth", "ingest", "check", "build", "train", "evaluate", "predict")
PLAN = Plan(config="some.py", patients=3, test=2, synth_options=("--spacing", "8"))
START = subprocess.Popen


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture(name="stages")
def _stages(monkeypatch, tmp_path):
    """Replaces the stages; returns the list of commands that were run, and their exit codes."""
    commands, codes = [], {}
    out = tmp_path / "demo"

    def stand_in(words):
        verb, *rest = words[3:]
        commands.append(words[3:])
        if verb == "synth":
            for case_id in ("S0", "S1"):
                _write(out / "patients" / case_id / "t1n.nii.gz", case_id)
            write_manifest(out / "patients" / "cohort.csv", [])
        elif verb == "ingest":
            rows = [
                Row(case_id=i, patient_id=i, t1n=f"patients/{i}/t1n.nii.gz", split="test")
                for i in ("S0", "S1")
            ]
            write_manifest(out / "cohort.csv", rows)
        elif verb == "check":
            _write(out / "check.json", "")
        elif verb == "build":
            _write(out / "store" / "build.json", "")
        elif verb == "train":
            _write(out / "training" / "weights" / "weights.safetensors", " ".join(words))
        elif verb == "evaluate":
            dice = {"mean": 0.9, "ci95": [0.8, 0.95], "n": 2}
            regions = {"WT": {"dice": dice, "hd95": dice, "nsd": dice}}
            metrics = {"n": 2, "protocol": "p", "regions": regions, "tasks": {}}
            _write(out / "evaluation" / "metrics.json", json.dumps(metrics))
            _write(out / "evaluation" / "report.html", "")
        else:
            _write(Path(rest[rest.index("--out") + 1]) / "report.html", "")
        return START([sys.executable, "-c", f"raise SystemExit({codes.get(verb, 0)})"])

    monkeypatch.setattr(demonstration.subprocess, "Popen", stand_in)
    monkeypatch.setattr(demonstration, "shipped", lambda: ())
    return commands, codes, out


def test_stages_run_in_order_and_tell_where_the_reports_are(stages, capsys):
    commands, _, out = stages
    demonstrate(out, seed=4, plan=PLAN)
    assert tuple(words[0] for words in commands) == STAGES
    synth, ingest, check, build, train, evaluate, predict = (" ".join(words) for words in commands)
    assert synth == f"synth --out {out}/patients --patients 5 --test 2 --seed 4 --spacing 8"
    assert ingest == (
        f"ingest {out}/patients --layout folders --label-convention brats2023 "
        f"--clinical {out}/patients/cohort.csv --out {out}/cohort.csv"
    )
    assert check == f"check {out}/cohort.csv --out {out}/check.json"
    assert build == f"build {out}/cohort.csv --out {out}/store --config some.py"
    assert train == (
        f"train --config some.py --store {out}/store --workdir {out}/training --config.seed=4"
    )
    assert f"--weights {out}/training/weights --cohort {out}/cohort.csv" in evaluate
    assert f"predict {out}/patients/S0 --weights {out}/training/weights" in predict
    # About a generated patient the experiment may be shown, marked as one.
    assert predict.endswith(" --experimental")
    shown = capsys.readouterr().out
    assert "WT" in shown
    assert "0.90" in shown
    assert "peak memory" in shown
    assert f"Open: {out}/evaluation/report.html" in shown
    assert f"Open: {out}/predictions/S0/report.html" in shown
    assert "first act: left out, this copy of gmmas comes with no trained weights yet" in shown


def test_commands_of_the_stages_are_ones_that_the_program_knows(stages):
    from gmmas_jax.cli import _parse

    commands, _, out = stages
    demonstrate(out, plan=PLAN)
    for words in commands:
        _parse(words)


def test_what_is_done_is_not_done_again(stages):
    commands, _, out = stages
    demonstrate(out, plan=PLAN)
    commands.clear()
    demonstrate(out, plan=PLAN)
    assert commands == []
    # A lost result is made again; other weights make all that follows again.
    (out / "evaluation" / "report.html").unlink()
    demonstrate(out, plan=PLAN)
    assert [words[0] for words in commands] == ["evaluate"]
    commands.clear()
    (out / "training" / "weights" / "weights.safetensors").write_text("other")
    demonstrate(out, plan=PLAN)
    assert [words[0] for words in commands] == ["evaluate", "predict"]


def test_real_case_is_predicted_too(stages, tmp_path, capsys):
    commands, _, out = stages
    case = tmp_path / "patient"
    _write(case / "t1c.nii.gz", "scan")
    demonstrate(out, plan=PLAN, case=case)
    predicted = [words[1] for words in commands[STAGES.index("predict") :]]
    assert predicted == [f"{out}/patients/S0", str(case)]
    assert "--experimental" not in commands[-1]
    assert f"Open: {out}/predictions/patient/report.html" in capsys.readouterr().out
    with pytest.raises(UserError, match="nowhere: no such folder"):
        demonstrate(out, plan=PLAN, case=tmp_path / "nowhere")


def test_failure_ends_the_demo_and_the_next_call_goes_on(stages, capsys):
    commands, codes, out = stages
    codes["evaluate"] = 2
    assert main(["demo", "--out", str(out)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("gmmas demo: error: the stage 'evaluate' ended with exit code 2")
    commands.clear()
    codes["evaluate"] = 130
    assert main(["demo", "--out", str(out)]) == 130
    codes.clear()
    assert main(["demo", "--out", str(out)]) == 0
    assert [words[0] for words in commands] == ["evaluate", "evaluate", "predict"]


@pytest.fixture(name="weights")
def _weights(monkeypatch, tmp_path, stages):
    """Stands in for weights that come with the program; returns their list of checksums."""
    path = tmp_path / "shipped" / "mini" / "sha256"
    _write(path, "one")
    monkeypatch.setattr(demonstration, "shipped", lambda: ("mini",))
    monkeypatch.setattr(demonstration, "shipped_folder", lambda name: path.parent)
    return path


def test_first_act_predicts_with_the_shipped_weights_before_training(stages, weights, capsys):
    commands, _, out = stages
    demonstrate(out, plan=PLAN)
    verbs = [words[0] for words in commands]
    assert verbs == ["synth", "ingest", "predict", *STAGES[2:]]
    # Without --weights, for the best of the machine; and nothing that is no evidence.
    first = f"predict {out}/patients/S0 --out {out}/first-act/S0"
    assert " ".join(commands[verbs.index("predict")]) == first
    shown = capsys.readouterr().out
    assert "left out" not in shown
    assert f"Open: {out}/first-act/S0/report.html" in shown
    commands.clear()
    demonstrate(out, plan=PLAN)
    assert commands == []
    weights.write_text("other weights")
    demonstrate(out, plan=PLAN)
    assert [" ".join(words) for words in commands] == [first]


def test_first_act_takes_the_real_case_if_there_is_one(stages, weights, tmp_path):
    commands, _, out = stages
    case = tmp_path / "patient"
    _write(case / "t1c.nii.gz", "scan")
    demonstrate(out, plan=PLAN, case=case)
    assert [words[1] for words in commands if words[0] == "predict"] == [
        *(str(case), f"{out}/patients/S0", str(case))
    ]
