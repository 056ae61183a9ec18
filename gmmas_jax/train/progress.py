"""What a person sees of a run: a bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping
from typing import Protocol, TextIO

from tqdm import tqdm


class Progress(Protocol):
    """Shows how far a run is."""

    def step(self, step: int) -> None:
        """Notes that a step was dispatched."""
        ...

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Shows the metrics of the latest steps: "loss" and "samples_per_second" at least."""
        ...

    def say(self, text: str) -> None:
        """Shows a line."""
        ...

    def close(self) -> None:
        """Leaves the terminal tidy."""
        ...


class Bar:
    """A tqdm bar with loss, samples per second and time left."""

    def __init__(self, stream: TextIO, *, start: int, steps: int):
        self._stream = stream
        self._bar = tqdm(
            total=steps, initial=start, unit="step", file=stream, dynamic_ncols=True, desc="train"
        )

    def step(self, step: int) -> None:
        """See `Progress`."""
        self._bar.update(step - self._bar.n)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See `Progress`."""
        self._bar.set_postfix_str(summary(values))

    def say(self, text: str) -> None:
        """See `Progress`."""
        self._bar.write(text, file=self._stream)

    def close(self) -> None:
        """See `Progress`."""
        self._bar.close()


class Lines:
    """A plain line for each log entry."""

    def __init__(self, stream: TextIO, *, start: int, steps: int):
        self._stream, self._first, self._steps = stream, start, steps
        self._began: float | None = None

    def step(self, step: int) -> None:
        """See `Progress`."""
        if self._began is None:
            # The first step compiles; it says nothing about the others.
            self._first, self._began = step, time.monotonic()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See `Progress`."""
        text = f"step {step}/{self._steps} · {summary(values)}"
        if self._began is not None and step > self._first:
            passed = time.monotonic() - self._began
            left = passed / (step - self._first) * (self._steps - step)
            text += f" · {duration(left)} left"
        self.say(text)

    def say(self, text: str) -> None:
        """See `Progress`."""
        print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """See `Progress`."""


class Silent:
    """Shows nothing; for all processes but the first."""

    def step(self, step: int) -> None:
        """See `Progress`."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See `Progress`."""

    def say(self, text: str) -> None:
        """See `Progress`."""

    def close(self) -> None:
        """See `Progress`."""


def make_progress(
    stream: TextIO, *, start: int, steps: int, first_process: bool = True
) -> Progress:
    """Chooses how to show progress.

    Args:
        stream: Where to, usually the error stream.
        start: The step that the run begins at.
        steps: The step that it ends at.
        first_process: Only the first process of a run shows anything.
    """
    if not first_process:
        return Silent()
    return (Bar if stream.isatty() else Lines)(stream, start=start, steps=steps)


def summary(values: Mapping[str, float]) -> str:
    """Returns the few metrics that matter at a glance."""
    loss = f"loss {values['loss']:.4f}" if "loss" in values else "loss not finite"
    skipped = f" · {values['nonfinite']:.0%} skipped" if values.get("nonfinite") else ""
    rate = values.get("samples_per_second")
    return loss + skipped + ("" if rate is None else f" · {rate:.3g} samples/s")


def duration(seconds: float) -> str:
    """Returns a length of time with one or two units, such as `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
