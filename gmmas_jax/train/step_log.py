"""The metrics between two lines of the log, and the watch over steps that were not finite."""

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from gmmas_jax.errors import UserError
from gmmas_jax.objectives.combine import Metrics

CaseName = Callable[[int], str]


class StepLog:
    """Adds up the metrics of steps, fetching them from the device only when asked.

    Totals are added in float64, step by step, so that a run that continues from the totals of a
    checkpoint writes the same line as one that was never interrupted.
    """

    def __init__(
        self,
        *,
        max_nonfinite: int,
        case_name: CaseName,
        totals: Mapping[str, Sequence[float]],
    ):
        """Starts a log.

        Args:
            max_nonfinite: How many steps in a row that are not finite end the run.
            case_name: Index of a case, as in a batch's `case_index`, to its id.
            totals: What `totals` returned when the checkpoint was written, or empty.
        """
        self._max_nonfinite, self._case_name = max_nonfinite, case_name
        self._totals = {name: (value, count) for name, (value, count) in totals.items()}
        self._pending: list[tuple[int, Metrics, np.ndarray]] = []
        self._bad_steps: list[int] = []
        self._bad_cases: dict[str, None] = {}

    def add(self, step: int, metrics: Metrics, case_index: np.ndarray) -> None:
        """Takes the metrics of a step that may still be running.

        Runs at most two steps ahead of the device: batches that wait there take memory.

        Args:
            step: Completed steps.
            metrics: As returned by the step.
            case_index: [b] int, this process's part of the batch.
        """
        self._pending.append((step, metrics, np.asarray(case_index)))
        if len(self._pending) > 2:
            jax.block_until_ready(self._pending[-3][1])

    def totals(self) -> dict[str, tuple[float, float]]:
        """Waits for all steps taken so far and returns their totals and counts.

        Raises:
            UserError: If too many steps in a row were not finite.
        """
        fetched = jax.device_get([metrics for _, metrics, _ in self._pending])
        for (step, _, case_index), metrics in zip(self._pending, fetched, strict=True):
            for name, (value, count) in metrics.items():
                before = self._totals.get(name, (0.0, 0.0))
                self._totals[name] = (before[0] + float(value), before[1] + float(count))
            self._watch(step, bool(metrics["nonfinite"][0]), case_index)
        self._pending.clear()
        return dict(self._totals)

    def take_means(self) -> dict[str, float]:
        """Returns total / count of all that was measured since the last call, and starts anew.

        What nothing was measured of, such as a task without a label, is left out; a task's count
        is given as `count/<task>`.
        """
        totals = self.totals()
        self._totals = {}
        means = {name: value / count for name, (value, count) in totals.items() if count}
        return means | {
            f"count/{name.removeprefix('loss/')}": count
            for name, (_, count) in totals.items()
            if name.startswith("loss/")
        }

    def _watch(self, step: int, nonfinite: bool, case_index: np.ndarray) -> None:
        if not nonfinite:
            self._bad_steps, self._bad_cases = [], {}
            return
        self._bad_steps.append(step)
        self._bad_cases |= dict.fromkeys(self._case_name(int(i)) for i in case_index.ravel())
        if len(self._bad_steps) >= self._max_nonfinite:
            raise UserError(
                f"The loss or its gradient was not finite in {len(self._bad_steps)} steps in a row "
                f"({self._bad_steps[0]} to {step}; train.max_nonfinite is {self._max_nonfinite}). "
                f"Cases in these batches: {', '.join(self._bad_cases)}. Check them with "
                "`gmmas check`, or lower optimizer.learning_rate. None of these steps changed the "
                "parameters; the latest checkpoint is good."
            )
