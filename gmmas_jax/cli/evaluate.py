"""`gmmas evaluate`: how good the weights are on labelled cases."""

import argparse
from pathlib import Path

from gmmas_jax.cli.network_options import add_network_options, load_predictor

SUMMARY = "measure weights on a labelled cohort: scores, intervals, figures"
EXAMPLE = "gmmas evaluate --weights weights --cohort cohort.csv --out evaluation"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    add_network_options(parser)
    parser.add_argument(
        "--cohort", type=Path, required=True, metavar="CSV", help="manifest, cohort.csv"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument(
        "--split",
        default="test",
        choices=("train", "val", "test", "all"),
        help="rows of the manifest to take (default test)",
    )
    parser.add_argument(
        "--subset-cases",
        type=int,
        metavar="N",
        help="measure the 15 subsets of the sequences on the first N cases (default all, which "
        "takes up to 15 times as long as 0)",
    )
    parser.add_argument(
        "--log", type=Path, metavar="FILE", help="metrics.jsonl of the training, for its curves"
    )


def run(arguments: argparse.Namespace) -> None:
    """Evaluates, and prints a short table."""
    from gmmas_jax.cli.cohort_evaluation import evaluate, short_table

    predictor = load_predictor(arguments.weights, flips=arguments.flips)
    metrics = evaluate(
        predictor,
        arguments.cohort,
        arguments.out,
        split=None if arguments.split == "all" else arguments.split,
        subset_cases=arguments.subset_cases,
        log=arguments.log,
    )
    print(short_table(metrics))
    print(f"report: {arguments.out / 'report.html'}")
