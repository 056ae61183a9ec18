"""A tiny network with random weights, and tiny heads to predict."""

import copy
from typing import Any
from unittest import mock

import jax
import numpy as np

from gmmas_jax.cases.case import Case, Grid
from gmmas_jax.export.weights import Weights
from gmmas_jax.inference.predictor import Predictor
from gmmas_jax.models.build import make_model
from gmmas_jax.train.state import example_inputs
from tests.models.small import SMALL, random_variables

CONFIG: dict[str, Any] = {
    "name": "tiny",
    "model": SMALL,
    "data": {"spacing_mm": 2.0, "patch": [8, 8, 8], "whole": [8, 8, 8]},
    "inference": {"window": [8, 8, 8], "overlap": 0.5, "flips": False, "samples": 4},
}


def tiny_config(**inference: Any) -> dict[str, Any]:
    """Returns the config with fields of `inference` changed."""
    config = copy.deepcopy(CONFIG)
    config["inference"].update(inference)
    return config


def tiny_weights(**inference: Any) -> Weights:
    """Returns random weights of the tiny network, drawn so that every label occurs."""
    config = tiny_config(**inference)
    model = make_model(**config["model"])
    inputs = example_inputs(config["data"]["patch"], config["data"]["whole"])
    variables = random_variables(model, *inputs, train=False)
    return Weights(jax.tree.map(np.asarray, variables["params"]), {}, config)


def tiny_predictor(**inference: Any) -> Predictor:
    """Returns a predictor of `tiny_weights`, compiled without expensive optimisation."""
    jit, least = jax.jit, {"compiler_options": {"xla_backend_optimization_level": 0}}
    with mock.patch.object(
        jax, "jit", lambda function, **options: jit(function, **options | least)
    ):
        return Predictor(tiny_weights(**inference))


def head(shape: tuple[int, int, int], *, seed: int = 0) -> np.ndarray:
    """Returns float32 [shape]: an ellipsoid of noise with a brighter ball in it, 0 around."""
    axes = [np.linspace(-1.2, 1.2, size) for size in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    rng = np.random.default_rng(seed)
    values = 100 + 20 * rng.normal(size=shape) + 80 * ((x - 0.3) ** 2 + y**2 + z**2 < 0.15)
    return np.where(x**2 + y**2 + z**2 < 1, np.maximum(values, 5), 0).astype(np.float32)


def tiny_case(shape: tuple[int, int, int] = (30, 24, 20), *, without: tuple[str, ...] = ()) -> Case:
    """Returns a case of all sequences but some, at 1 mm."""
    images = {
        name: head(shape, seed=seed)
        for seed, name in enumerate(("t1n", "t1c", "t2w", "t2f"))
        if name not in without
    }
    grid = Grid(shape, np.eye(4))
    return Case("tiny", images, None, grid, grid)
