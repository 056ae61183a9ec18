"""Logs on disk and progress on screen."""

import io
import json
import struct

import pytest
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from gmmas_jax.errors import UserError
from gmmas_jax.train.logging import (
    JsonLinesWriter,
    MultiWriter,
    TensorBoardWriter,
    read_log,
)
from gmmas_jax.train.progress import Bar, Lines, Silent, duration, make_progress


def _write(path, start, steps):
    writer = JsonLinesWriter(path, start_step=start)
    for step in steps:
        writer.write(step, "train", {"loss": step / 3})
    writer.close()


def test_log_is_cut_where_a_run_continues(tmp_path):
    path = tmp_path / "metrics.jsonl"
    _write(path, 0, range(1, 6))
    with path.open("a") as file:
        file.write('{"step": 6, "lo')
    assert [record["step"] for record in read_log(path)] == [1, 2, 3, 4, 5]
    _write(path, 3, (4, 5))
    assert [(r["step"], r["loss"]) for r in read_log(path)] == [(n, n / 3) for n in range(1, 6)]
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_lines_can_be_read_at_once(tmp_path):
    writer = JsonLinesWriter(tmp_path / "log", start_step=0)
    writer.write(1, "evaluation", {"dice": 0.5})
    assert json.loads((tmp_path / "log").read_text()) == {
        "step": 1,
        "kind": "evaluation",
        "dice": 0.5,
    }
    writer.close()


def test_another_file_is_refused(tmp_path):
    (tmp_path / "log").write_text("hello\nthere\n")
    with pytest.raises(UserError, match="is not a log of metrics"):
        JsonLinesWriter(tmp_path / "log", start_step=0)


def _events(folder):
    data = next(iter(folder.iterdir())).read_bytes()
    events = []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return events


def test_tensorboard_events(tmp_path):
    writer = MultiWriter([TensorBoardWriter(tmp_path, start_step=3)])
    writer.write(4, "train", {"loss": 0.25})
    writer.flush()
    head, start, event = _events(tmp_path)
    assert head.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (4, SessionLog.START)
    assert event.step == 4
    assert event.summary.value[0].tag == "train/loss"
    assert event.summary.value[0].simple_value == 0.25
    writer.close()


class _Terminal(io.StringIO):
    def isatty(self):
        return True


VALUES = {"loss": 0.5, "samples_per_second": 12.0}


def test_plain_lines_where_there_is_no_terminal():
    stream = io.StringIO()
    progress = make_progress(stream, start=0, steps=100)
    assert isinstance(progress, Lines)
    for step in range(1, 11):
        progress.step(step)
    progress.log(10, VALUES)
    progress.close()
    line = stream.getvalue()
    assert line.startswith("step 10/100 · loss 0.5000 · 12 samples/s · ")
    assert line.endswith(" left\n")
    assert line.count("\n") == 1


def test_bar_on_a_terminal():
    stream = _Terminal()
    progress = make_progress(stream, start=90, steps=100)
    assert isinstance(progress, Bar)
    progress.say("compiling")
    for step in range(91, 101):
        progress.step(step)
    progress.log(100, VALUES)
    progress.close()
    text = stream.getvalue()
    assert "compiling\n" in text
    assert "100/100" in text
    assert "loss 0.5000 · 12 samples/s" in text


def test_other_processes_are_silent():
    assert isinstance(make_progress(io.StringIO(), start=0, steps=1, first_process=False), Silent)


def test_words():
    stream = io.StringIO()
    Lines(stream, start=0, steps=9).log(1, {"nonfinite": 0.5})
    assert stream.getvalue() == "step 1/9 · loss not finite · 50% skipped\n"
    assert [duration(s) for s in (5.4, 65, 7500)] == ["5 s", "1 min 05 s", "2 h 05 min"]
