"""Metrics on disk: one JSON object a line, and TensorBoard's event files without TensorFlow."""

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from gmmas_jax.cases.files import write_text
from gmmas_jax.errors import UserError


class Writer(Protocol):
    """Takes the metrics of a step."""

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Writes finite numbers under the number of completed steps.

        Args:
            step: Completed steps.
            kind: "train" or "evaluation".
            values: Name to value.
        """
        ...

    def flush(self) -> None:
        """Makes what was written survive the end of this process."""
        ...

    def close(self) -> None:
        """Flushes and releases the file."""
        ...


class JsonLinesWriter:
    """Writes `{"step": …, "kind": …, name: value, …}`, a line per call."""

    def __init__(self, path: str | Path, *, start_step: int):
        """Opens the log, removing what a run that continues will write again.

        After a crash the log is ahead of the checkpoint that the run goes on from, and its last
        line may be torn; without this, the log would have a seam.

        Args:
            path: The file.
            start_step: The step that the run continues from; later lines are removed.
        """
        self._path = Path(path)
        if self._path.exists():
            _keep_until(self._path, start_step)
        # Line by line, for those who watch the file.
        self._file = self._path.open("a", encoding="utf-8", buffering=1)

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """See `Writer`."""
        record = {"step": step, "kind": kind} | {name: float(v) for name, v in values.items()}
        self._file.write(json.dumps(record, allow_nan=False) + "\n")

    def flush(self) -> None:
        """See `Writer`."""
        self._file.flush()

    def close(self) -> None:
        """See `Writer`."""
        self._file.close()


class TensorBoardWriter:
    """Writes event files that TensorBoard reads.

    TensorBoard's own writer imports TensorFlow wherever that is installed; here only its record
    format and its messages are used, which do not.
    """

    def __init__(self, directory: str | Path, *, start_step: int):
        """Opens a new event file.

        Args:
            directory: TensorBoard's folder of this run.
            start_step: The step that the run continues from; TensorBoard is told to forget what
                earlier files say about later steps.
        """
        from tensorboard.compat.proto import event_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._session = event_pb2.Event, event_pb2.SessionLog
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}"
        self._file: BinaryIO = (folder / name).open("ab")
        self._records = RecordWriter(self._file)
        self._add(file_version="brain.Event:2")
        start = self._session(status=self._session.SessionStatus.START)
        self._add(step=start_step + 1, session_log=start)

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """See `Writer`."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        summary = Summary(
            value=[Summary.Value(tag=f"{kind}/{n}", simple_value=v) for n, v in values.items()]
        )
        self._add(step=step, summary=summary)

    def flush(self) -> None:
        """See `Writer`."""
        self._file.flush()

    def close(self) -> None:
        """See `Writer`."""
        self._file.close()

    def _add(self, **fields: object) -> None:
        event = self._event(wall_time=time.time(), **fields)
        self._records.write(event.SerializeToString())


class MultiWriter:
    """Writes to several writers."""

    def __init__(self, writers: Sequence[Writer]):
        self._writers = tuple(writers)

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """See `Writer`."""
        for writer in self._writers:
            writer.write(step, kind, values)

    def flush(self) -> None:
        """See `Writer`."""
        for writer in self._writers:
            writer.flush()

    def close(self) -> None:
        """See `Writer`."""
        for writer in self._writers:
            writer.close()


def read_log(path: str | Path) -> list[dict]:
    """Reads a log of `JsonLinesWriter`; a torn last line is left out.

    Raises:
        UserError: If another line is no JSON object.
    """
    lines = Path(path).read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    try:
        return [json.loads(line) for line in lines]
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} is not a log of metrics: {error}. Remove it, or use another folder."
        ) from error


def _keep_until(path: Path, step: int) -> None:
    kept = [json.dumps(record) + "\n" for record in read_log(path) if record["step"] <= step]
    write_text(path, "".join(kept))
