"""`gmmas predict`: masks, findings and a report for one case or a cohort."""

import argparse
import os
from pathlib import Path

from gmmas_jax.cli.network_options import add_network_options, load_predictor
from gmmas_jax.cli.preprocess import add_preprocessing_options, check_engine
from gmmas_jax.errors import UserError

SUMMARY = "draw the tumour, estimate its type and write a report, for one case or a cohort"
EXAMPLE = "gmmas predict patient-7 --out patient-7-result"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument(
        "case",
        type=Path,
        metavar="CASE",
        help="folder with the one to four sequences of a case; or a cohort.csv, each of whose "
        "cases gets a folder of its own in DIR",
    )
    add_network_options(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument(
        "--probs", action="store_true", help="also write probabilities.nii.gz, a volume per label"
    )
    parser.add_argument(
        "--label-convention",
        metavar="NAME",
        help="codes of seg.nii.gz, such as brats2021 with 4 for enhancing tumour "
        "(default: 1 NCR, 2 ED, 3 ET, 4 RC)",
    )
    parser.add_argument(
        "--experimental",
        action="store_true",
        help="also report the tumour's type where the weights were trained on generated patients "
        "alone, marked as no evidence; without it such answers are withheld",
    )
    parser.add_argument(
        "--preprocess",
        action="store_true",
        help="CASE is a native exam: co-register, skull-strip and resample it first, and write the "
        "mask on the grid of every sequence too (DIR/native)",
    )
    parser.add_argument(
        "--channel-order",
        metavar="A,B,..",
        help="for files named by channel number: the sequence of 0000, 0001, ..",
    )
    add_preprocessing_options(parser.add_argument_group("with --preprocess"))


def run(arguments: argparse.Namespace) -> None:
    """Predicts, and prints where the results are."""
    if not os.path.exists(arguments.case):  # Path.exists raises where it may not look.
        raise UserError(
            f"{arguments.case}: is not there; expected the folder of one case, or a cohort.csv. "
            "Check the path."
        )
    if arguments.preprocess:
        check_engine()
    predictor = load_predictor(
        arguments.weights, flips=arguments.flips, experimental=arguments.experimental
    )
    predictor.compile_ahead()
    # Imported while the network is being compiled: what draws and reads takes a second.
    from gmmas_jax.cli.case_results import (
        FINDINGS,
        OVERLAY,
        REPORT,
        findings_table,
        predict_cohort,
        predict_folder,
    )
    from gmmas_jax.cli.native_exams import NATIVE, predict_native_cohort, predict_native_folder

    options = {
        "probs": arguments.probs,
        "label_convention": arguments.label_convention,
        "experimental": arguments.experimental,
    }
    if arguments.case.suffix.lower() == ".csv":
        if arguments.preprocess:
            folders = predict_native_cohort(
                arguments.case, predictor, arguments.out, arguments, **options
            )
        else:
            folders = predict_cohort(arguments.case, predictor, arguments.out, **options)
        print(f"{len(folders)} cases in {arguments.out}")
        return
    named = arguments.channel_order
    order = None if named is None else [name.strip() for name in named.split(",")]
    if arguments.preprocess:
        folder = predict_native_folder(
            arguments.case,
            predictor,
            arguments.out,
            arguments,
            channel_order=order,
            **options,
        )
        print(f"masks on the native grids: {folder / NATIVE}")
    else:
        folder = predict_folder(
            arguments.case, predictor, arguments.out, channel_order=order, **options
        )
    print(findings_table(folder / FINDINGS))
    print(f"overlay: {folder / OVERLAY}")
    print(f"findings: {folder / FINDINGS}")
    print(f"report: {folder / REPORT}")
