"""`gmmas synth`: a cohort of synthetic patients as NIfTI files and `cohort.csv`."""

import argparse
from pathlib import Path

SUMMARY = "write a cohort of synthetic patients (NIfTI files and cohort.csv)"
EXAMPLE = "gmmas synth --out cohort --patients 100 --test 24 --seed 1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument("--patients", type=int, required=True, metavar="N", help="how many")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default 0")
    parser.add_argument(
        "--spacing", type=float, default=2.0, metavar="MM", help="edge of a voxel (default 2)"
    )
    parser.add_argument(
        "--effects",
        choices=("plain", "full"),
        default="plain",
        help="plain: a tidy scanner and textbook tumours, as for the demo; full: what shipped "
        "weights train on (default plain)",
    )
    parser.add_argument(
        "--healthy",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of the patients that have no tumour (default 0)",
    )
    parser.add_argument(
        "--test", type=int, default=0, metavar="K", help="the first K patients are for testing"
    )
    parser.add_argument(
        "--val", type=int, default=0, metavar="K", help="the next K patients are for validation"
    )
    parser.add_argument(
        "--anatomy",
        type=Path,
        metavar="FILE",
        help="tissue maps (.npz) to deform; made from nilearn's MNI152 in DIR without it",
    )
    parser.add_argument(
        "--workers", type=int, default=2, metavar="N", help="threads that write (default 2)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Writes the cohort; patients that are there already are kept."""
    from gmmas_jax.cli.progress import CaseProgress
    from gmmas_jax.cli.synthetic_cohort import write_synthetic_cohort

    with CaseProgress("synth", arguments.patients) as progress:
        manifest = write_synthetic_cohort(
            arguments.out,
            patients=arguments.patients,
            seed=arguments.seed,
            spacing_mm=arguments.spacing,
            effects=arguments.effects,
            healthy=arguments.healthy,
            test=arguments.test,
            val=arguments.val,
            anatomy_file=arguments.anatomy,
            workers=arguments.workers,
            on_patient=progress.done,
        )
    print(f"{arguments.patients} patients in {arguments.out}; manifest: {manifest}")
