"""Times the mini network in JAX against the same network in PyTorch, in one run.

    python -m benchmarks.mini_vs_pytorch

First the parameters of one are copied to the other, and outputs, loss and gradients compared with
PyTorch's in float64: what is timed is the same function. Then both sides run in turn, A B A B. See
`README.md`.
"""

import argparse
import copy
import datetime
import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.against_pytorch import LIMIT, POINTS, difference, moved, timed, times_table
from benchmarks.machine import save_result
from benchmarks.pytorch_mini import MiniGMMAS, Objective, torch_layout
from gmmas_jax.config import load_config
from gmmas_jax.measure import machine_facts
from gmmas_jax.models.build import make_model
from gmmas_jax.models.gmmas import GMMAS
from gmmas_jax.objectives.combine import make_objective
from gmmas_jax.train.optimizer import decay_mask, make_optimizer
from gmmas_jax.train.state import compile_init, make_init_fn
from gmmas_jax.train.step import make_loss_fn, make_train_step, whole_batch_gradient

CHANNELS_LAST, CONTIGUOUS = torch.channels_last_3d, torch.contiguous_format
FORMATS = {"pytorch": CONTIGUOUS, "pytorch, channels last": CHANNELS_LAST}
INPUTS = ("image", "present", "whole", "box")


