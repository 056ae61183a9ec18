"""`gmmas export`: weights of a run's checkpoint, for use elsewhere."""

import argparse
from pathlib import Path

from gmmas_jax.errors import UserError

SUMMARY = "write the weights of a run or a checkpoint in an open format"
EXAMPLE = (
    "gmmas export runs/mini --format safetensors --dtype bfloat16 --out mini "
    "--config.inference.min_island_ml=0.3"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument(
        "checkpoint",
        type=Path,
        metavar="CKPT",
        help="a run's folder, its folder of checkpoints, or one checkpoint",
    )
    parser.add_argument(
        "--format",
        choices=("safetensors",),
        default="safetensors",
        help="what to write (default safetensors)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="what kernels are stored as; bfloat16 halves the file (default float32)",
    )
    parser.add_argument(
        "--start-share",
        type=float,
        default=0.0,
        metavar="S",
        help="average with the weights that training began with, which get this share, such as "
        "0.5: keeps more of what they could do that the new patients did not ask for (default 0)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument(
        "--trained-on",
        choices=("generated", "patients"),
        help="for a checkpoint of a version that did not record it",
    )
    parser.set_defaults(takes_overrides=True)


def run(arguments: argparse.Namespace) -> None:
    """Writes the weights, and says how large they are."""
    overrides = arguments.overrides or []
    foreign = [override for override in overrides if not override.startswith("inference.")]
    if foreign:
        raise UserError(
            f"--config.{foreign[0]}: what the weights were trained with cannot be changed any "
            "more; expected a field of inference, such as --config.inference.overlap=0.5."
        )
    from gmmas_jax.cli.exporting import export_checkpoint

    written = export_checkpoint(
        arguments.checkpoint,
        arguments.out,
        dtype=arguments.dtype,
        start_share=arguments.start_share,
        overrides=overrides,
        trained_on=arguments.trained_on,
    )
    print(written)
