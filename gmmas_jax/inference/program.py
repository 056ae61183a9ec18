"""A function that is compiled before its arguments are there."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax


class Program:
    """A jitted function; once `begin` was called, for arguments of one shape alone."""

    def __init__(self, function: Callable[..., Any]):
        """Compiles nothing yet."""
        # Fewer of LLVM's passes on a CPU, whose convolutions are a library's: compiled sooner.
        options = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
        self._function = jax.jit(function, compiler_options=options)
        self._compiled: Future[Any] | None = None

    def begin(self, *arguments: Any) -> Any:
        """Begins to compile, in a thread of its own.

        Args:
            arguments: Arrays, or `jax.ShapeDtypeStruct` in their place.

        Returns:
            What the function will return, as pytree of `jax.ShapeDtypeStruct`.
        """
        # Tracing holds Python's lock, so that nothing is gained by doing it in the thread.
        lowered = self._function.lower(*arguments)
        worker = ThreadPoolExecutor(max_workers=1)
        self._compiled = worker.submit(lowered.compile)
        worker.shutdown(wait=False)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), lowered.out_info
        )

    def __call__(self, *arguments: Any) -> Any:
        """Runs the function; waits for the thread if it has not ended yet."""
        if self._compiled is None:
            return self._function(*arguments)
        return self._compiled.result()(*arguments)