def make_batch(config: dict[str, Any]) -> dict[str, Any]:
    """A batch of random intensities with a box of every tumour class, all of it labelled."""
    rng = np.random.default_rng(0)
    batch, patch, whole = (config["data"][name] for name in ("batch_size", "patch", "whole"))

    def label(shape: tuple[int, ...]) -> np.ndarray:
        values = np.zeros((batch, *shape), np.int32)
        for code, (first, last) in {2: (4, 12), 1: (6, 10), 3: (7, 9)}.items():
            part = tuple(slice(n * first // 16, n * last // 16) for n in shape)
            values[(slice(None), *part)] = code
        return values

    tasks = config["model"]["tasks"]
    return {
        "image": rng.normal(size=(batch, *patch, 4)).astype(np.float32),
        "present": np.ones((batch, 4), np.float32),
        "whole": rng.normal(size=(batch, *whole, 4)).astype(np.float32),
        "box": np.tile(np.array([[0.2, 0.1, 0.3], [0.7, 0.6, 0.9]], np.float32), (batch, 1, 1)),
        "label": label(patch),
        "whole_label": label(whole),
        "label_valid": np.ones(batch, np.float32),
        "targets": {t: np.eye(k, dtype=np.float32)[np.arange(batch) % k] for t, k in tasks.items()},
        "target_valid": {t: np.ones(batch, np.float32) for t in tasks},
    }


def to_torch(batch: Any) -> Any:
    """Brings a batch to PyTorch: channels first, classes as int64."""

    def convert(values: np.ndarray) -> torch.Tensor:
        values = np.moveaxis(values, -1, 1) if values.ndim == 5 else values
        values = values.astype(np.int64) if values.dtype == np.int32 else values
        return torch.from_numpy(np.ascontiguousarray(values))

    return jax.tree.map(convert, batch)


class Jax:
    """The project's own side, as training and prediction run it."""

    def __init__(self, config: dict[str, Any], batch: dict[str, Any]) -> None:
        self.model: GMMAS = make_model(**config["model"])
        objective = make_objective(**config["objective"])
        optimizer = make_optimizer(steps=config["train"]["steps"], **config["optimizer"])
        init = make_init_fn(
            model=self.model,
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
        self.params = self.points[0]
        self.state = self.state.replace(params=jax.tree.map(jnp.copy, self.params))
        self.batch, self.objective = batch, objective
        loss_fn = make_loss_fn(model=self.model, objective=objective)
        step = make_train_step(
            gradient_fn=whole_batch_gradient(loss_fn), optimizer=optimizer, seed=0
        )
        self._step = jax.jit(step, donate_argnums=0)
        self._global = jax.jit(functools.partial(self.model.apply, method="global_features"))
        self._patch = jax.jit(functools.partial(self.model.apply, method="patch"))
        self._evaluate = jax.jit(jax.value_and_grad(self._loss, has_aux=True))

    def _loss(self, params: Any) -> tuple[jax.Array, Any]:
        inputs = [self.batch[name] for name in INPUTS]
        outputs: Any = self.model.apply({"params": params["model"]}, *inputs, train=False)
        return self.objective(params["objective"], outputs, self.batch)[0], outputs

    def evaluate(self, params: Any) -> tuple[Any, float, Any]:
        """Returns outputs, loss and gradients without dropout."""
        (value, outputs), gradients = self._evaluate(params)
        return outputs, float(value), gradients

    def train(self) -> None:
        """One training step on the same batch."""
        self.state, metrics = self._step(self.state, self.batch)
        jax.block_until_ready((self.state, metrics))

    def predict(self, window: dict[str, Any]) -> Any:
        """Predicts one case from its prepared arrays."""
        variables = {"params": self.params["model"]}
        features = self._global(variables, window["whole"], window["present"])
        outputs = self._patch(
            variables, window["image"], window["present"], features, window["box"]
        )
        return jax.device_get((outputs["segmentation"], outputs["tasks"]))


class Torch:
    """The same network and step in PyTorch."""

    def __init__(
        self,
        config: dict[str, Any],
        batch: Any,
        params: Any,
        memory_format: torch.memory_format,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.network = MiniGMMAS(config["model"])
        self.objective = Objective(config["objective"]).to(dtype)
        self.network.load_state_dict(torch_layout(self.network, params["model"]))
        self.network.to(dtype=dtype, memory_format=memory_format)
        self.frozen = copy.deepcopy(self.network).eval()
        self.memory_format, self.dtype = memory_format, dtype
        self.batch = self._place(batch)
        self.clip_norm = config["optimizer"]["clip_norm"]
        decays = torch_layout(self.network, _full_mask(params["model"]))
        named = list(self.network.named_parameters())
        kept = [p for name, p in named if not decays[name].any()] + [*self.objective.parameters()]
        groups = [
            {"params": [p for name, p in named if decays[name].any()]},
            {"params": kept, "weight_decay": 0.0},
        ]
        options = config["optimizer"]
        self.optimizer = torch.optim.AdamW(
            groups,
            lr=options["learning_rate"] / options["warmup_steps"],
            weight_decay=options["weight_decay"],
            fused=True,
        )

    def _place(self, batch: Any) -> Any:
        def place(x: torch.Tensor) -> torch.Tensor:
            x = x.to(self.dtype) if x.is_floating_point() else x
            return x.contiguous(memory_format=self.memory_format) if x.ndim == 5 else x

        return jax.tree.map(place, batch)

    def parameters(self) -> list[torch.nn.Parameter]:
        """All parameters, the objective's included."""
        return [*self.network.parameters(), *self.objective.parameters()]

    def evaluate(self, params: Any) -> tuple[Any, float, dict[str, torch.Tensor]]:
        """Returns outputs, loss and the network's gradients without dropout."""
        self.frozen.load_state_dict(torch_layout(self.frozen, params["model"]))
        self.objective.load_state_dict(torch_layout(self.objective, params["objective"]))
        self.frozen.zero_grad()
        outputs = self.frozen(*(self.batch[name] for name in INPUTS))
        loss = self.objective(outputs, self.batch)
        loss.backward()
        self.objective.zero_grad()
        gradients = {name: p.grad for name, p in self.frozen.named_parameters()}
        return outputs, float(loss.detach()), gradients

    def train(self) -> None:
        """One training step on the same batch."""
        self.network.train()
        outputs = self.network(*(self.batch[name] for name in INPUTS))
        loss = self.objective(outputs, self.batch)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters(), self.clip_norm)
        self.optimizer.step()
        float(loss.detach())

    @torch.inference_mode()
    def predict(self, window: Any) -> Any:
        """Predicts one case from its prepared arrays."""
        window = self._place(window)
        outputs = self.frozen(*(window[name] for name in INPUTS))
        return outputs["segmentation"].numpy(), {k: v.numpy() for k, v in outputs["tasks"].items()}


def _full_mask(params: Any) -> Any:
    return jax.tree.map(
        lambda leaf, decays: np.full(leaf.shape, float(decays), np.float32),
        params,
        decay_mask(params),
    )


def compare(ours: Jax, reference: Torch) -> dict[str, float]:
    """Returns the largest differences between both networks, relative to the largest value.

    An activation that rounding carries over the kink of a leaky ReLU, or past its neighbour in a
    maximum, alters the gradients of all that lies behind it, by a thousandth and more where
    volumes are small. Not every point has one; a fault would show at all of them. So the networks
    are the same if they agree at one.

    Args:
        ours: In float32.
        reference: In float64.

    Raises:
        SystemExit: If they are not the same function.
    """
    count = sum(leaf.size for leaf in jax.tree.leaves(ours.params))
    other = sum(parameter.numel() for parameter in reference.parameters())
    tried = []
    for params in ours.points:
        tried.append(_differences(ours, reference, params))
        if count == other and max(tried[-1].values()) < LIMIT:
            return {"parameters": count, **tried[-1]}
    raise SystemExit(f"Not the same network: {count} and {other} parameters, {tried}")


def _differences(ours: Jax, reference: Torch, params: Any) -> dict[str, float]:
    outputs, loss, gradients = ours.evaluate(params)
    torch_outputs, torch_loss, torch_gradients = reference.evaluate(params)
    found = {"loss": abs(loss - torch_loss) / abs(torch_loss)}
    for name in ("segmentation", "segmentation_whole"):
        values = torch_outputs[name].detach().movedim(1, -1).numpy()
        found[name] = difference(np.asarray(outputs[name]), values)
    for task, values in torch_outputs["tasks"].items():
        found[task] = difference(np.asarray(outputs["tasks"][task]), values.detach().numpy())
    values = torch_layout(reference.frozen, gradients["model"])
    found["gradients"] = max(
        difference(values[name].numpy(), gradient.numpy())
        for name, gradient in torch_gradients.items()
    )
    return found


def measure(rounds: int) -> dict[str, Any]:
    """Compares and times both sides."""
    facts = machine_facts()
    torch.set_num_threads(facts["cores"])
    config = load_config("configs/gmmas_mini.py").to_dict()
    batch = make_batch(config)
    ours = Jax(config, batch)
    reference = Torch(config, to_torch(batch), ours.params, CONTIGUOUS, torch.float64)
    differences = compare(ours, reference)
    sides = {
        name: Torch(config, to_torch(batch), ours.params, memory_format)
        for name, memory_format in FORMATS.items()
    }
    window = {name: values[:1] for name, values in batch.items() if name in INPUTS}
    shape = (1, *config["inference"]["window"], 4)
    window["image"] = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    torch_window = to_torch(window)
    work: dict[str, dict[str, Callable[[], object]]] = {
        "training step": {"jax": ours.train} | {n: side.train for n, side in sides.items()},
        "whole-case prediction": {"jax": functools.partial(ours.predict, window)}
        | {name: functools.partial(side.predict, torch_window) for name, side in sides.items()},
    }
    times = {name: timed(runs, rounds=rounds) for name, runs in work.items()}
    facts["load_after"] = [round(value, 2) for value in os.getloadavg()]
    return {
        "date": datetime.date.today().isoformat(),
        "machine": facts,
        "config": "configs/gmmas_mini.py",
        "batch": [config["data"]["batch_size"], *config["data"]["patch"]],
        "window": list(config["inference"]["window"]),
        "differences": differences,
        "times": times,
    }


def page(result: dict[str, Any]) -> str:
    """Writes the result as Markdown."""
    machine = result["machine"]
    parts = result["differences"]
    differences = ", ".join(f"{k} {v:.0e}" for k, v in parts.items() if k != "parameters")
    lines = [
        f"# The mini network in JAX and in PyTorch, {result['date']}",
        "",
        "| machine | |",
        "| --- | --- |",
        *(f"| {name.replace('_', ' ')} | {value} |" for name, value in machine.items()),
        "",
        f"Both sides have {parts['parameters']:,} parameters. With the same ones, the largest "
        f"differences from PyTorch in float64, relative to the largest value: {differences}.",
        "",
        *times_table(result["times"]),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs the comparison and writes it to `results/`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--check", action="store_true", help="one round, write nothing")
    arguments = parser.parse_args()
    result = measure(1 if arguments.check else arguments.rounds)
    text = page(result)
    print(text)
    if not arguments.check:
        save_result("mini_vs_pytorch", result, text)


if __name__ == "__main__":
    main()
