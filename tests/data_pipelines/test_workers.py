import os
import signal
import time
from pathlib import Path

import pytest

from data_pipelines.workers import Task, run_cases, worker_count
from gmmas_jax.errors import UserError

pytestmark = pytest.mark.multiprocess


def double(value):
    return 2 * value


def moody(item):
    """Dies where a file says so: by signal as the out-of-memory killer does, or by being slow."""
    kind, marker = item
    if kind == "bad":
        raise UserError("bad case")
    if kind == "killed always" or (kind == "killed once" and not marker.exists()):
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "too large" or (kind == "too large once" and not marker.exists()):
        marker.touch()
        raise MemoryError
    if kind == "no answer":
        raise TimeoutError(110, "Connection timed out")
    if kind == "slow":
        time.sleep(60)
    return kind


def test_results_keep_the_order_of_the_tasks():
    seen = []
    results = run_cases(
        double,
        [Task(f"c{n}", n) for n in range(7)],
        workers=3,
        on_case=lambda *done: seen.append(done),
    )
    assert results == [0, 2, 4, 6, 8, 10, 12]
    assert [count for count, _ in seen] == list(range(1, 8))
    assert {case for _, case in seen} == {f"c{n}" for n in range(7)}


def test_a_killed_worker_costs_no_other_case(tmp_path):
    kinds = ["fine", "killed once", "bad", "killed always", "fine"]
    tasks = [Task(kind, (kind, Path(tmp_path) / f"{n}")) for n, kind in enumerate(kinds)]
    results = run_cases(moody, tasks, workers=2)
    assert [results[n] for n in (0, 1, 4)] == ["fine", "killed once", "fine"]
    assert str(results[2]) == "bad case"
    assert "killed always: its worker died twice (exit code -9)" in str(results[3])


def test_memory_that_ran_out_costs_no_other_case(tmp_path):
    kinds = ["fine", "too large", "too large once", "no answer"]
    tasks = [Task(kind, (kind, Path(tmp_path) / f"{n}")) for n, kind in enumerate(kinds)]
    results = run_cases(moody, tasks, workers=2)
    assert results[0] == "fine"
    assert "too large: memory ran out twice, the second time" in str(results[1])
    assert results[2] == "too large once"
    assert "no answer: [Errno 110] Connection timed out, twice" in str(results[3])


def test_a_slow_case_is_told(tmp_path):
    (result,) = run_cases(moody, [Task("s", ("slow", tmp_path))], workers=1, timeout_s=0.5)
    assert isinstance(result, UserError)
    assert "s: it took longer than 0.5 s, twice" in str(result)


def test_our_own_errors_propagate():
    with pytest.raises(TypeError):
        run_cases(double, [Task("a", None)], workers=1)


def test_worker_count_follows_memory():
    assert worker_count(2**30, max_memory=2**29) == 1
    assert worker_count(1, max_memory=2**40) == len(os.sched_getaffinity(0))
    assert run_cases(double, [], workers=2) == []
