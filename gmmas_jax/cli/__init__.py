"""The command `gmmas <verb>`: parse, call one function, print.

A verb is a module here with `SUMMARY`, `EXAMPLE`, `add_arguments(parser)` and `run(arguments)`.
It imports what is heavy inside `run`, so that `--help` and a misspelt option answer at once.
"""

import argparse
import importlib
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from gmmas_jax import __version__
from gmmas_jax.errors import UserError

VERBS = (
    "demo",
    "synth",
    "ingest",
    "check",
    "preprocess",
    "split",
    "build",
    "train",
    "evaluate",
    "predict",
    "export",
    "export-cohort",
    "bench",
)


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are `UserError`s."""

    def error(self, message: str) -> NoReturn:
        """Raises the complaint instead of printing the usage."""
        raise UserError(f"{message}. See `{self.prog} --help`.")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: Words after the program's name; None for those of this process.

    Returns:
        0 on success, 2 after a user's mistake (told in one message on the error stream), 130 after
        an interrupt from the keyboard. Any other error propagates: it is ours.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    verb = next((word for word in words if word in VERBS), "")
    try:
        arguments = _parse(words)
        arguments.run(arguments)
    except UserError as error:
        if "--debug" in words:
            traceback.print_exc()
        print(f"{f'gmmas {verb}'.strip()}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{f'gmmas {verb}'.strip()}: interrupted", file=sys.stderr)
        return 130
    return 0


def _parse(words: list[str]) -> argparse.Namespace:
    parser = Parser(
        prog="gmmas",
        description="Glioma MRI in JAX: tumour segmentation and molecular typing. Research use "
        "only; not for decisions about patients.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gmmas {__version__}")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of mistakes")
    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=Parser)
    for name in VERBS:
        module = importlib.import_module(f"gmmas_jax.cli.{name.replace('-', '_')}")
        verb = verbs.add_parser(
            name,
            help=module.SUMMARY,
            description=f"{module.SUMMARY[0].upper()}{module.SUMMARY[1:]}.",
            epilog=f"Example:\n  {module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(verb)
        verb.add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,
            help="show tracebacks of mistakes",
        )
        verb.set_defaults(run=module.run, overrides=None, parser=verb)
    arguments, unknown = parser.parse_known_args(words)
    if unknown:
        # Only a verb that takes a config knows what its fields are called.
        if not getattr(arguments, "takes_overrides", False):
            arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        arguments.overrides = _overrides(unknown, arguments.parser)
    return arguments


def _overrides(words: list[str], parser: argparse.ArgumentParser) -> list[str]:
    """Reads `--config.field=value` and `--config.field value` as `field=value`."""
    overrides: list[str] = []
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if not name.startswith("--config."):
            parser.error(f"unrecognized arguments: {word}")
        if not equals and (value := next(rest, "")) == "":
            parser.error(f"{name} has no value; expected {name}=VALUE")
        overrides.append(f"{name.removeprefix('--config.')}={value}")
    return overrides
