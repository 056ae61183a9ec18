"""`gmmas build`: the training store of a cohort."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gmmas_jax.cli.memory import add_max_memory
from gmmas_jax.errors import SOME_LEFT_OUT, UserError

if TYPE_CHECKING:
    from data_pipelines.store.build import StoreReport

SUMMARY = "prepare every case of a cohort once, as the store that training reads"
EXAMPLE = "gmmas build cohort.csv --out store --config configs/gmmas.py"

_TOLD = 20
_MANY = 5000
"""Cases that one machine needs hours for."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("cohort", type=Path, metavar="CSV", help="the manifest of the cases")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="STORE",
        help="folder of the store; the same command again goes on where it was interrupted",
    )
    parser.add_argument(
        "--config",
        metavar="FILE[:debug]",
        help="the experiment that it is for, which says spacing and size of the whole volume",
    )
    parser.add_argument(
        "--spacing", type=float, metavar="MM", help="edge of a voxel (default: the config's, or 1)"
    )
    parser.add_argument(
        "--whole",
        metavar="D,H,W",
        help="voxels of the down-sampled whole volume (default: the config's, or 128,128,128)",
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes (default: as many as fit)"
    )
    add_max_memory(parser)
    parser.add_argument(
        "--beam", action="store_true", help="let Apache Beam spread the cases over machines"
    )
    parser.add_argument(
        "--beam-options",
        metavar="WORDS",
        help="for its runner, after an equals sign: "
        '--beam-options="--runner=FlinkRunner --flink_master=host:8081"',
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help=f"make no store if a case cannot be used (default: leave it out, name it, and end "
        f"with exit code {SOME_LEFT_OUT})",
    )


def run(arguments: argparse.Namespace) -> None:
    """Builds the store, and says what is in it and what is not."""
    from data_pipelines.store.build import build_store
    from gmmas_jax.cases.manifest import read_manifest
    from gmmas_jax.cli.progress import CaseProgress

    if arguments.workers is not None and arguments.workers < 1:
        raise UserError(f"--workers is {arguments.workers}; expected at least 1.")
    if arguments.beam_options is not None and not arguments.beam:
        raise UserError("--beam-options without --beam; expected both, or neither. Add --beam.")
    spacing_mm, whole = _settings(arguments)
    rows = read_manifest(arguments.cohort)
    if len(rows) >= _MANY and not arguments.beam:
        print(
            f"{len(rows)} cases: --beam can spread them over machines, see "
            "docs/how-to/build-a-store.md",
            file=sys.stderr,
        )
    with CaseProgress("build", sum(row.quality != "fail" for row in rows)) as progress:
        report = build_store(
            rows,
            arguments.cohort.parent,
            arguments.out,
            spacing_mm=spacing_mm,
            whole=whole,
            workers=arguments.workers,
            max_memory=arguments.max_memory,
            beam=_words(arguments.beam_options or "") if arguments.beam else None,
            strict=arguments.strict,
            on_case=lambda done, _, case_id: progress.done(done, case_id),
        )
    tell(report)
    splits = ", ".join(f"{count} {split}" for split, count in report.splits.items())
    print(
        f"{len(report.index.cases)} cases ({splits}) in {arguments.out}; {report.read} prepared "
        f"now; content {report.content_sha256[:16]}"
    )
    if report.skipped:
        raise SystemExit(SOME_LEFT_OUT)


def tell(report: "StoreReport") -> None:
    """Names on the error stream the cases that a store leaves out."""
    if report.failed_quality:
        print(
            f"left out, quality=fail in the manifest: {_some(report.failed_quality)}",
            file=sys.stderr,
        )
    for case_id, reason in report.skipped[:_TOLD]:
        print(f"skipped {case_id}: {reason}", file=sys.stderr)
    if report.skipped:
        more = len(report.skipped) - _TOLD
        others = f" ({more} more are named in build.json)" if more > 0 else ""
        print(
            f"{len(report.skipped)} of {len(report.skipped) + len(report.index.cases)} cases "
            f"cannot be used and are not in the store{others}. Mend them, and run the same command "
            "again.",
            file=sys.stderr,
        )


def _settings(arguments: argparse.Namespace) -> tuple[float, tuple[int, int, int]]:
    """Returns spacing and size of the whole volume: of the options, else of the config."""
    from gmmas_jax.config import base_config, load_config

    data = (base_config() if arguments.config is None else load_config(arguments.config)).data
    spacing_mm = data.spacing_mm if arguments.spacing is None else arguments.spacing
    if not 0 < spacing_mm < float("inf"):
        raise UserError(f"--spacing is {spacing_mm}; expected millimetres above 0.")
    whole = data.whole
    if arguments.whole is not None:
        try:
            whole = tuple(int(size) for size in arguments.whole.split(","))
        except ValueError:
            whole = ()
    if len(whole) != 3 or min(whole) < 1:
        raise UserError(
            f"--whole is {arguments.whole!r}; expected three sizes, for example 128,128,128."
        )
    depth, height, width = whole
    return spacing_mm, (depth, height, width)


def _words(options: str) -> list[str]:
    try:
        return shlex.split(options)
    except ValueError as error:
        raise UserError(
            f"--beam-options is {options!r} ({error}); expected words, as on a command line. Close "
            "the quotes."
        ) from error


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:_TOLD])
    return shown if len(names) <= _TOLD else f"{shown} and {len(names) - _TOLD} more"
