"""Times the lowerings of the 3D convolution for every layer shape of the mini network.

    python -m benchmarks.conv_lowering

Forward, and forward with both gradients, of XLA's native 3D convolution against the sum of 2D
convolutions over depth taps. See `README.md`.
"""

import argparse
import collections
import contextlib
import dataclasses
import datetime
import os
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.machine import save_result
from gmmas_jax.config import load_config
from gmmas_jax.measure import alternate, machine_facts, summary
from gmmas_jax.models import conv, layers
from gmmas_jax.models.build import make_model
from gmmas_jax.train.state import example_inputs

LOWERINGS = {"depth taps": conv.conv3d_by_depth_taps, "native": conv.conv3d_native}


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution as the network calls it: shapes of its operands and its geometry."""

    volume: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, int, int]
    padding: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        """Names volume, channels and stride."""
        size = "x".join(map(str, self.volume[1:4]))
        return f"{size}, {self.kernel[3]} to {self.kernel[4]}, stride {self.strides[0]}"


@contextlib.contextmanager
def recorded(calls: collections.Counter[Layer]) -> Iterator[None]:
    """Counts the convolutions that are traced inside."""

    def record(x: jax.Array, kernel: jax.Array, *, strides: Any, padding: Any) -> jax.Array:
        calls[Layer(x.shape, kernel.shape, tuple(strides), tuple(map(tuple, padding)))] += 1
        return conv.conv3d_native(x, kernel, strides=strides, padding=padding)

    with mock.patch.object(conv, "conv3d", record), mock.patch.object(layers, "conv3d", record):
        yield


def network_layers() -> collections.Counter[Layer]:
    """Returns the convolutions of a training step of the mini network, and how often each."""
    config = load_config("configs/gmmas_mini.py").to_dict()
    data, model = config["data"], make_model(**config["model"])
    inputs = [
        jax.ShapeDtypeStruct((data["batch_size"], *x.shape[1:]), x.dtype)
        for x in example_inputs(data["patch"], data["whole"])
    ]
    variables = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    calls: collections.Counter[Layer] = collections.Counter()
    with recorded(calls):
        jax.eval_shape(model.apply, variables, *inputs)
    return calls


def time_layer(layer: Layer, *, rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Returns {"forward" or "with gradients": {lowering: summary}}."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=layer.volume), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=layer.kernel), jnp.float32)

    def forward(lowering: Callable[..., jax.Array]) -> Callable[..., Any]:
        return lambda *o: lowering(*o, strides=layer.strides, padding=layer.padding)

    def backward(lowering: Callable[..., jax.Array]) -> Callable[..., Any]:
        return jax.grad(lambda *o: jnp.square(forward(lowering)(*o)).sum(), argnums=(0, 1))

    found = {}
    for name, make in (("forward", forward), ("with gradients", backward)):
        sides = {}
        for lowering, function in LOWERINGS.items():
            compiled = jax.jit(make(function)).lower(x, kernel).compile()
            sides[lowering] = lambda run=compiled: jax.block_until_ready(run(x, kernel))
        times = alternate(sides, rounds=rounds, warm_up=2)
        found[name] = {lowering: summary(seconds) for lowering, seconds in times.items()}
    return found


def page(result: dict[str, Any]) -> str:
    """Writes the result as Markdown."""
    lines = [
        f"# Lowerings of the mini network's convolutions, {result['date']}",
        "",
        "| machine | |",
        "| --- | --- |",
        *(f"| {name.replace('_', ' ')} | {value} |" for name, value in result["machine"].items()),
        "",
        f"Batch of {result['batch']}, float32; medians in milliseconds.",
        "",
        "| volume, channels | calls | taps, forward | native, forward | taps, with gradients "
        "| native, with gradients | native / taps, with gradients |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    totals: collections.Counter[str] = collections.Counter()
    for layer in result["layers"]:
        numbers = []
        for work in ("forward", "with gradients"):
            for lowering in LOWERINGS:
                value = 1000 * layer[work][lowering]["median_s"]
                totals[f"{work}, {lowering}"] += layer["calls"] * value
                numbers.append(value)
        cells = " | ".join(f"{value:.2f}" for value in numbers)
        ratio = numbers[3] / numbers[2]
        lines.append(f"| {layer['name']} | {layer['calls']} | {cells} | {ratio:.1f} |")
    lines += ["", "All calls of a step together, in milliseconds:", ""]
    lines += [f"- {name}: {value:.0f}" for name, value in totals.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Times every layer and writes the result to `results/`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--check", action="store_true", help="two layers, write nothing")
    arguments = parser.parse_args()
    facts, calls = machine_facts(), network_layers()
    chosen = list(calls)[:2] if arguments.check else list(calls)
    timed = [
        {"name": str(layer), "calls": calls[layer], **time_layer(layer, rounds=arguments.rounds)}
        for layer in chosen
    ]
    facts["load_after"] = [round(value, 2) for value in os.getloadavg()]
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": facts,
        "batch": chosen[0].volume[0],
        "layers": timed,
    }
    text = page(result)
    print(text)
    if not arguments.check:
        save_result("conv_lowering", result, text)


if __name__ == "__main__":
    main()
