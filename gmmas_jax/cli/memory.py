"""The option `--max-memory`, which several verbs have."""

import argparse
import re

_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMGT]?)(?:i?B)?", re.IGNORECASE)
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def add_max_memory(parser: argparse.ArgumentParser) -> None:
    """Declares the option; its value is in bytes."""
    parser.add_argument(
        "--max-memory",
        type=memory_size,
        metavar="SIZE",
        help="for all workers together, for example 8G (default: 0.8 of what is free)",
    )


def memory_size(text: str) -> int:
    """Returns the bytes that a size such as 8G or 500M means.

    Raises:
        argparse.ArgumentTypeError: If it is no size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or float(match["number"]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; expected for example 8G or 500M")
    return int(float(match["number"]) * 2 ** _UNITS[match["unit"].upper()])
