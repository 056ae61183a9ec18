"""Measures how fast training input is made, by stage, and beside MONAI and batchgeneratorsv2."""

import datetime
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gmmas_jax.errors import UserError

if TYPE_CHECKING:
    from data_pipelines.prepared import PreparedIndex

_PATIENTS = 4
_GROUP = 4
"""Samples of a peer, or of a stage that makes one at a time, between two looks at the clock."""

_AHEAD = 6
"""Batches that the stream may have ready."""

MONAI, BATCHGENERATORS = "MONAI", "batchgeneratorsv2"
STREAM = "batches (tf.data)"
ALL = "batches to augmented"
SAME = "patch only, the peers' augmentations: "
"""Before the name of a stage that does what the peers do, and no more."""

PEERS_LIST = {
    "rotation": {"probability": 0.2},
    "scaling": {"probability": 0.2},
    "gaussian_noise": {"probability": 0.1},
    "blur": {"probability": 0.2, "sequence_probability": 1.0},
    "brightness": {"probability": 0.15},
    "contrast": {"probability": 0.15},
    "low_resolution": {"probability": 0.25, "sequence_probability": 1.0},
    "inverted_gamma": {"probability": 0.1},
    "natural_gamma": {"probability": 0.3},
}
"""What `data_pipelines.speed.peers` asks of MONAI and batchgeneratorsv2; mirrored with 0.5 too."""


def synthetic_store(folder: Path, data: Mapping[str, Any]) -> "PreparedIndex":
    """Writes a few synthetic patients at the config's spacing and builds their store."""
    from data_pipelines.store.build import build_store
    from gmmas_jax.cases.manifest import read_manifest
    from gmmas_jax.cli.synthetic_cohort import write_synthetic_cohort

    depth, height, width = data["whole"]
    manifest = write_synthetic_cohort(
        folder / "patients", patients=_PATIENTS, seed=0, spacing_mm=data["spacing_mm"], workers=1
    )
    return build_store(
        read_manifest(manifest),
        manifest.parent,
        folder / "store",
        spacing_mm=data["spacing_mm"],
        whole=(depth, height, width),
        workers=0,
    ).index


def measure_data(
    config: Mapping[str, Any], store: Path | None, *, rounds: int, peers: bool
) -> dict[str, Any]:
    """Times every stage and every side in turn.

    Args:
        config: Of an experiment; patch, batch size and augmentations are its own.
        store: Cases to read; None for a few synthetic patients.
        rounds: Measurements of each.
        peers: Whether MONAI and batchgeneratorsv2 make the same input in the same run.

    Returns:
        JSON-able: machine, settings, `stages` and `peers`, each with samples/s.

    Raises:
        UserError: If the store cannot be used, or a peer is not installed.
    """
    from gmmas_jax.cli.training_store import open_store
    from gmmas_jax.measure import alternate, machine_facts

    facts = machine_facts()
    with tempfile.TemporaryDirectory() as folder:
        data = config["data"]
        index = synthetic_store(Path(folder), data) if store is None else open_store(store, data)
        runs = _stages(index, config)
        if peers:
            runs |= _same(index, data)
        stages = list(runs)
        if peers:
            runs |= _peers(index, data)
        samples = {name: count for name, (_, count) in runs.items()}
        # By itself: in turn with others it would fill its buffers while they are timed.
        streams = [name for name in runs if name.endswith(STREAM)]
        times = {name: _stream_seconds(runs.pop(name)[0], rounds) for name in streams}
        times |= alternate({name: run for name, (run, _) in runs.items()}, rounds=rounds, warm_up=2)
    rates = {
        name: {
            # Of all rounds together: random augmentations are rare and dear, a median misses them.
            "samples_per_s": samples[name] * rounds / sum(seconds),
            "least": samples[name] / max(seconds),
            "greatest": samples[name] / min(seconds),
            "rounds": rounds,
        }
        for name, seconds in times.items()
    }
    facts["load_after"] = [round(value, 2) for value in os.getloadavg()]
    return {
        "date": datetime.date.today().isoformat(),
        "machine": facts,
        "config": config["name"],
        "patch": list(data["patch"]),
        "batch_size": data["batch_size"],
        "stages": {name: rates[name] for name in stages},
        "peers": {name: rate for name, rate in rates.items() if name not in stages},
    }


def _stream_seconds(draw: Callable[[], object], rounds: int) -> list[float]:
    """Returns the seconds of each batch, once those that were made ahead are used up."""
    seconds = []
    for _ in range(_AHEAD + rounds):
        start = time.perf_counter()
        draw()
        seconds.append(time.perf_counter() - start)
    return seconds[_AHEAD:]


def _stages(
    index: "PreparedIndex", config: Mapping[str, Any]
) -> dict[str, tuple[Callable[[], object], int]]:
    """Returns each stage's function, and how many samples it makes a call."""
    import jax

    from data_pipelines.speed.ours import batches, crop_sampler

    data, tasks = config["data"], config["objective"]["tasks"]
    stream = batches(index, data, tasks, workers=len(os.sched_getaffinity(0)))
    host, size = next(stream), data["batch_size"]
    crop, mix = (crop_sampler(index, data, cutmix=cutmix) for cutmix in (False, True))
    return {
        "crop": (_repeat(crop), _GROUP),
        "crop with Tumor-CutMix": (_repeat(mix), _GROUP),
        "to the device": (lambda: jax.block_until_ready(jax.device_put(host)), size),
        **_augmented(stream, host, config["augment"], size),
    }


