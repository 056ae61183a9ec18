"""`gmmas export-cohort`: a cohort in the layout of another program."""

import argparse
from pathlib import Path

from gmmas_jax.errors import SOME_LEFT_OUT, UserError

SUMMARY = "write a cohort in the layout of nnU-Net, BraTS 2023, BIDS or MONAI"
EXAMPLE = "gmmas export-cohort cohort.csv --layout nnunet --out nnUNet_raw/Dataset501_Glioma"

_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("cohort", type=Path, metavar="CSV", help="manifest, cohort.csv")
    parser.add_argument(
        "--layout",
        required=True,
        choices=("nnunet", "brats2023", "bids", "monai"),
        help="layout to write",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="output folder, new or one that an interrupted export began",
    )
    parser.add_argument(
        "--link",
        action="store_true",
        help="hard links instead of copies, for files that stay as they are",
    )
    parser.add_argument(
        "--fill-missing",
        action="store_true",
        help="for nnunet and monai, which need every sequence: volumes of zeros for absent ones",
    )
    parser.add_argument(
        "--with-skull",
        action="store_true",
        help="for bids, which demands to know it: the images are not skull-stripped",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="a case that cannot be exported is an error (default: leave it out, name it, and end "
        f"with exit code {SOME_LEFT_OUT})",
    )
    parser.add_argument(
        "--workers", type=int, default=2, metavar="N", help="cases written at a time (default 2)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Exports, and prints what is there."""
    from data_pipelines.exporting.export import export_cohort
    from gmmas_jax.cli.progress import CaseProgress

    if arguments.workers < 1:
        raise UserError(f"--workers is {arguments.workers}; expected at least 1.")
    with CaseProgress("export") as progress:
        done = export_cohort(
            arguments.cohort,
            layout=arguments.layout,
            out=arguments.out,
            link=arguments.link,
            fill_missing=arguments.fill_missing,
            with_skull=arguments.with_skull,
            strict=arguments.strict,
            workers=arguments.workers,
            on_case=lambda done, total, case_id: progress.done(done, case_id, total=total),
        )
    again = f" ({done.before} of them were there already)" if done.before else ""
    masks = sum(case.seg is not None for case in done.cases)
    print(f"{len(done.cases)} cases, {masks} with a mask, in {done.out}{again}")
    for title, texts in (("Notes", done.notes), ("Refused", done.refused)):
        if texts:
            print(f"\n{title} ({len(texts)}):")
            for text in texts[:_SHOWN]:
                print(f"  {text}")
            if len(texts) > _SHOWN:
                print(f"  ... and {len(texts) - _SHOWN} more")
    if done.refused:
        raise SystemExit(SOME_LEFT_OUT)
