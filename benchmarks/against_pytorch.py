"""What comparisons with PyTorch do alike: are both the same function, and which is faster."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gmmas_jax.measure import alternate, summary

POINTS = 5
"""Draws of the parameters at which the networks are compared."""

LIMIT = 1e-5
"""Of a difference, relative to the largest value."""


def moved(params: Any, seed: int) -> Any:
    """Moves parameters a little: scales that begin at 0 would hide what lies behind them."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: leaf + jnp.asarray(0.05 * rng.normal(size=leaf.shape), leaf.dtype), params
    )


def difference(values: np.ndarray, expected: np.ndarray) -> float:
    """Returns the largest difference, relative to the largest expected value."""
    return float(np.abs(values - expected).max() / np.abs(expected).max())


def timed(runs: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, Any]:
    """Times the sides in turn.

    Args:
        runs: "jax" and the formats of PyTorch, to a function that returns when its work is done.
        rounds: Measurements of each.

    Returns:
        {"sides": {name: `summary`}, "jax_over_fastest_pytorch": ratio of the medians}.
    """
    measured = {k: summary(v) for k, v in alternate(runs, rounds=rounds, warm_up=2).items()}
    others = [found["median_s"] for name, found in measured.items() if name != "jax"]
    return {
        "sides": measured,
        "jax_over_fastest_pytorch": measured["jax"]["median_s"] / min(others),
    }


def times_table(times: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns the lines of Markdown that tell of {work: what `timed` returned}."""
    lines = [
        "| work | side | median s | least s | greatest s | rounds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for work, found in times.items():
        for side, t in found["sides"].items():
            numbers = " | ".join(f"{t[key]:.3f}" for key in ("median_s", "min_s", "max_s"))
            lines.append(f"| {work} | {side} | {numbers} | {t['rounds']} |")
    lines += ["", "JAX's median over that of PyTorch's faster memory format:", ""]
    lines += [f"- {work}: {found['jax_over_fastest_pytorch']:.2f}" for work, found in times.items()]
    return lines
