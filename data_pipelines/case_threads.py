"""Work on many cases in threads: a bad case costs itself only, a full disk stops the work."""

import errno
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from gmmas_jax.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


def map_cases(
    function: Callable[[Item], Result], items: Sequence[Item], *, workers: int
) -> Generator[Result | UserError, None, None]:
    """Calls a function for each case, and yields what it returns in the order of the cases.

    For work that reads, compresses and writes files: that runs beside other Python code. When the
    caller stops (an interrupt from the keyboard, an error), cases that wait are not begun.

    Args:
        function: A `UserError` that it raises is this case's result, unless it tells of an output
            disk that is full or read-only, which no other case would survive either.
        items: The cases.
        workers: Threads.

    Yields:
        One result, or `UserError`, a case.

    Raises:
        UserError: If the disk is full or read-only.
    """

    def attempt(item: Item) -> Result | UserError:
        try:
            return function(item)
        except UserError as error:
            if disk_refuses(error):
                raise
            return error

    with ThreadPoolExecutor(workers) as pool:
        try:
            yield from pool.map(attempt, items)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def disk_refuses(error: BaseException | None) -> bool:
    """Returns whether an error goes back to an output disk that is full or read-only."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
            return True
        error = error.__cause__
    return False
