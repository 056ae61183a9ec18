"""`gmmas ingest`: any known layout of files, list or clinical table, as `cohort.csv`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from gmmas_jax.errors import SOME_LEFT_OUT, UserError

if TYPE_CHECKING:
    from data_pipelines.ingest.cohort_file import Ingested

SUMMARY = "make cohort.csv of a folder of scans in a known layout, a list, or a clinical table"
EXAMPLE = "gmmas ingest UCSF-PDGM --layout ucsf-pdgm --clinical metadata.csv --out cohort.csv"

_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument(
        "source", type=Path, metavar="SRC", help="folder of scans, list of paths, or clinical table"
    )
    parser.add_argument(
        "--layout",
        default="auto",
        metavar="NAME",
        help="brats2021, brats2023, nnunet, msd, bids, ucsf-pdgm, upenn-gbm, lumiere, fets, "
        "gandlf, monai, manifest, dicom, folders, clinical; or auto, which takes a layout only "
        "where no other fits, and says which (default auto)",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="CSV", help="manifest to write, cohort.csv"
    )
    parser.add_argument(
        "--clinical",
        type=Path,
        action="append",
        default=[],
        metavar="TABLE",
        help="clinical table to join by id; may be given several times",
    )
    parser.add_argument(
        "--clinical-kind", metavar="KIND", help="what the tables are (default: by their header)"
    )
    parser.add_argument(
        "--clinical-column",
        action="append",
        default=[],
        metavar="NAME=COLUMN",
        help="of a table of your own: which of its columns holds case_id, idh, age, ..",
    )
    parser.add_argument(
        "--clinical-lenient",
        action="store_true",
        help="take values with an unknown spelling as missing, and say so",
    )
    parser.add_argument(
        "--channel-order",
        metavar="A,B,..",
        help="for files that tell channel numbers only: the sequence of 0000, 0001, ..",
    )
    parser.add_argument(
        "--label-convention",
        metavar="NAME",
        help="codes of the masks, such as brats2021 (default: what the layout fixes)",
    )
    parser.add_argument(
        "--volumes",
        type=Path,
        metavar="DIR",
        help="where volumes go that have to be written: 4-D files taken apart, DICOM",
    )
    parser.add_argument(
        "--workers", type=int, default=2, metavar="N", help="volumes written at a time (default 2)"
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="a case that cannot be used is an error (default: it is refused, the others are "
        f"written, and the program ends with exit code {SOME_LEFT_OUT})",
    )


def run(arguments: argparse.Namespace) -> None:
    """Writes the manifest, and prints what is in it."""
    from data_pipelines.ingest.cohort_file import Clinical, ingest
    from data_pipelines.ingest.gather import Options
    from gmmas_jax.cli.progress import CaseProgress

    if arguments.workers < 1:
        raise UserError(f"--workers is {arguments.workers}; expected at least 1.")
    order = arguments.channel_order
    with CaseProgress("ingest") as progress:
        done = ingest(
            arguments.source,
            layout=arguments.layout,
            out=arguments.out,
            options=Options(
                channel_order=None if order is None else _sequences(order),
                label_convention=arguments.label_convention,
                volumes=arguments.volumes,
                workers=arguments.workers,
                on_case=lambda done, total, case_id: progress.done(done, case_id, total=total),
            ),
            clinical=Clinical(
                tables=arguments.clinical,
                kind=arguments.clinical_kind,
                columns=_columns(arguments.clinical_column),
                lenient=arguments.clinical_lenient,
            ),
            strict=arguments.strict,
        )
    print(short_table(done))
    if done.refused:
        raise SystemExit(SOME_LEFT_OUT)


def short_table(done: "Ingested") -> str:
    """Returns what an ingest found, for people."""
    counts = done.counts()
    cases, patients = _plural(counts["cases"], "case"), _plural(counts["patients"], "patient")
    lines = [f"{cases} of {patients} in {done.cohort}"]
    files = ", ".join(f"{name} {count}" for name, count in counts["files"].items())
    lines.append(f"  files       {files}")
    if counts["label_conventions"]:
        lines.append(
            f"  masks       {_joined(counts['label_conventions'], none='convention open')}"
        )
    for task, classes in counts["tasks"].items():
        known = sum(classes.values())
        unknown = f", unknown {counts['cases'] - known}" if known < counts["cases"] else ""
        lines.append(f"  {task:<11} {_joined(classes)}{unknown}")
    if counts["splits"]:
        lines.append(f"  split       {_joined(counts['splits'])}")
    for report in done.joins:
        lines.extend(["", *report.lines(), *_shown(report.notes)])
    for title, texts in (("Notes", done.notes), ("Refused", done.refused)):
        if texts:
            lines.extend(["", f"{title} ({len(texts)}):", *_shown(texts)])
    return "\n".join([*lines, "", f"record: {done.record}"])


def _sequences(text: str) -> tuple[str, ...]:
    from gmmas_jax.cases.sequences import canonical_sequence

    names = [name.strip() for name in text.split(",")]
    return tuple(canonical_sequence(name) or name for name in names)


def _columns(words: list[str]) -> dict[str, str] | None:
    columns = {}
    for word in words:
        name, equals, column = word.partition("=")
        if not (name and equals and column):
            raise UserError(
                f"--clinical-column is {word!r}; expected NAME=COLUMN, for example idh=IDH_status."
            )
        columns[name.strip()] = column.strip()
    return columns or None


def _plural(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def _joined(counts: dict[str, int], *, none: str = "unknown") -> str:
    return ", ".join(f"{none if n == 'None' else n} {count}" for n, count in counts.items())


def _shown(texts: list[str]) -> list[str]:
    more = [f"  ... and {len(texts) - _SHOWN} more"] if len(texts) > _SHOWN else []
    return [*(f"  {text}" for text in texts[:_SHOWN]), *more]
