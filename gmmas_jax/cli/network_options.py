"""The options of every verb that runs trained weights."""

import argparse
from pathlib import Path


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Declares which weights to run, and how."""
    parser.add_argument("--weights", type=Path, required=True, metavar="W", help="weights folder")
    parser.add_argument(
        "--flips",
        action="store_true",
        default=None,
        help="average with the prediction of the mirrored brain; takes twice as long",
    )
