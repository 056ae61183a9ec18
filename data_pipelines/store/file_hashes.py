"""Content hashes of input files, remembered between builds."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gmmas_jax.errors import UserError


class FileHashes:
    """Content hashes of files; a file whose size and time did not change is not read again.

    Attributes:
        known: Path to size, modification time and sha256; JSON-able.
    """

    def __init__(self, known: Mapping[str, Any]) -> None:
        self.known = dict(known)

    def remembered(self, path: Path) -> str | None:
        """Returns the sha256 of a file that did not change since it was hashed, else None."""
        seen = self.known.get(str(path.absolute()))
        try:
            status = path.stat()
        except OSError:
            return None
        if seen and (seen["size"], seen["mtime_ns"]) == (status.st_size, status.st_mtime_ns):
            return seen["sha256"]
        return None

    def of(self, path: Path) -> str:
        """Returns the sha256 of a file's content.

        Raises:
            UserError: If the file cannot be read.
        """
        remembered = self.remembered(path)
        if remembered is not None:
            return remembered
        try:
            status = path.stat()
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UserError(
                f"{path}: cannot be read ({error.strerror}); expected an image file. Correct the "
                "path in the manifest."
            ) from error
        self.known[str(path.absolute())] = {
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "sha256": digest,
        }
        return digest
