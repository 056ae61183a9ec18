"""The stages of `gmmas demo`, each the command that a user would type, in a process of its own.

A process gives its memory back when it ends, and what it took can be told for each stage. A stage
that ended well is not run again as long as its command and its inputs are the same.
"""

import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gmmas_jax import __version__
from gmmas_jax.cases.files import output_folder, write_json
from gmmas_jax.cases.manifest import read_manifest
from gmmas_jax.errors import UserError
from gmmas_jax.export.shipped import shipped, shipped_folder

STAGES = "stages.json"
FIRST_ACT = "first act"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the demo does.

    Attributes:
        config: The experiment to train.
        patients: Synthetic patients to train on.
        test: Synthetic patients held out.
        subset_cases: Of these, how many are also predicted from each subset of the sequences.
        synth_options: More words for `gmmas synth`.
    """

    config: str = "configs/gmmas_mini.py"
    patients: int = 144
    test: int = 24
    subset_cases: int = 6
    synth_options: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One command.

    Attributes:
        name: For the table.
        words: The command without the program's name.
        inputs: Files that it depends on.
        result: File that is there when it ended well.
    """

    name: str
    words: tuple[str, ...]
    inputs: tuple[Path, ...] = ()
    result: Path


def demonstrate(
    out: Path, *, case: Path | None = None, seed: int = 0, plan: Plan | None = None
) -> None:
    """Goes from generated patients to reports as a user with scans would, and says where they are.

    First, where the program comes with trained weights, a case is predicted with them: what the
    rest of the demo would take days to reach.

    Args:
        out: Folder for everything.
        case: Folder of a real case to predict too.
        seed: Of patients and training.
        plan: What to do; None for the demo as documented.

    Raises:
        UserError: If the folder cannot be written, there is no such case, or a stage fails.
    """
    plan = plan or Plan()
    if case is not None and not case.is_dir():
        raise UserError(
            f"{case}: no such folder; expected one with the NIfTI files of a case. Check --case."
        )
    out = output_folder(out)
    began = time.monotonic()
    records = _read_records(out)
    cohort = out / "cohort.csv"
    stages = _patients(out / "patients", cohort, plan, seed)
    for stage in stages:
        _run_stage(stage, out, records)
    acts = _first_act(out, cohort, case)
    if not acts:
        print(f"== {FIRST_ACT}: left out, this copy of gmmas comes with no trained weights yet")
    for stage in acts:
        _run_stage(stage, out, records)
    stages += acts
    rest = _stages(out, cohort, case, plan, seed)
    for stage in rest:
        _run_stage(stage, out, records)
    stages += rest
    print()
    print(_summary(out, [stage.name for stage in stages], records))
    print(f"this run took {_minutes(time.monotonic() - began)}\n")
    for stage in stages:
        if stage.result.suffix == ".html":
            print(f"Open: {stage.result.absolute()}")


def _patients(folder: Path, cohort: Path, plan: Plan, seed: int) -> list[Stage]:
    """Returns what makes the folder of scans, and the manifest of what is found in it."""
    table = folder / "cohort.csv"
    synth = (
        *("synth", "--out", str(folder), "--patients", str(plan.patients + plan.test)),
        *("--test", str(plan.test), "--seed", str(seed), *plan.synth_options),
    )
    ingest = (
        *("ingest", str(folder), "--layout", "folders", "--label-convention", "brats2023"),
        *("--clinical", str(table), "--out", str(cohort)),
    )
    return [
        Stage(name="synth", words=synth, result=table),
        Stage(name="ingest", words=ingest, inputs=(table,), result=cohort),
    ]


