"""`gmmas split`: patients to training, validation, testing and folds, in `cohort.csv`."""

import argparse
from pathlib import Path

SUMMARY = "deal the patients of cohort.csv out to train, val and test, and to folds"
EXAMPLE = (
    "gmmas split cohort.csv --out cohort.csv --test 0.15 --val 0.15 --folds 5 "
    "--by idh,codel_1p19q,site"
)

_SHOWN = ("train", "val", "test")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("cohort", type=Path, metavar="CSV", help="manifest, cohort.csv")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="CSV",
        help="manifest to write; may be the same",
    )
    parser.add_argument(
        "--test", type=float, default=0.15, metavar="SHARE", help="of the patients (default 0.15)"
    )
    parser.add_argument(
        "--val", type=float, default=0.15, metavar="SHARE", help="of the patients (default 0.15)"
    )
    parser.add_argument(
        "--folds",
        type=int,
        default=0,
        metavar="K",
        help="folds of cross-validation, of all patients outside test (default 0: none)",
    )
    parser.add_argument(
        "--by",
        default="idh,codel_1p19q,site",
        metavar="A,B,..",
        help="columns whose values shall be spread evenly: tasks, sex, site, label_convention "
        "(default idh,codel_1p19q,site)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default 0")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="deal all patients out anew; else those that have a split or fold keep it",
    )


def run(arguments: argparse.Namespace) -> None:
    """Writes the manifest and prints how many patients are where."""
    from data_pipelines.splits import moved, split_counts, split_rows
    from gmmas_jax.cases.manifest import read_manifest, write_manifest

    by = [column.strip() for column in arguments.by.split(",") if column.strip()]
    rows = split_rows(
        read_manifest(arguments.cohort),
        test=arguments.test,
        val=arguments.val,
        folds=arguments.folds,
        by=by,
        seed=arguments.seed,
        overwrite=arguments.overwrite,
    )
    write_manifest(arguments.out, moved(rows, arguments.cohort, arguments.out))
    print(_table(split_counts(rows, by)))
    print(f"{len(rows)} cases in {arguments.out}")


def _table(counts: dict[str, dict[str, dict[str, int]]]) -> str:
    lines = [["", "", *_SHOWN]]
    for column, values in counts.items():
        for value, of_split in values.items():
            named = "" if column == "patients" else value or "unknown"
            lines.append([column, named, *(str(of_split[split]) for split in _SHOWN)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
