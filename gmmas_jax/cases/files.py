"""Writing files that appear whole or not at all."""

import errno
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gmmas_jax.errors import UserError

_USER_CAN_MEND = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR),
    *(errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EFBIG, errno.ELOOP),
}


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path whose file becomes `path` when the block ends without an error.

    The temporary file lies in the same folder and ends with the same name, so that writers which
    choose a format by the suffix work. It is flushed to disk before it takes the place of an
    existing file in one step; after an error nothing is left of it. Missing folders are made.

    Example:
        with atomic_path(out / "metrics.json") as temporary:
            temporary.write_text(text)

    Raises:
        UserError: If the folder cannot be made or written, or the disk is full.
    """
    path = Path(path)
    with _user_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
        temporary = path.parent / f".{secrets.token_hex(4)}.{path.name}"
        # Made here and not by the writer, so that an unwritable folder is told before long work.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        try:
            yield temporary
            _flush(temporary)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _flush(path.parent)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a UTF-8 text file atomically; see `atomic_path` for the errors."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a binary file atomically; see `atomic_path` for the errors."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: str | os.PathLike[str], document: Any) -> None:
    """Writes a JSON file atomically, indented, refusing NaN and infinity, which JSON has not.

    Raises:
        UserError: As `atomic_path`.
        ValueError: If the document holds NaN or infinity.
    """
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def output_folder(path: str | os.PathLike[str]) -> Path:
    """Makes an output folder and checks that it can be written.

    Raises:
        UserError: If it cannot.
    """
    path = Path(path)
    with _user_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".{secrets.token_hex(4)}.probe"
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        probe.unlink()
    return path


@contextmanager
def _user_errors(path: Path) -> Iterator[None]:
    """Turns what the operating system refuses into a message for the user."""
    try:
        yield
    except OSError as error:
        if error.errno not in _USER_CAN_MEND:
            raise
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); expected a folder that is "
            "writable and has room. Choose another output folder, or mend this one."
        ) from error


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
