"""The options of every verb that runs trained weights, and what they stand for."""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gmmas_jax.export.shipped import NAMES, best, shipped_folder

if TYPE_CHECKING:
    from gmmas_jax.export.weights import Weights
    from gmmas_jax.inference.predictor import Predictor

_TRAINING = {
    "generated": "trained on generated patients alone",
    "patients": "trained on patients",
    "unknown": "what they were trained on is not stated",
}


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Declares which weights to run, and how."""
    parser.add_argument(
        "--weights",
        metavar="W",
        help=f"folder of weights, or the name of some that come with gmmas: {' or '.join(NAMES)} "
        "(default: mini, which was measured better, where it is there)",
    )
    parser.add_argument(
        "--flips",
        action="store_true",
        default=None,
        help="average with the prediction of the mirrored brain; takes twice as long",
    )


def load_predictor(
    weights: str | None, *, flips: bool | None = None, experimental: bool = True
) -> "Predictor":
    """Loads the weights that were asked for, or the best shipped ones, and says which.

    Args:
        weights: `--weights`; None for the best of the shipped ones.
        flips: See `Predictor`.
        experimental: Whether answers that are no evidence will be shown; if not, time is saved by
            not estimating how uncertain they are.

    Raises:
        UserError: If there are no such weights or they are damaged.
    """
    from gmmas_jax.clinical.abstention import evidence_of
    from gmmas_jax.inference.predictor import Predictor

    if weights is None:
        weights = best()
    loaded = open_weights(weights)
    evidence = evidence_of(
        loaded.config["model"].get("tasks", {}),
        trained_on=loaded.trained_on,
        experimental=experimental,
    )
    predictor = Predictor(loaded, flips=flips, samples=0 if evidence.withheld else None)
    what = f"{weights}, which come with gmmas" if loaded.name else weights
    print(
        f"weights: {what} (config {predictor.identity['config']}, sha256 {loaded.sha256[:12]}…, "
        f"{_TRAINING[loaded.trained_on]})",
        file=sys.stderr,
        flush=True,
    )
    return predictor


def open_weights(weights: str) -> "Weights":
    """Loads weights by the name under which they come with the program, or by their folder.

    Raises:
        UserError: If there are no such weights or they are damaged.
    """
    from gmmas_jax.export.weights import load_weights

    if weights in NAMES:
        loaded = load_weights(shipped_folder(weights), check_network=False)
        return dataclasses.replace(loaded, name=weights)
    return load_weights(Path(weights))
