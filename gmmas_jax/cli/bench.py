"""`gmmas bench`: how fast this machine is at what training needs."""

import argparse
import os
from pathlib import Path

from gmmas_jax.errors import UserError

SUMMARY = "measure the speed of training input on this machine, stage by stage"
EXAMPLE = "gmmas bench data --config configs/gmmas.py --cores 1 --out speed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("what", choices=("data",), help="data: from the store to augmented batches")
    parser.add_argument(
        "--config",
        default="configs/gmmas.py",
        metavar="FILE[:debug]",
        help="whose patches and augmentations are made (default configs/gmmas.py); fields can be "
        "changed with --config.SECTION.FIELD=VALUE",
    )
    parser.add_argument(
        "--store",
        type=Path,
        metavar="DIR",
        help="cases to read (default: a few synthetic patients, made for it)",
    )
    parser.add_argument(
        "--cores", type=int, default=1, metavar="N", help="cores to use (default 1)"
    )
    parser.add_argument(
        "--rounds", type=int, default=15, metavar="N", help="measurements of each (default 15)"
    )
    parser.add_argument(
        "--peers", action="store_true", help="the same input by MONAI and batchgeneratorsv2 too"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write data_speed-<date>.json and .md here too"
    )
    parser.set_defaults(takes_overrides=True)


def run(arguments: argparse.Namespace) -> None:
    """Measures, prints the table, and writes it where asked."""
    from gmmas_jax.cases.files import write_json, write_text
    from gmmas_jax.config import load_config, to_dict

    for name in ("cores", "rounds"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name} is {getattr(arguments, name)}; expected at least 1.")
    config = to_dict(load_config(arguments.config, arguments.overrides or ()))
    _keep_to(arguments.cores)
    # After the cores are chosen: JAX and TensorFlow count them when they start.
    from gmmas_jax.cli.data_speed import measure_data, page

    result = measure_data(config, arguments.store, rounds=arguments.rounds, peers=arguments.peers)
    text = page(result)
    print(text)
    if arguments.out is not None:
        stem = f"data_speed-{result['date']}"
        write_json(arguments.out / f"{stem}.json", result)
        write_text(arguments.out / f"{stem}.md", text)


def _keep_to(cores: int) -> None:
    available = sorted(os.sched_getaffinity(0))
    if cores > len(available):
        raise UserError(
            f"--cores is {cores}; expected at most {len(available)}, which this process may use."
        )
    os.sched_setaffinity(0, available[:cores])
