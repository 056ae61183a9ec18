"""Promises that need processes of their own: kill, SIGTERM, many devices, many processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from gmmas_jax.train.checkpoint import load_for_inference
from gmmas_jax.train.logging import read_log

pytestmark = pytest.mark.multiprocess

PROGRAM = Path(__file__).parent / "dummy_training.py"
ROOT = Path(__file__).parents[2]
LONG = {
    "train": {
        "steps": 10,
        "log_every": 2,
        "checkpoint_every": 3,
        "ema_decay": 0.9,
        "split_above_bytes": 1024,
    }
}
SHORT = {"train": LONG["train"] | {"steps": 3, "log_every": 1}}


def _start(*runs, **request):
    environment = dict(os.environ, PYTHONPATH=str(ROOT)) | request.pop("environment", {})
    # Programs this small take longer to optimise than to run.
    environment.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
    request["runs"] = [{"workdir": str(workdir), "config": config} for workdir, config in runs]
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), json.dumps(request)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(process):
    """Returns what each run of a process reported."""
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    # Gloo says hello on the same stream.
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def _wait_for(process, workdir, *, step):
    """Waits until a run has logged a step and saved the one of its first checkpoint."""
    log = workdir / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        saved = (workdir / "checkpoints" / "3").exists()
        if saved and log.exists() and any(r["step"] >= step for r in read_log(log)):
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError("the run did not get far enough in five minutes")


def _losses(workdir):
    records = read_log(workdir / "metrics.jsonl")
    return [{k: v for k, v in r.items() if k != "samples_per_second"} for r in records]


def _parameters(workdir):
    return load_for_inference(workdir / "checkpoints")[0]["params"]


@pytest.fixture(name="alone", scope="module")
def _alone(tmp_path_factory):
    """Runs that nothing interrupts, on one device, one long and one short."""
    folder = tmp_path_factory.mktemp("alone")
    reports = _finish(_start((folder / "long", LONG), (folder / "short", SHORT)))
    assert [report["step"] for report in reports] == [10, 3]
    assert all(report["heavy"] == [] for report in reports)
    return folder


def _assert_same_run(workdir, expected):
    assert _losses(workdir) == _losses(expected)
    one, other = _parameters(workdir), _parameters(expected)
    assert jax.tree.all(jax.tree.map(np.array_equal, one, other))


def test_killed_run_continues_bitwise(alone, tmp_path):
    process = _start((tmp_path, LONG), pause=0.2)
    _wait_for(process, tmp_path, step=4)
    process.kill()
    process.communicate()
    assert read_log(tmp_path / "metrics.jsonl")[-1]["step"] < 10
    assert _finish(_start((tmp_path, LONG)))[0]["step"] == 10
    _assert_same_run(tmp_path, alone / "long")


def test_sigterm_saves_and_ends_well(alone, tmp_path):
    process = _start((tmp_path, LONG), pause=0.2, mode="local")
    _wait_for(process, tmp_path, step=4)
    process.send_signal(signal.SIGTERM)
    (report,) = _finish(process)
    assert report["preempted"]
    assert 4 < report["step"] < 10
    steps = {int(path.name) for path in (tmp_path / "checkpoints").iterdir()}
    assert report["step"] in steps
    assert _finish(_start((tmp_path, LONG)))[0]["step"] == 10
    _assert_same_run(tmp_path, alone / "long")


def _assert_close(workdir, expected):
    for record, reference in zip(_losses(workdir), _losses(expected), strict=True):
        for name, value in reference.items():
            if name != "kind":
                assert record[name] == pytest.approx(value, rel=1e-5, abs=1e-5), name
    one, other = _parameters(workdir), _parameters(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), one, other)


def test_eight_devices_agree_with_one(alone, tmp_path):
    split = SHORT | {"mesh": {"data": 2, "fsdp": 4}}
    _finish(_start((tmp_path / "8", SHORT), (tmp_path / "2x4", split), devices=8))
    _assert_close(tmp_path / "8", alone / "short")
    _assert_close(tmp_path / "2x4", alone / "short")


def test_two_processes_agree_with_one(alone, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    processes = [
        _start(
            (tmp_path, SHORT),
            mode="auto",
            environment={
                "JAX_COORDINATOR_ADDRESS": address,
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": str(number),
            },
        )
        for number in range(2)
    ]
    reports = [_finish(process) for process in processes]
    assert reports[0][0]["step"] == 3
    assert reports[1] == []
    _assert_close(tmp_path, alone / "short")
