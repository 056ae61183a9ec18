"""Reads a manifest of which some rows are wrong: each is told, and the others are checked."""

import re
import tempfile
from pathlib import Path

from data_pipelines.check.findings import Finding, from_message
from gmmas_jax.cases.manifest import Row, read_manifest
from gmmas_jax.errors import UserError

_MOST = 100
_ROW = re.compile(r", row (\d+)(?:, column \w+)?: ")


def read_rows(path: Path) -> tuple[list[Row], list[Finding]]:
    """Reads the rows that can be read.

    Args:
        path: The manifest.

    Returns:
        The good rows, and a finding for each of the others.

    Raises:
        UserError: If the manifest as a whole cannot be read, no row is good, or more than 100 are
            wrong: then something is wrong with the table.
    """
    findings: list[Finding] = []
    try:
        return read_manifest(path), findings
    except UserError as error:
        refusal = error
        if _ROW.search(str(error)) is None:
            raise
    # A row that is refused is blanked, so that the others keep their numbers, and all is read
    # again: wrong rows are few, and what a row may hold stands once, in `read_manifest`.
    lines = path.read_bytes().decode("utf-8-sig").splitlines()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "cohort.csv"
        while True:
            place = _ROW.search(str(refusal))
            number = int(place[1]) if place else 0
            if not place or not 1 < number <= len(lines) or not lines[number - 1]:
                raise refusal
            findings.append(_finding(path, str(refusal).replace(str(copy), str(path))))
            if len(findings) > _MOST:
                raise UserError(
                    f"{path}: more than {_MOST} rows are wrong, the first because: "
                    f"{findings[0].found}; expected a table as `gmmas ingest` writes it. Mend the "
                    "table, and run the check again."
                )
            lines[number - 1] = ""
            copy.write_text("\n".join(lines) + "\n", encoding="utf-8")
            try:
                return read_manifest(copy), findings
            except UserError as error:
                refusal = UserError(str(error).replace(str(copy), str(path)))


def _finding(path: Path, message: str) -> Finding:
    code = "manifest.duplicate_id" if "was already given" in message else "manifest.row"
    words = message.removeprefix(str(path)).removeprefix(", ")
    return from_message(code, words, case_id=None, source=None)
