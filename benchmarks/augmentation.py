"""Times every stage of the augmentation, and what each config does, on one core and on more.

    python -m benchmarks.augmentation            # writes results/augmentation-<date>.{json,md}
    python -m benchmarks.augmentation --check    # small volumes, one round, writes nothing

Every number of cores is measured in a process of its own.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np

from benchmarks.machine import save_result
from gmmas_jax.augment.patch import make_augmentation
from gmmas_jax.config import base_config, load_config, to_dict
from gmmas_jax.measure import machine_facts, summary

STAGES = (
    *("rotation", "elastic", "bias", "blur", "low_resolution", "thick_slices"),
    *("gaussian_noise", "rician_noise", "brightness", "contrast", "natural_gamma"),
)
CONFIGS = ("gmmas", "gmmas_paper")
BATCH = 2
DRAWS = 12
"""Batches over which a config's cost is averaged: most of its stages are drawn now and then."""


def sections() -> dict[str, dict[str, Any]]:
    """Returns the `augment` section of everything that is timed, by name."""
    base = to_dict(base_config())["augment"]
    off = base | {"flip": (0.0, 0.0, 0.0), "intensity_scale": 0.0, "intensity_shift": 0.0}
    found = {"mirroring alone": off | {"flip": (0.5, 0.0, 0.0)}}
    found["scale and shift"] = off | {"intensity_scale": 0.1, "intensity_shift": 0.1}
    for name in STAGES:
        always = {"probability": 1.0}
        if "sequence_probability" in off[name]:
            always["sequence_probability"] = 1.0
        found[f"{name}, every example"] = off | {name: off[name] | always}
    for name in CONFIGS:
        found[f"configs/{name}.py"] = to_dict(load_config(f"configs/{name}.py"))["augment"]
    return found


def example_batch(patch: int, whole: int) -> dict[str, np.ndarray]:
    """Returns noise in a ball, which fills as much of the box as a brain."""
    rng = np.random.default_rng(0)
    batch = {"present": np.ones((BATCH, 4), np.float32)}
    for volume, label, size in (("image", "label", patch), ("whole", "whole_label", whole)):
        axis = np.linspace(-1, 1, size) ** 2
        radius = axis[:, None, None] + axis[None, :, None] + axis[None, None]
        ball = (radius < 0.95)[None, ..., None]
        noise = rng.normal(size=(BATCH, *(size,) * 3, 4))
        batch[volume] = np.where(ball, noise, 0).astype(np.float32)
        batch[label] = np.repeat((radius < 0.1)[None].astype(np.int32), BATCH, axis=0)
    box = np.array([[0.1, 0.15, 0.1], [0.9, 0.9, 0.95]], np.float32)
    return batch | {"box": np.repeat(box[None], BATCH, axis=0)}


def measure(*, check: bool) -> dict[str, Any]:
    """Times each section in this process; returns {name: numbers}."""
    batch = jax.device_put(example_batch(*((32, 24) if check else (128, 96))))
    results = {}
    for name, section in sections().items():
        function = make_augmentation(**section)
        assert function is not None
        start = time.perf_counter()
        program = jax.jit(function).lower(jax.random.key(0), batch).compile()
        compiled = time.perf_counter() - start
        memory = program.memory_analysis()
        rounds = 1 if check else DRAWS if name.startswith("configs") else 2
        keys = [jax.random.key(i) for i in range(rounds + 1)]
        seconds, busy = [], []
        for key in keys:
            start, start_busy = time.perf_counter(), time.process_time()
            jax.block_until_ready(program(key, batch))
            seconds.append((time.perf_counter() - start) / BATCH)
            busy.append((time.process_time() - start_busy) / BATCH)
        # The first run fills caches.
        results[name] = summary(seconds[1:]) | {
            "mean_s": float(np.mean(seconds[1:])),
            "processor_s": float(np.mean(busy[1:])),
            "compile_s": compiled,
            "scratch_mib": memory.temp_size_in_bytes / 2**20,
            "arguments_mib": memory.argument_size_in_bytes / 2**20,
        }
        print(f"{name}: {results[name]['mean_s']:.3f} s a sample", file=sys.stderr, flush=True)
    return results


def on_cores(cores: int, *, check: bool) -> dict[str, Any]:
    """Runs `measure` in a process that has the first of this one's cores."""
    own = sorted(os.sched_getaffinity(0))[:cores]
    command = [sys.executable, "-m", "benchmarks.augmentation", "--measure"]
    done = subprocess.run(
        [*command, *(["--check"] if check else [])],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, own),
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def page(result: dict[str, Any]) -> str:
    """Writes the result as Markdown."""
    counts = list(result["cores"])
    names = list(result["cores"][counts[0]])
    lines = [
        f"# Augmentation on the device, {result['date']}",
        "",
        "| machine | |",
        "| --- | --- |",
        *(f"| {name.replace('_', ' ')} | {value} |" for name, value in result["machine"].items()),
        "",
        f"Batch of {BATCH} patches of 128³ with four sequences and wholes of 96³, float32. Means "
        "over draws; `every example` is the cost where a stage is drawn, a config's is what its "
        "probabilities make of it. Processor time is what all cores spent, and holds also on a "
        "machine that others use. Scratch is beside the batch and the result.",
        "",
        "| | " + " | ".join(f"cores {c}: ms a sample, samples/s, processor ms" for c in counts)
        + " | compiling, s | scratch, MiB |",
        "| --- |" + " --- |" * (len(counts) + 2),
    ]  # fmt: skip
    for name in names:
        cells = []
        for cores in counts:
            seconds = result["cores"][cores][name]["mean_s"]
            busy = result["cores"][cores][name]["processor_s"]
            cells.append(f"{1000 * seconds:.0f}, {1 / seconds:.1f}, {1000 * busy:.0f}")
        first = result["cores"][counts[0]][name]
        cells += [f"{first['compile_s']:.1f}", f"{first['scratch_mib']:.0f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    if result["note"]:
        lines += ["", result["note"]]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures on one core and on all, and writes the result to `results/`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="small, one round, write nothing")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--note", default="", help="a sentence for the page")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(check=arguments.check)))
        return
    facts = machine_facts()
    cores = sorted({1, len(os.sched_getaffinity(0))})
    timed = {str(count): on_cores(count, check=arguments.check) for count in cores}
    facts["load_after"] = [round(value, 2) for value in os.getloadavg()]
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": facts,
        "note": arguments.note,
        "cores": timed,
    }
    text = page(result)
    print(text)
    if not arguments.check:
        save_result("augmentation", result, text)


if __name__ == "__main__":
    main()
