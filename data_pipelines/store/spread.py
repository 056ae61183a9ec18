"""The cases of a store spread over processes, or handed to Beam."""

import math
from collections.abc import Callable, Sequence

from data_pipelines.sampled_grids import sampled_grids
from data_pipelines.store.one_case import Built, Item, already_built, build_case
from data_pipelines.workers import Task, run_cases, worker_count
from gmmas_jax.cases.manifest import Row
from gmmas_jax.errors import UserError

_BYTES_PER_VOXEL = 12
"""What a worker takes for each voxel of a file: the sequence twice as float32 while it is turned,
and masks (docs/explanation/the-store.md has what was measured)."""

_BYTES_PER_PREPARED = 20
"""And for each voxel of an exam at the store's spacing, if the brain fills it: four sequences as
float16, three times one of them as float32."""

_WORKER_BYTES = 150 << 20
"""Interpreter and libraries of a worker: 93 MiB were seen."""

_FEW_BYTES = 32 << 20
"""Input below which starting processes takes longer than the work."""

Progress = Callable[[int, int, str], None]


def build_cases(
    items: Sequence[Item],
    *,
    workers: int | None,
    max_memory: int | None,
    beam: Sequence[str] | None,
    on_case: Progress | None,
) -> dict[Row, Built | UserError]:
    """Builds the cases that are not built; see `build.build_store` for the arguments.

    Returns:
        What became of each case, in the order of the items.

    Raises:
        OutputError: If a record cannot be written.
        UserError: If Beam refuses its options.
    """
    results: dict[str, Built | UserError] = {}
    todo = []
    for item in items:
        found = already_built(item)
        if found is None:
            todo.append(item)
        else:
            results[item.row.case_id] = found
    done = len(results)

    def told(count: int, case_id: str) -> None:
        if on_case is not None:
            on_case(done + count, len(items), case_id)

    if done:
        told(0, items[-1].row.case_id)
    if todo and beam is not None:
        from data_pipelines.store.with_beam import run_with_beam

        fitting = worker_count(bytes_each(todo), max_memory=max_memory)
        made = run_with_beam(todo, beam, workers=workers or fitting)
        told(len(todo), todo[-1].row.case_id)
    elif workers == 0 or (workers is None and _input_bytes(todo) < _FEW_BYTES):
        made = [_attempt(item, number, told) for number, item in enumerate(todo, 1)]
    else:
        fitting = worker_count(bytes_each(todo), max_memory=max_memory)
        tasks = [Task(item.row.case_id, item) for item in todo]
        made = run_cases(
            build_case,
            tasks,
            workers=fitting if workers is None else min(workers, fitting),
            on_case=told,
        )
    results |= {item.row.case_id: result for item, result in zip(todo, made, strict=True)}
    return {item.row: results[item.row.case_id] for item in items}


def _attempt(item: Item, number: int, told: Callable[[int, str], None]) -> Built | UserError:
    try:
        return build_case(item)
    except UserError as error:
        return error
    except MemoryError:
        return UserError("memory ran out; expected room for one exam. Free memory.")
    finally:
        told(number, item.row.case_id)


def _input_bytes(items: Sequence[Item]) -> int:
    total = 0
    for item in items:
        for path in item.row.images.values():
            file = item.root / path
            total += file.stat().st_size if file.is_file() else 0
        if total >= _FEW_BYTES:
            break
    return total


def bytes_each(items: Sequence[Item]) -> int:
    """Returns what a worker takes at most, from the headers of some of the cases."""
    first = items[0]
    whole = _BYTES_PER_PREPARED * math.prod(first.whole)
    prepared = (
        _BYTES_PER_VOXEL * math.prod(grid.shape)
        + _BYTES_PER_PREPARED * grid.voxel_ml * 1000 * math.prod(grid.shape) / first.spacing_mm**3
        for grid in sampled_grids([item.row for item in items], first.root)
    )
    return _WORKER_BYTES + whole + int(max(prepared, default=0))
