"""A training run in miniature: network, batches and config, in this process or in one of its own.

As a program: `python dummy_training.py '{"runs": [{"workdir": …, "config": {…}}], "devices": 8}'`.
"""

import json
import sys
import time

import numpy as np
from flax import linen as nn

PATCH, WHOLE = (8, 8, 8), (4, 4, 4)
TASKS = {"idh": 2, "histology": 3}
CASES = 20


class DummyNet(nn.Module):
    """Two convolutions, dropout, three heads: the smallest thing that meets the interface."""

    width: int = 8
    batch_norm: bool = False
    dropout: float = 0.2

    @nn.compact
    def __call__(self, image, present, whole, box, *, train):
        encoder = nn.Conv(self.width, (3, 3, 3), name="encoder")
        features = encoder(image * present[:, None, None, None, :])
        if self.batch_norm:
            features = nn.BatchNorm(use_running_average=not train, name="norm")(features)
        features = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(features))
        coarse = nn.relu(encoder(whole * present[:, None, None, None, :]))
        pooled = features.mean((1, 2, 3)) + coarse.mean((1, 2, 3)) + box.mean((1, 2))[:, None]
        return {
            "segmentation": nn.Conv(4, (1, 1, 1), name="decoder")(features),
            "segmentation_deep": (),
            "segmentation_whole": nn.Conv(4, (1, 1, 1), name="global_unet")(coarse),
            "pooled": dict.fromkeys(TASKS, pooled),
            "tasks": {t: nn.Dense(k, name=f"classifier_{t}")(pooled) for t, k in TASKS.items()},
        }


def example(seed, counter):
    """Makes the example of a counter, with some labels missing."""
    generator = np.random.default_rng([seed, counter])
    label = generator.integers(0, 4, PATCH).astype(np.int32)
    bright = label[..., None] * np.asarray([1.0, -1.0, 0.5, 2.0])
    image = (bright + generator.normal(size=(*PATCH, 4))).astype(np.float32)
    return {
        "image": image,
        "present": np.asarray([1, 1, counter % 2, 1], np.float32),
        "whole": image[::2, ::2, ::2],
        "box": np.asarray([[0, 0, 0], [1, 1, 1]], np.float32),
        "label": label,
        "whole_label": label[::2, ::2, ::2],
        "label_valid": np.float32(counter % 5 != 0),
        "targets": {t: np.eye(k, dtype=np.float32)[counter % k] for t, k in TASKS.items()},
        "target_valid": {"idh": np.float32(counter % 3 != 0), "histology": np.float32(1)},
        "case_index": np.int32(counter % CASES),
    }


def make_batches(batch_size, *, seed=0, process=0, processes=1, poisoned=()):
    """Returns the iterator factory; the images of `poisoned` steps are NaN."""
    import jax

    local = batch_size // processes

    def batches(start_step):
        step = start_step
        while True:
            first = step * batch_size + process * local
            rows = [example(seed, counter) for counter in range(first, first + local)]
            batch = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
            if step in poisoned:
                batch["image"] = np.full_like(batch["image"], np.nan)
            yield batch
            step += 1

    return batches


def make_config(**changes):
    """Returns a config; changes are given as `train__steps=6`."""
    config = {
        "seed": 7,
        "model": {"width": 8, "batch_norm": False},
        "data": {"patch": list(PATCH), "whole": list(WHOLE), "batch_size": 8},
        "objective": {"tasks": list(TASKS), "dice_over": "regions", "cross_entropy_weight": 1.0},
        "optimizer": {
            "name": "adamw",
            "learning_rate": 0.01,
            "schedule": "poly",
            "warmup_steps": 2,
            "weight_decay": 0.01,
            "clip_norm": 1.0,
        },
        "train": {
            "steps": 6,
            "log_every": 2,
            "checkpoint_every": 3,
            "ema_decay": 0.9,
            "max_nonfinite": 3,
            "split_above_bytes": 1024,
        },
        "mesh": {"data": -1, "fsdp": 1},
    }
    for name, value in changes.items():
        section, _, field = name.partition("__")
        if field:
            config[section][field] = value
        else:
            config[section] = value
    return config


def train(config, workdir, *, poisoned=(), stop_after=None, pause=0.0, **arguments):
    """Runs training; `stop_after` ends it without ceremony before that many batches were given."""
    import jax

    from gmmas_jax.objectives.combine import make_objective
    from gmmas_jax.train.run import run_training

    batches = make_batches(
        config["data"]["batch_size"],
        process=jax.process_index(),
        processes=jax.process_count(),
        poisoned=poisoned,
    )

    def slow(start):
        for number, batch in enumerate(batches(start)):
            if number == stop_after:
                raise InterruptedError("stopped by the test")
            time.sleep(pause)
            yield batch

    return run_training(
        config=config,
        model=DummyNet(**config["model"]),
        objective=make_objective(**config["objective"]),
        batches=slow,
        case_name=lambda index: f"case-{index:02d}",
        workdir=workdir,
        **arguments,
    )


def main():
    """Runs what the first argument says and prints how each run ended."""
    request = json.loads(sys.argv[1])
    import jax

    jax.config.update("jax_num_cpu_devices", request.get("devices", 1))
    jax.config.update("jax_numpy_rank_promotion", "raise")
    from gmmas_jax.train import distributed

    distributed.initialize(request.get("mode", "none"))
    for run in request["runs"]:
        config = make_config(**run["config"])
        result = train(config, run["workdir"], pause=request.get("pause", 0))
        if jax.process_index() == 0:
            heavy = sorted({"tensorflow", "torch", "flax.nnx", "nibabel"} & set(sys.modules))
            ended = {"step": result.step, "preempted": result.preempted, "heavy": heavy}
            print(json.dumps(ended), flush=True)


if __name__ == "__main__":
    main()
