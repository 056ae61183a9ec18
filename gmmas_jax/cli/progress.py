"""How far work over many cases is: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from types import TracebackType
from typing import Any, TextIO

_SECONDS_BETWEEN_LINES = 10.0


class CaseProgress:
    """Counts cases. Use as a context manager.

    Example:
        with CaseProgress("prepare", len(rows)) as progress:
            progress.done(1, rows[0].case_id)
    """

    def __init__(self, what: str, total: int | None = None, *, stream: TextIO | None = None):
        """Begins to count.

        Args:
            what: The work, one word.
            total: Number of cases; None if only `done` will tell it: then nothing is shown before.
            stream: Where to show it; None for the error stream.
        """
        self._what = what
        self._stream = sys.stderr if stream is None else stream
        self._shown = time.monotonic()
        self._total: int | None = None
        self._bar: Any = None
        if total is not None:
            self._begin(total)

    def done(self, count: int, case_id: str, *, total: int | None = None) -> None:
        """Notes that `count` cases are done, the latest being `case_id`."""
        if self._total is None and total is not None:
            self._begin(total)
        if self._bar is not None:
            self._bar.set_postfix_str(case_id, refresh=False)
            self._bar.update(count - self._bar.n)
            return
        now = time.monotonic()
        if count == self._total or now - self._shown > _SECONDS_BETWEEN_LINES:
            self._shown = now
            print(f"{self._what} {count}/{self._total}", file=self._stream, flush=True)

    def _begin(self, total: int) -> None:
        self._total = total
        if self._stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, desc=self._what, unit="case", file=self._stream, dynamic_ncols=True
            )

    def __enter__(self) -> "CaseProgress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
