"""The weights that come with the program: which there are, where they lie, whether they are whole.

`gmmas_jax/weights/<name>/` holds `weights.safetensors`, `config.json`, `model_card.md` and
`sha256`, which `sha256sum -c sha256` understands. The card is not in that list: it says what was
measured, and may be corrected without other weights. Imports no JAX, so that listing is instant.
"""

import hashlib
from importlib import resources
from pathlib import Path

from gmmas_jax import __version__
from gmmas_jax.cases.files import write_text
from gmmas_jax.errors import UserError

NAMES = ("mini", "base")
"""From the one that was measured best: their cards have the numbers."""

CHECKSUMS = "sha256"
MAX_BYTES = 25 * 10**6
"""Of a file of weights that is committed."""

_CHECKED = ("weights.safetensors", "config.json")


def shipped() -> tuple[str, ...]:
    """Returns the names of the weights that this copy of the program holds."""
    return tuple(name for name in NAMES if (_root() / name / _CHECKED[0]).is_file())


def best() -> str:
    """Returns the name of the best of the weights that are there.

    Raises:
        UserError: If this copy of the program holds no weights.
    """
    there = shipped()
    if not there:
        raise UserError(
            f"no weights were named, and this copy of gmmas ({__version__}) comes with none. Give "
            "a folder of weights with --weights, such as `gmmas train` writes."
        )
    return there[0]


def shipped_folder(name: str) -> Path:
    """Returns the folder of shipped weights, checked against its list of checksums.

    Raises:
        UserError: If they do not come with this copy of the program, or a file is damaged.
    """
    if name not in shipped():
        raise UserError(
            f"--weights {name}: these weights do not come with this copy of gmmas "
            f"({__version__}); it has {', '.join(shipped()) or 'none'}. Name one of them, or give "
            f"a folder of weights (./{name} if it has that name)."
        )
    folder = _root() / name
    verify(folder)
    return folder


def checksums(folder: Path) -> str:
    """Returns what the list of checksums of a folder of weights must say."""
    lines = []
    for name in _CHECKED:
        with (folder / name).open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    return "".join(lines)


def write_checksums(folder: Path) -> None:
    """Writes the list of checksums of a folder of weights."""
    write_text(folder / CHECKSUMS, checksums(folder))


def verify(folder: Path) -> None:
    """Compares a folder of weights with its list of checksums.

    Raises:
        UserError: If a file is missing or another one than the list says.
    """
    try:
        expected, found = (folder / CHECKSUMS).read_text("utf-8"), checksums(folder)
    except OSError as error:
        raise UserError(
            f"{error.filename}: cannot be read ({error.strerror}); expected it beside the other "
            "files of the shipped weights. Install gmmas again."
        ) from error
    if expected != found:
        wrong = [
            name
            for name, *sides in zip(_CHECKED, *map(str.splitlines, (expected, found)), strict=False)
            if sides[0] != sides[1]
        ]
        raise UserError(
            f"{folder}: {' and '.join(wrong) or CHECKSUMS}: not what came with gmmas (the sha256 "
            f"differs from {CHECKSUMS}). Install gmmas again, or copy the folder elsewhere and "
            "give its path to run changed weights."
        )


def _root() -> Path:
    """Returns the folder of all shipped weights; wheels are unpacked, so it is one on disk."""
    return Path(str(resources.files("gmmas_jax.weights")))
