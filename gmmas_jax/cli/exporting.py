"""What `gmmas export` does: from a checkpoint to a folder of weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gmmas_jax.cli.network_options import open_weights
from gmmas_jax.cli.training import write_trained_weights
from gmmas_jax.config import with_inference
from gmmas_jax.errors import UserError
from gmmas_jax.export.provenance import GENERATED, PATIENTS, SECTION, of_cases, of_stream
from gmmas_jax.export.shipped import write_checksums
from gmmas_jax.export.weights import WEIGHTS_FILE, load_weights
from gmmas_jax.train.checkpoint import load_for_inference

CHECKPOINTS = "checkpoints"


def export_checkpoint(
    checkpoint: Path,
    out: Path,
    *,
    dtype: str = "float32",
    start_share: float = 0.0,
    overrides: Sequence[str] = (),
    trained_on: str | None = None,
) -> str:
    """Writes a checkpoint's weights, the moving average if the run kept one, with card and sha256.

    Args:
        checkpoint: A run's folder, its folder of checkpoints, or one checkpoint; the latest one
            unless it is named.
        out: Folder that receives the weights.
        dtype: See `save_weights`.
        start_share: Of the weights that training began with, in the mean with the checkpoint's; 0
            to below 1. Of networks that were trained on from others the mean is often better than
            either (WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903).
        overrides: `inference.field=value`, changes of how cases are predicted.
        trained_on: For checkpoints that do not say; "generated" or "patients".

    Returns:
        What was written, in a line.

    Raises:
        UserError: If there is no such checkpoint, it does not say what it was trained on, or says
            otherwise than `trained_on`; or as `_with_start`.
    """
    folder, step = _locate(checkpoint)
    variables, meta = load_for_inference(folder, step)
    reached = _step(folder, step)
    config = with_inference(meta["config"], overrides)
    config[SECTION] = _provenance(checkpoint, config, trained_on)
    if start_share:
        variables = _with_start(variables, config, start_share)
        config[SECTION]["start_share"] = start_share
    averaged = config["train"]["ema_decay"] is not None
    parameters = write_trained_weights(
        out, variables, config, steps=reached, averaged=averaged, dtype=dtype
    )
    write_checksums(out)
    # Read back: what was written can be run.
    weights = load_weights(out)
    size = (out / WEIGHTS_FILE).stat().st_size / 1e6
    return (
        f"weights: {out} ({parameters:,} parameters of step {reached}, "
        f"{'moving average' if averaged else 'last step'}, {size:.1f} MB, sha256 {weights.sha256})"
    )


def _with_start(
    variables: Mapping[str, Any], config: Mapping[str, Any], share: float
) -> dict[str, Any]:
    """Returns the mean with the weights that training began with, which get a share.

    Raises:
        UserError: If the share is none, or there are no such weights, or others by now, or the
            network has running statistics: those of a mean are no mean of statistics.
    """
    if not 0 < share < 1:
        raise UserError(f"--start-share is {share:g}; expected a number from 0 to below 1.")
    began = config[SECTION].get("begun_from")
    if not began:
        raise UserError(
            "--start-share: this run began with random weights, and a mean with those is no "
            "network. Leave the option out."
        )
    if variables.get("batch_stats"):
        raise UserError(
            "--start-share: this network has batch norm, whose running statistics would be wrong "
            "for a mean of two networks. Leave the option out."
        )
    name = config["train"]["weights"]
    start = open_weights(name)
    if start.sha256 != began["sha256"]:
        raise UserError(
            f"--start-share: training began with weights of sha256 {began['sha256'][:12]}…, but "
            f"{name} (train.weights) has {start.sha256[:12]}… now. Put the former there."
        )

    def mean(own: Any, first: Any) -> np.ndarray:
        return np.asarray((1 - share) * np.asarray(own) + share * np.asarray(first), np.float32)

    return {**variables, "params": jax.tree.map(mean, dict(variables["params"]), start.params)}


def _locate(checkpoint: Path) -> tuple[Path, int | None]:
    """Returns the folder of checkpoints, and the step if one is named."""
    if (checkpoint / CHECKPOINTS).is_dir():
        return checkpoint / CHECKPOINTS, None
    if checkpoint.name.isdigit():
        return checkpoint.parent, int(checkpoint.name)
    return checkpoint, None


def _step(folder: Path, step: int | None) -> int:
    if step is not None:
        return step
    return max(int(path.name) for path in folder.glob("*") if path.name.isdigit())


def _provenance(checkpoint: Path, config: Mapping[str, Any], given: str | None) -> dict[str, Any]:
    recorded = config.get(SECTION)
    if recorded is None and given is None:
        raise UserError(
            f"{checkpoint}: does not say what it was trained on, as runs of earlier versions do "
            f"not. Say it with --trained-on {GENERATED} (no patient at all) or --trained-on "
            f"{PATIENTS}."
        )
    if recorded is None:
        tasks = config["objective"]["tasks"]
        return of_stream(tasks) if given == GENERATED else of_cases((), tasks)
    if given not in (None, recorded["trained_on"]):
        raise UserError(
            f"{checkpoint}: was trained on {recorded['trained_on']} patients by its own record, "
            f"but --trained-on is {given}. Leave the option out."
        )
    return dict(recorded)
