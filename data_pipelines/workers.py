"""Work on many cases in worker processes: bounded memory, no case lost to a dead worker."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, as_completed
from typing import Generic, NamedTuple, TypeVar

from pebble import ProcessExpired, ProcessPool

from data_pipelines.free_memory import free_memory
from gmmas_jax.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

_HEADROOM = 0.8
"""Share of the free memory that workers may take together."""


class Task(NamedTuple, Generic[Item]):
    """One case's work.

    Attributes:
        case_id: For messages.
        item: What the function gets.
    """

    case_id: str
    item: Item


def worker_count(bytes_each: int, *, max_memory: int | None = None) -> int:
    """Returns how many workers fit into memory and cores, at least one.

    Args:
        bytes_each: What one worker takes at most.
        max_memory: Bytes for all workers together; None takes 0.8 of what is free now.
    """
    room = max_memory or int(_HEADROOM * free_memory())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, room // max(bytes_each, 1)))


def run_cases(
    function: Callable[[Item], Result],
    tasks: Sequence[Task[Item]],
    *,
    workers: int,
    timeout_s: float | None = None,
    on_case: Callable[[int, str], None] | None = None,
) -> list[Result | UserError]:
    """Calls a function for each case, in worker processes.

    A worker that dies (killed for memory, most often), runs out of memory or takes too long costs
    no other case: its case is tried once more when all others are done, alone, and told by name if
    it fails again.

    Args:
        function: Of a module, so that it can be sent to another process; a `UserError` that it
            raises is this case's result. Any other error propagates: it is ours.
        tasks: The cases.
        workers: Processes.
        timeout_s: Longest time for one case.
        on_case: Called in this process after each case with (cases done, case id).

    Returns:
        One result, or `UserError`, per task, in their order.
    """
    results: dict[int, Result | UserError] = {}

    def attempt(positions: Sequence[int], count: int, *, last: bool) -> list[int]:
        lost = []
        # Not forked: a copy of a process with running threads may hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPool(max_workers=count, context=context) as pool:
            futures: dict[Future[Result], int] = {
                pool.schedule(function, args=[tasks[position].item], timeout=timeout_s): position
                for position in positions
            }
            try:
                for future in as_completed(futures):
                    position = futures[future]
                    try:
                        results[position] = future.result()
                    except UserError as error:
                        results[position] = error
                    except (ProcessExpired, TimeoutError, MemoryError) as error:
                        if not last:
                            lost.append(position)
                            continue
                        results[position] = _lost(tasks[position].case_id, error, timeout_s)
                    if on_case is not None:
                        on_case(len(results), tasks[position].case_id)
            except BaseException:
                pool.stop()
                raise
        return sorted(lost)

    if tasks:
        for position in attempt(range(len(tasks)), min(workers, len(tasks)), last=False):
            attempt([position], 1, last=True)
    return [results[position] for position in range(len(tasks))]


def _lost(
    case_id: str, error: ProcessExpired | TimeoutError | MemoryError, timeout_s: float | None
) -> UserError:
    if isinstance(error, MemoryError):
        found = "memory ran out twice, the second time with its worker alone"
    elif isinstance(error, TimeoutError):
        # Without a limit it is the operating system's, of a file system over a network.
        found = f"it took longer than {timeout_s:g} s, twice" if timeout_s else f"{error}, twice"
    else:
        found = f"its worker died twice (exit code {error.exitcode}), the second time alone"
    return UserError(
        f"{case_id}: {found}; expected the case to fit into memory. Free memory, or take the case "
        "out of the manifest; the other cases were done."
    )
