"""Progress over cases whose number is known only when the first of them is done."""

from types import TracebackType

from gmmas_jax.cli.progress import CaseProgress


class LateProgress:
    """Shows nothing until the first case, then as `CaseProgress`. Use as a context manager."""

    def __init__(self, what: str):
        """Begins.

        Args:
            what: The work, one word.
        """
        self._what = what
        self._progress: CaseProgress | None = None

    def done(self, count: int, total: int, case_id: str) -> None:
        """Notes that `count` of `total` cases are done, the latest being `case_id`."""
        if self._progress is None:
            self._progress = CaseProgress(self._what, total)
        self._progress.done(count, case_id)

    def __enter__(self) -> "LateProgress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.__exit__(kind, error, trace)
