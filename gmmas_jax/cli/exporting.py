"""What `gmmas export` does: from a checkpoint to a folder of weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
    overrides: Sequence[str] = (),
    trained_on: str | None = None,
) -> str:
    """Writes a checkpoint's weights, the moving average if the run kept one, with card and sha256.

    Args:
        checkpoint: A run's folder, its folder of checkpoints, or one checkpoint; the latest one
            unless it is named.
        out: Folder that receives the weights.
        dtype: See `save_weights`.
        overrides: `inference.field=value`, changes of how cases are predicted.
        trained_on: For checkpoints that do not say; "generated" or "patients".

    Returns:
        What was written, in a line.

    Raises:
        UserError: If there is no such checkpoint, it does not say what it was trained on, or says
            otherwise than `trained_on`.
    """
    folder, step = _locate(checkpoint)
    variables, meta = load_for_inference(folder, step)
    reached = _step(folder, step)
    config = with_inference(meta["config"], overrides)
    config[SECTION] = _provenance(checkpoint, config, trained_on)
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