def _stages(out: Path, cohort: Path, case: Path | None, plan: Plan, seed: int) -> list[Stage]:
    """Returns what follows once the manifest is there."""
    checked, store = out / "check.json", out / "store"
    weights, log = out / "training" / "weights", out / "training" / "metrics.jsonl"
    tensors, evaluation = weights / "weights.safetensors", out / "evaluation"
    check = ("check", str(cohort), "--out", str(checked))
    build = ("build", str(cohort), "--out", str(store), "--config", plan.config)
    train = (
        *("train", "--config", plan.config, "--store", str(store)),
        *("--workdir", str(weights.parent), f"--config.seed={seed}"),
    )
    evaluate = (
        *("evaluate", "--weights", str(weights), "--cohort", str(cohort)),
        *("--out", str(evaluation), "--log", str(log)),
        *("--subset-cases", str(plan.subset_cases)),
    )
    # A generated patient may show what the network learned of generated patients' types; about a
    # real one that is no evidence, and is withheld.
    cases: list[tuple[str, Path, tuple[str, ...]]] = [
        ("predict", _held_out(cohort), ("--experimental",))
    ]
    if case is not None:
        cases.append(("predict --case", case, ()))
    stages = [
        Stage(name="check", words=check, inputs=(cohort,), result=checked),
        Stage(name="build", words=build, inputs=(cohort,), result=store / "build.json"),
        Stage(name="train", words=train, inputs=(store / "build.json",), result=tensors),
        Stage(
            name="evaluate",
            words=evaluate,
            inputs=(cohort, tensors),
            result=evaluation / "report.html",
        ),
    ]
    for name, folder, options in cases:
        target = out / "predictions" / folder.resolve().name
        stages.append(
            Stage(
                name=name,
                words=(
                    *("predict", str(folder), "--weights", str(weights), "--out", str(target)),
                    *options,
                ),
                inputs=(tensors, *_files(folder)),
                result=target / "report.html",
            )
        )
    return stages


def _first_act(out: Path, cohort: Path, case: Path | None) -> list[Stage]:
    """Returns the prediction of one case with the weights that come with the program, if any do."""
    names = shipped()
    if not names:
        return []
    folder = _held_out(cohort) if case is None else case
    target = out / "first-act" / folder.resolve().name
    known = tuple(shipped_folder(name) / "sha256" for name in names)
    words = ("predict", str(folder), "--out", str(target))
    inputs = (*known, *_files(folder))
    return [Stage(name=FIRST_ACT, words=words, inputs=inputs, result=target / "report.html")]


def _held_out(cohort: Path) -> Path:
    """Returns the folder of the first synthetic patient that is not trained on."""
    row = next(row for row in read_manifest(cohort) if row.split == "test")
    return (cohort.parent / next(iter(row.images.values()))).parent


def _files(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for path in folder.iterdir() if path.is_file()))


def _run_stage(stage: Stage, out: Path, records: dict[str, Any]) -> None:
    """Runs a stage, unless it was run with the same command and inputs."""
    command = shlex.join(("gmmas", *stage.words))
    before = {"command": command, "version": __version__, "inputs": _digests(stage.inputs)}
    known = records.get(stage.name)
    same = known and all(known[name] == value for name, value in before.items())
    if same and stage.result.is_file():
        print(f"== {stage.name}: done before", flush=True)
        return
    print(f"== {command}", flush=True)
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "gmmas_jax", *stage.words])
    code, peak = _wait(process)
    if code == 130:
        raise KeyboardInterrupt
    if code != 0:
        raise UserError(
            f"the stage {stage.name!r} ended with exit code {code}; its own message is above. "
            "The same command goes on from there."
        )
    records[stage.name] = before | {"seconds": time.monotonic() - began, "peak_bytes": peak}
    write_json(out / STAGES, records)


def _wait(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    """Waits for a process; returns its exit code and its peak memory in bytes."""
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except KeyboardInterrupt:
        # The process got the interrupt as well, and may be saving.
        process.wait()
        raise
    # Told here, or the interpreter would look for a process that is gone.
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    return process.returncode, usage.ru_maxrss * unit


def _digests(paths: Iterable[Path]) -> dict[str, str]:
    digests = {}
    for path in paths:
        with path.open("rb") as file:
            digests[str(path)] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _read_records(out: Path) -> dict[str, Any]:
    try:
        return json.loads((out / STAGES).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def _summary(out: Path, names: Sequence[str], records: dict[str, Any]) -> str:
    """Returns the main numbers, and what each stage took."""
    # It imports JAX, which the stages have in their own processes.
    from gmmas_jax.cli.cohort_evaluation import METRICS, short_table

    metrics = json.loads((out / "evaluation" / METRICS).read_text(encoding="utf-8"))
    lines = [f"Held-out synthetic patients: {short_table(metrics)}", ""]
    for name in names:
        record = records[name]
        lines.append(
            f"  {name:15} {_minutes(record['seconds']):>12}   peak memory "
            f"{record['peak_bytes'] / 2**30:.1f} GiB"
        )
    return "\n".join(lines)


def _minutes(seconds: float) -> str:
    return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