def _same(
    index: "PreparedIndex", data: Mapping[str, Any]
) -> dict[str, tuple[Callable[[], object], int]]:
    """Returns the stages that make what the peers make: no whole volume, their augmentations."""
    from data_pipelines.speed.ours import patch_batches
    from gmmas_jax.config import base_config, to_dict

    section = to_dict(base_config())["augment"]
    section |= {"flip": (0.5, 0.5, 0.5), "intensity_scale": 0.0, "intensity_shift": 0.0}
    section |= {name: section[name] | changes for name, changes in PEERS_LIST.items()}
    stream = patch_batches(index, data, workers=len(os.sched_getaffinity(0)))
    stages = _augmented(stream, next(stream), section, data["batch_size"])
    return {SAME + name: stage for name, stage in stages.items()}


def _augmented(
    stream: Iterator[Any], host: Any, section: Mapping[str, Any], size: int
) -> dict[str, tuple[Callable[[], object], int]]:
    """Returns the stream, the augmentation, and both together."""
    import jax

    from gmmas_jax.augment.examples import widen
    from gmmas_jax.augment.patch import make_augmentation

    augmentation = make_augmentation(**section)

    @jax.jit
    def augment(key: Any, batch: Any) -> Any:
        return widen(batch if augmentation is None else augmentation(key, batch))

    device = jax.device_put(host)
    keys = iter(range(2**31))

    def augmented(batch: Any) -> None:
        jax.block_until_ready(augment(jax.random.key(next(keys)), batch))

    return {
        STREAM: (lambda: next(stream), size),
        "augment": (lambda: augmented(device), size),
        ALL: (lambda: augmented(jax.device_put(next(stream))), size),
    }


def _peers(
    index: "PreparedIndex", data: Mapping[str, Any]
) -> dict[str, tuple[Callable[[], object], int]]:
    from data_pipelines.speed.ours import peer_arrays
    from data_pipelines.speed.peers import batchgenerators_sampler, monai_sampler

    cases = peer_arrays(index)
    runs: dict[str, tuple[Callable[[], object], int]] = {}
    for name, make in ((MONAI, monai_sampler), (BATCHGENERATORS, batchgenerators_sampler)):
        try:
            for what, augment in (("crop", False), (ALL, True)):
                sampler = make(cases, data["patch"], augment=augment)
                runs[f"{name}, {what}"] = (_repeat(sampler), _GROUP)
        except ImportError as error:
            raise UserError(
                f"--peers needs {name}, which cannot be imported ({error}); expected it beside "
                "this program. Install it into an environment of its own that sees this one's "
                "packages (benchmarks/README.md says how), or leave out --peers."
            ) from error
    return runs


def _repeat(sample: Callable[[], None]) -> Callable[[], None]:
    def group() -> None:
        for _ in range(_GROUP):
            sample()

    return group


def page(result: Mapping[str, Any]) -> str:
    """Writes the result as Markdown."""
    lines = [
        f"# Training input of {result['config']}, {result['date']}",
        "",
        "| machine | |",
        "| --- | --- |",
        *(f"| {name.replace('_', ' ')} | {value} |" for name, value in result["machine"].items()),
        "",
        f"Patches of {'x'.join(map(str, result['patch']))} voxels with 4 sequences and their "
        f"label, batches of {result['batch_size']}; samples per second, all stages and sides in "
        "turn but the batches of tf.data, which make some ahead.",
        "",
        "| | mean | least | greatest | rounds |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, rate in {**result["stages"], **result["peers"]}.items():
        numbers = " | ".join(f"{rate[key]:.1f}" for key in ("samples_per_s", "least", "greatest"))
        lines.append(f"| {name} | {numbers} | {rate['rounds']} |")
    if result["peers"]:
        lines += ["", *_comparison(result)]
    return "\n".join(lines) + "\n"


def _comparison(result: Mapping[str, Any]) -> list[str]:
    """Writes two ratios for each peer, and what differs."""
    stages = result["stages"]
    same, own = (stages[name]["samples_per_s"] for name in (SAME + ALL, ALL))
    heads = (
        (
            "(a) same crops + same augmentations (patch only, what MONAI and batchgeneratorsv2 do "
            "as well, same probabilities, same dtype output)",
            same,
        ),
        (
            f"(b) ours as configs/{result['config']}.py runs it, with the whole volume beside the "
            "patch",
            own,
        ),
    )
    lines = ["Samples per second of ours over those of the peer, both from crop to augmented:", ""]
    for head, ours in heads:
        lines += [f"{head}:", ""]
        for name, rate in result["peers"].items():
            if name.endswith(ALL):
                peer = name.removesuffix(f", {ALL}")
                lines.append(f"- {peer}: {ours / rate['samples_per_s']:.2f}")
        lines.append("")
    return [
        *lines,
        "What differs. All: peers hold the cases in memory as float32 and make one sample at a "
        "time; ours maps float16 from disk and makes batches; images leave as float32. MONAI draws "
        "one number for all sequences, the others one for each; the indices of the tumour, from "
        "which it crops, are found once and cached. What turns out of the patch is 0 in MONAI and "
        "in (a), and a low resolution averages in ours, where the peers resample. (a) mirrors "
        "along three axes and blurs all sequences alike in all three. (b) makes the whole volume "
        "besides, and augments it; it has the config's own list, with what that adds "
        "(bias fields, thick slices in configs/gmmas.py) and leaves out (mirroring left-right "
        "alone, blur and low resolution of half of the sequences).",
    ]
