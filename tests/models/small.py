"""A very small GMMAS in which every part is present, for tests."""

import copy
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gmmas_jax.models.build import make_model
from gmmas_jax.models.gmmas import GMMAS

SMALL: dict[str, Any] = {
    "tasks": {"idh": 2, "histology": 3},
    "num_classes": 4,
    "layers": {
        "dtype": "float32",
        "norm": "group",
        "group_size": 4,
        "initializer": "torch",
        "remat": "none",
        "upsample": "transpose",
    },
    "encoder": {
        "widths": [4, 8],
        "blocks": [1, 1],
        "downsample_branches": 1,
        "stem_stride": 1,
        "stem_dropout": 0.2,
    },
    "transformer": {
        "dim": 24,
        "layers": 1,
        "heads": 2,
        "mlp_dim": 32,
        "positions": "sincos",
        "attention": "xla",
        "dropout": 0.1,
        "attention_dropout": 0.0,
    },
    "global_unet": {
        "widths": [4, 24],
        "blocks": [1, 1],
        "downsample_branches": 1,
        "stem_stride": 1,
        "stem_dropout": 0.2,
        "middle": [12, 16],
    },
    "classifier": {
        "local_width": 4,
        "deep_width": 8,
        "mixed_width": 8,
        "hidden": [8],
        "activation": "gelu",
        "padding": "same",
        "dropout": 0.2,
        "evidence": False,
        "normalize": False,
    },
    "global_alignment": "crop",
    "deep_supervision": 1,
    "detail_width": 0,
    "detail_convolutions": 0,
}

Inputs = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def small_config(**changes: Any) -> dict[str, Any]:
    """Returns SMALL with fields changed; a section given as a dict changes only what it names."""
    config = copy.deepcopy(SMALL)
    for name, value in changes.items():
        if isinstance(value, dict) and name != "tasks":
            config[name].update(value)
        else:
            config[name] = value
    return config


def small_model(**changes: Any) -> GMMAS:
    """Builds the small network with fields changed."""
    return make_model(**small_config(**changes))


def small_inputs(*, batch: int = 2, patch: int = 4, whole: int = 4) -> Inputs:
    """Returns image, present (all), whole and box (the lower half of every axis)."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(batch, patch, patch, patch, 4)).astype(np.float32)
    volume = rng.normal(size=(batch, whole, whole, whole, 4)).astype(np.float32)
    box = np.tile(np.array([[[0.0] * 3, [0.5] * 3]], np.float32), (batch, 1, 1))
    return jnp.asarray(image), jnp.ones((batch, 4)), jnp.asarray(volume), jnp.asarray(box)


def random_variables(model: nn.Module, *inputs: Any, **keywords: Any) -> Any:
    """Variables of the right shapes with random values, none of them 0 or 1 by chance of init.

    Drawn by NumPy: compiling the initialisers would take most of a test's time.
    """
    rng = np.random.default_rng(0)

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = path[-1].key
        if name == "var":
            return jnp.asarray(rng.uniform(0.5, 2.0, leaf.shape), leaf.dtype)
        noise = rng.normal(size=leaf.shape)
        if name in ("scale", "strength"):
            return jnp.asarray(1.0 + 0.3 * noise, leaf.dtype)
        if leaf.ndim < 2:
            return jnp.asarray(0.3 * noise, leaf.dtype)
        fan_in = np.prod(leaf.shape[:-1])
        return jnp.asarray(noise * fan_in**-0.5, leaf.dtype)

    abstract = jax.eval_shape(lambda key: model.init(key, *inputs, **keywords), jax.random.key(0))
    return jax.tree_util.tree_map_with_path(draw, abstract)


def run(function: Callable[..., Any], *arguments: Any) -> Any:
    """Compiles without expensive optimisation, and runs."""
    compiled = jax.jit(function).lower(*arguments)
    return compiled.compile(compiler_options={"xla_backend_optimization_level": 0})(*arguments)
