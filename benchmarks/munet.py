"""Times U-Net and MU-Net in JAX against the same networks in PyTorch, in one run.

    python -m benchmarks.munet

First the parameters of one are copied to the other, and loss and gradients compared with PyTorch's
in float64. Then all sides run in turn: a training step on a batch of slices, and the logits of
every axial slice of a volume. See `README.md`.
"""

import argparse
import copy
import datetime
import functools
import os
from typing import Any

import jax
import numpy as np
import torch

from benchmarks.against_pytorch import LIMIT, POINTS, difference, moved, timed, times_table
from benchmarks.machine import save_result
from benchmarks.pytorch_mini import Objective, torch_layout
from benchmarks.pytorch_unet import UNet
from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.config import load_config
from gmmas_jax.measure import machine_facts
from gmmas_jax.models.build import make_model
from gmmas_jax.objectives.combine import make_objective
from gmmas_jax.train.optimizer import make_optimizer
from gmmas_jax.train.state import compile_init, make_init_fn
from gmmas_jax.train.step import make_loss_fn, make_train_step, whole_batch_gradient

CONFIGS = {"U-Net": "configs/unet2d.py", "MU-Net": "configs/munet.py"}
CHANNELS_LAST, CONTIGUOUS = torch.channels_last, torch.contiguous_format
FORMATS = {"pytorch": CONTIGUOUS, "pytorch, channels last": CHANNELS_LAST}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def make_batch(config: dict[str, Any]) -> dict[str, np.ndarray]:
    """A batch of random slices with a square lesion each."""
    data = config["data"]
    batch, patch = data["batch_size"], tuple(data["patch"])
    label = np.zeros((batch, *patch), np.int32)
    label[:, patch[0] // 4 : patch[0] // 2, patch[1] // 4 : patch[1] // 2] = 1
    draws = np.random.default_rng(0)
    return {
        "image": draws.normal(size=(batch, *patch, len(SEQUENCES))).astype(np.float32),
        "present": np.ones((batch, len(SEQUENCES)), np.float32),
        "whole": np.zeros((batch, *data["whole"], len(SEQUENCES)), np.float32),
        "box": np.tile(np.array([[0.0] * 3, [1.0] * 3], np.float32), (batch, 1, 1)),
        "label": label,
        "whole_label": np.zeros((batch, *data["whole"]), np.int32),
        "label_valid": np.ones(batch, np.float32),
        "targets": {},
        "target_valid": {},
    }


class Jax:
    """The project's own side, as training and prediction run it."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.batch = make_batch(config)
        model = make_model(**config["model"])
        objective = make_objective(**config["objective"])
        optimizer = make_optimizer(steps=config["train"]["steps"], **config["optimizer"])
        init = make_init_fn(
            model=model,
            objective=objective,
            optimizer=optimizer.transformation,
            patch=config["data"]["patch"],
            whole=config["data"]["whole"],
            seed=0,
            use_ema=False,
        )
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        shardings = jax.tree.map(lambda _: sharding, jax.eval_shape(init))
        self.state = compile_init(init, shardings=shardings)()
        self.points = [moved(self.state.params, seed) for seed in range(POINTS)]
        self.variables = jax.tree.map(
            np.array, {"params": self.points[0]["model"], "batch_stats": self.state.batch_stats}
        )
        self.state = self.state.replace(params=self.points[0])
        loss_fn = make_loss_fn(model=model, objective=objective)
        step = make_train_step(
            gradient_fn=whole_batch_gradient(loss_fn), optimizer=optimizer, seed=0
        )
        self._evaluate = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
        self._step = jax.jit(step, donate_argnums=0)
        self._patch = jax.jit(functools.partial(model.apply, method="patch"))

    def evaluate(self, params: Any) -> tuple[float, Any]:
        """Returns loss and gradients of a training step."""
        (loss, _), gradients = self._evaluate(
            params, self.state.batch_stats, self.batch, jax.random.key(0)
        )
        return float(loss), gradients["model"]

    def train(self) -> None:
        """One training step on the same batch."""
        self.state, metrics = self._step(self.state, self.batch)
        jax.block_until_ready((self.state, metrics))

    def predict(self, windows: list[np.ndarray]) -> list[np.ndarray]:
        """Returns the logits of every window [1 x y z s]."""
        present, box = self.batch["present"][:1], self.batch["box"][:1]
        done = [self._patch(self.variables, w, present, {}, box)["segmentation"] for w in windows]
        return list(jax.device_get(done))


class Torch:
    """The same network and step in PyTorch."""

    def __init__(
        self,
        config: dict[str, Any],
        ours: Jax,
        memory_format: torch.memory_format,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        model, options = config["model"], config["optimizer"]
        self.columns = [SEQUENCES.index(name) for name in model["sequences"]]
        network = UNet(
            len(self.columns), model["num_classes"], model["widths"], fusion=model["fusion"]
        )
        self.network = network.to(device=DEVICE, dtype=dtype, memory_format=memory_format)
        self.objective = Objective(config["objective"])
        self.memory_format, self.dtype = memory_format, dtype
        self.image = self._slices(ours.batch["image"])
        self.label = torch.from_numpy(ours.batch["label"].astype(np.int64)).to(DEVICE)
        self.load(ours.variables["params"])
        self.frozen = copy.deepcopy(self.network).eval()
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=options["learning_rate"], weight_decay=0.0, fused=True
        )

    def _slices(self, image: np.ndarray) -> torch.Tensor:
        """Brings [b x y z s] to [b·z s x y]."""
        values = np.moveaxis(image[..., self.columns], 3, 1).reshape(-1, *image.shape[1:3], 2)
        tensor = torch.from_numpy(np.ascontiguousarray(np.moveaxis(values, -1, 1)))
        return tensor.to(DEVICE, self.dtype).contiguous(memory_format=self.memory_format)

    def load(self, params: Any) -> None:
        """Takes parameters of the network in JAX; running statistics stay."""
        self.network.load_state_dict(torch_layout(self.network, params["unet"]), strict=False)

    def loss(self) -> torch.Tensor:
        """Returns the loss of the batch with the batch's own statistics."""
        self.network.train()
        return self.objective.segmentation(self.network(self.image)[..., None], self.label)

    def evaluate(self, params: Any) -> tuple[float, dict[str, torch.Tensor]]:
        """Returns loss and gradients of a training step."""
        self.load(params)
        self.network.zero_grad()
        loss = self.loss()
        loss.backward()
        return float(loss.detach()), {n: p.grad for n, p in self.network.named_parameters()}

    def train(self) -> None:
        """One training step on the same batch."""
        loss = self.loss()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        float(loss.detach())

    @torch.inference_mode()
    def predict(self, windows: list[np.ndarray]) -> list[np.ndarray]:
        """Returns the logits of every window."""
        return [self.frozen(self._slices(window)).cpu().numpy() for window in windows]


def compare(ours: Jax, reference: Torch) -> dict[str, float]:
    """Returns the largest differences, relative to the largest value, at the best of some points.

    One point is enough, and not each will do: see `mini_vs_pytorch.compare`.

    Raises:
        SystemExit: If they are not the same function.
    """
    count = sum(leaf.size for leaf in jax.tree.leaves(ours.variables["params"]))
    other = sum(parameter.numel() for parameter in reference.network.parameters())
    tried = []
    for params in ours.points:
        loss, gradients = ours.evaluate(params)
        expected_loss, expected = reference.evaluate(params["model"])
        values = torch_layout(reference.network, gradients["unet"])
        found = {
            "loss": abs(loss - expected_loss) / abs(expected_loss),
            "gradients": max(
                difference(values[name].numpy(), gradient.cpu().numpy())
                for name, gradient in expected.items()
            ),
        }
        if count == other and max(found.values()) < LIMIT:
            return {"parameters": count, **found}
        tried.append(found)
    raise SystemExit(f"Not the same network: {count} and {other} parameters, {tried}")


def measure(rounds: int, overrides: list[str], slices: int) -> dict[str, Any]:
    """Compares and times both networks on both sides."""
    facts = machine_facts()
    torch.set_num_threads(facts["cores"])
    times, differences = {}, {}
    for name, path in CONFIGS.items():
        config = load_config(path, overrides).to_dict()
        small = load_config(path, ["model.widths=8,16,32", "data.patch=32,32,1"]).to_dict()
        checked = Jax(small)
        differences[name] = compare(checked, Torch(small, checked, CONTIGUOUS, torch.float64))
        ours = Jax(config)
        sides = {n: Torch(config, ours, memory_format) for n, memory_format in FORMATS.items()}
        size = tuple(config["inference"]["window"])
        shape = (1, *size, len(SEQUENCES))
        window = np.random.default_rng(1).normal(size=shape).astype(np.float32)
        windows = [window] * -(-slices // size[2])
        times[f"{name}, training step"] = timed(
            {"jax": ours.train} | {n: side.train for n, side in sides.items()}, rounds=rounds
        )
        times[f"{name}, volume"] = timed(
            {"jax": functools.partial(ours.predict, windows)}
            | {n: functools.partial(side.predict, windows) for n, side in sides.items()},
            rounds=rounds,
        )
    facts["load_after"] = [round(value, 2) for value in os.getloadavg()]
    return {
        "date": datetime.date.today().isoformat(),
        "machine": facts,
        "device": DEVICE,
        "widths": list(config["model"]["widths"]),
        "batch": [config["data"]["batch_size"], *config["data"]["patch"]],
        "slices": slices,
        "differences": differences,
        "times": times,
    }


def page(result: dict[str, Any]) -> str:
    """Writes the result as Markdown."""
    batch, *patch = result["batch"]
    lines = [
        f"# U-Net and MU-Net in JAX and in PyTorch, {result['date']}",
        "",
        "| machine | |",
        "| --- | --- |",
        *(f"| {name.replace('_', ' ')} | {value} |" for name, value in result["machine"].items()),
        "",
        f"On {result['device']}; widths {', '.join(map(str, result['widths']))}; a training step "
        f"sees {batch} slices of {patch[0]}x{patch[1]}, a volume has {result['slices']}.",
        "",
        "With the same parameters, the largest differences from PyTorch in float64, relative to "
        "the largest value (widths 8, 16, 32): "
        + "; ".join(
            f"{name}: loss {found['loss']:.0e}, gradients {found['gradients']:.0e}"
            for name, found in result["differences"].items()
        )
        + ".",
        "",
        *times_table(result["times"]),
        "",
        "Slices a second in training:",
        "",
    ]
    for name, found in result["times"].items():
        if "training" in name:
            rates = ", ".join(f"{k} {batch / t['median_s']:.1f}" for k, t in found["sides"].items())
            lines.append(f"- {name.partition(',')[0]}: {rates}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs the comparison and writes it to `results/`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--slices", type=int, default=155, help="of the volume (155)")
    parser.add_argument("--config", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--check", action="store_true", help="little, write nothing")
    arguments = parser.parse_args()
    if arguments.check:
        little = ["model.widths=8,16,32", "data.batch_size=2"]
        print(page(measure(1, [*little, *arguments.config], slices=8)))
        return
    result = measure(arguments.rounds, arguments.config, arguments.slices)
    text = page(result)
    print(text)
    save_result("munet", result, text)


if __name__ == "__main__":
    main()
