"""Prepares a whole cohort once: reads each case, prepares it, and indexes what is on disk."""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from data_pipelines.prepared import (
    FORMAT,
    PreparedCase,
    PreparedIndex,
    read_file_hashes,
    read_index,
    store_case,
    stored_facts,
    write_index,
)
from data_pipelines.readers import read_row
from gmmas_jax.cases.files import output_folder
from gmmas_jax.cases.manifest import Row
from gmmas_jax.errors import UserError

_TOLD = 10
"""Refused cases that a message names."""


def prepare_cohort(
    rows: Sequence[Row],
    root: Path,
    *,
    out: Path,
    spacing_mm: float,
    whole: Sequence[int],
    workers: int = 2,
    on_case: Callable[[int, int, str], None] | None = None,
) -> PreparedIndex:
    """Prepares the cases of a manifest, or finds them prepared, and writes the index.

    An interrupted call goes on where it stopped. Cases whose files and settings did not change are
    not read again. Several processes may call it at a time with the same arguments.

    Args:
        rows: Of the manifest.
        root: Folder that their paths are relative to.
        out: Folder for the prepared cases; one for each choice of settings.
        spacing_mm: Isotropic spacing of the images.
        whole: D, H, W of the whole volumes.
        workers: Cases that are prepared at a time, in threads.
        on_case: Called after each case with (cases done, all cases, case id).

    Raises:
        UserError: If cases are refused; all of them are tried first, and the message names them.
    """
    out = output_folder(out)
    hashes = FileHashes(read_file_hashes(out))
    settings = {"format": FORMAT, "spacing_mm": spacing_mm, "whole": list(whole)}
    cases: list[PreparedCase] = []
    refused: list[str] = []

    def attempt(row: Row) -> PreparedCase | UserError:
        try:
            folder = _folder_name(row, root, settings, hashes)
            facts = stored_facts(out / folder)
            if facts is None:
                store_case(read_row(row, root), out / folder, spacing_mm=spacing_mm, whole=whole)
                facts = stored_facts(out / folder)
        except UserError as error:
            return error
        assert facts is not None  # Written just now.
        return _entry(row, folder, facts)

    with ThreadPoolExecutor(workers) as pool:
        for done, (row, result) in enumerate(zip(rows, pool.map(attempt, rows), strict=True), 1):
            if isinstance(result, UserError):
                refused.append(f"{row.case_id}: {result}")
            else:
                cases.append(result)
            if on_case is not None:
                on_case(done, len(rows), row.case_id)
    _refuse(refused, len(rows))
    write_index(out, cases, spacing_mm=spacing_mm, whole=whole, files=hashes.known)
    return read_index(out)


class FileHashes:
    """Content hashes of files; a file whose size and time did not change is not read again.

    Attributes:
        known: Path to size, modification time and sha256; JSON-able.
    """

    def __init__(self, known: dict[str, Any]) -> None:
        self.known = dict(known)

    def of(self, path: Path) -> str:
        """Returns the sha256 of a file's content.

        Raises:
            UserError: If the file cannot be read.
        """
        name = str(path.absolute())
        try:
            status = path.stat()
            seen = self.known.get(name)
            if seen and (seen["size"], seen["mtime_ns"]) == (status.st_size, status.st_mtime_ns):
                return seen["sha256"]
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UserError(
                f"{path}: cannot be read ({error.strerror}); expected an image file. Correct the "
                "path in the manifest."
            ) from error
        self.known[name] = {
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "sha256": digest,
        }
        return digest


def _folder_name(row: Row, root: Path, settings: dict[str, Any], hashes: FileHashes) -> str:
    """Returns the folder of a case, named by its id and by all that its arrays depend on."""
    inputs = {name: hashes.of(root / path) for name, path in row.images.items()}
    if row.seg is not None:
        inputs["seg"] = hashes.of(root / row.seg)
    text = json.dumps([settings, inputs, row.label_convention], sort_keys=True)
    readable = re.sub(r"[^A-Za-z0-9._-]", "_", row.case_id)[:80].lstrip(".")
    return f"{readable}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _entry(row: Row, folder: str, facts: dict[str, Any]) -> PreparedCase:
    return PreparedCase(
        case_id=row.case_id,
        patient_id=row.patient_id,
        split=row.split,
        folder=folder,
        tasks=row.tasks,
        **facts,
    )


def _refuse(refused: list[str], total: int) -> None:
    if not refused:
        return
    if len(refused) == 1:
        raise UserError(
            f"{refused[0]} (1 of {total} cases cannot be used; the others are kept. Mend it or "
            "take it out of the manifest, and run the same command again.)"
        )
    shown = "\n".join(refused[:_TOLD])
    more = f"\n... and {len(refused) - _TOLD} more" if len(refused) > _TOLD else ""
    raise UserError(
        f"{len(refused)} of {total} cases cannot be used:\n{shown}{more}\n"
        "Mend them, or take them out of the manifest, and run the same command again: the others "
        "are kept."
    )
