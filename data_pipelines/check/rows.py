"""Reads a manifest of which some rows are wrong: each is told, and the others are checked."""

from pathlib import Path

from data_pipelines.check.findings import Finding, from_message
from gmmas_jax.cases.manifest import Row, read_manifest
from gmmas_jax.errors import UserError

_MOST = 100


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
    refused: list[UserError] = []
    rows = read_manifest(path, refused=refused)
    findings = [_finding(path, str(error)) for error in refused]
    if len(findings) > _MOST:
        raise UserError(
            f"{path}: {len(findings)} rows are wrong, the first because: {findings[0].found}; "
            "expected a table as `gmmas ingest` writes it. Mend the table, and run the check again."
        )
    return rows, findings


def _finding(path: Path, message: str) -> Finding:
    code = "manifest.duplicate_id" if "was already given" in message else "manifest.row"
    words = message.removeprefix(str(path)).removeprefix(", ")
    return from_message(code, words, case_id=None, source=None)
