"""`gmmas demo`: the main job from nothing to a report."""

import argparse
from pathlib import Path

SUMMARY = "generate patients, train, evaluate, predict and report, on this machine"
EXAMPLE = "gmmas demo --out gmmas-demo --case my-patient"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("gmmas-demo"),
        metavar="DIR",
        help="output folder (default gmmas-demo)",
    )
    parser.add_argument(
        "--case", type=Path, metavar="DIR", help="predict the real case in this folder too"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="of patients and training (default 0)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Runs the demo; what is done already is kept."""
    from gmmas_jax.cli.demonstration import demonstrate

    demonstrate(arguments.out, case=arguments.case, seed=arguments.seed)
