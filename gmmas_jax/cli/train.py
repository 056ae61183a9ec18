"""`gmmas train`: one stage of training, begun or continued in a folder."""

import argparse
from pathlib import Path

from gmmas_jax.errors import UserError

SUMMARY = "train a network on a store or a cohort; the same command again continues"
EXAMPLE = (
    "gmmas train --config configs/gmmas_mini.py --store store --workdir runs/mini "
    "--config.train.steps=2000"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE[:debug]",
        help="the experiment; any field can be changed with --config.SECTION.FIELD=VALUE",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--store", type=Path, metavar="DIR", help="the prepared cases, as `gmmas build` made them"
    )
    source.add_argument(
        "--cohort",
        type=Path,
        metavar="CSV",
        help="the manifest, in place of a store: one is built in the run's folder first",
    )
    source.add_argument(
        "--generated",
        action="store_true",
        help="an endless stream of generated patients in place of cases (needs nilearn once)",
    )
    parser.add_argument(
        "--workdir",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for checkpoints, logs and, at the end, weights/",
    )
    parser.add_argument(
        "--workers", type=int, default=2, metavar="N", help="threads that read (default 2)"
    )
    parser.add_argument(
        "--processes",
        choices=("auto", "local", "none"),
        default="auto",
        help="auto joins the other processes of the cluster that the environment names; local is "
        "a run of one process; none also forgoes saving on SIGTERM (default auto)",
    )
    parser.set_defaults(takes_overrides=True)


def run(arguments: argparse.Namespace) -> None:
    """Trains, and says where the weights are."""
    from gmmas_jax.cli.training import train

    if arguments.workers < 1:
        raise UserError(f"--workers is {arguments.workers}; expected at least 1.")
    outcome = train(
        arguments.config,
        arguments.overrides or (),
        workdir=arguments.workdir,
        store=arguments.store,
        cohort=arguments.cohort,
        generated=arguments.generated,
        processes=arguments.processes,
        workers=arguments.workers,
    )
    if outcome.weights is None:
        print(f"stopped at step {outcome.step}; the same command continues from there")
    else:
        print(f"weights: {outcome.weights}")
