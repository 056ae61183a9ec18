"""`gmmas check`: the integrity report over a manifest."""

import argparse
from contextlib import ExitStack
from pathlib import Path

from gmmas_jax.cli.memory import add_max_memory
from gmmas_jax.errors import UserError

SUMMARY = "find what is wrong with a cohort: files, geometry, labels, duplicates, leakage"
EXAMPLE = "gmmas check cohort.csv --out check.json --against pretraining.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("cohort", type=Path, metavar="COHORT", help="the manifest, cohort.csv")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("check.json"),
        metavar="FILE",
        help="all findings and statistics (default check.json in this folder)",
    )
    parser.add_argument(
        "--against",
        type=Path,
        nargs="+",
        default=[],
        metavar="CSV",
        help="other manifests that should share no person and no image with this one, for example "
        "a pretraining set",
    )
    parser.add_argument(
        "--fail-on",
        choices=("error", "warning"),
        default="error",
        help="exit with code 2 from this level on (default error)",
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes, at most (default: as many as fit)"
    )
    add_max_memory(parser)


def run(arguments: argparse.Namespace) -> None:
    """Checks, prints the report and writes it.

    Raises:
        UserError: If there are errors (or warnings, where they count).
    """
    from data_pipelines.check.cohort import check_cohort
    from data_pipelines.check.report import report_lines
    from gmmas_jax.cases.files import output_folder, write_json
    from gmmas_jax.cli.progress import CaseProgress

    if arguments.workers is not None and arguments.workers < 1:
        raise UserError(f"--workers is {arguments.workers}; expected at least 1.")
    out: Path = arguments.out
    # Before hours of reading.
    output_folder(out.parent)
    if out.is_dir():
        raise UserError(f"--out {out}: is a folder; expected a file. Name one in it: check.json.")
    with ExitStack() as bars:
        shown: dict[Path, CaseProgress] = {}

        def on_case(manifest: Path, done: int, total: int, case_id: str) -> None:
            if manifest not in shown:
                progress = CaseProgress(f"check {manifest.name}", total)
                shown[manifest] = bars.enter_context(progress)
            shown[manifest].done(done, case_id)

        report = check_cohort(
            arguments.cohort,
            against=arguments.against,
            workers=arguments.workers,
            max_memory=arguments.max_memory,
            on_case=on_case,
        )
    write_json(out, report.document())
    for line in report_lines(report, out):
        print(line)
    levels = ("error", "warning") if arguments.fail_on == "warning" else ("error",)
    counts = {level: report.count(level) for level in levels}
    if any(counts.values()):
        told = " and ".join(f"{n} {level}{'s' * (n != 1)}" for level, n in counts.items())
        raise UserError(
            f"{arguments.cohort}: {told} found; expected none. The report is in {out}: mend what "
            "it names, or take those cases out, and check again."
        )
