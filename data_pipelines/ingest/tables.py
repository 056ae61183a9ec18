"""A table of text as it is found: CSV in the dialects that spreadsheets write."""

import csv
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gmmas_jax.errors import UserError

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_SPREADSHEETS = {b"PK\x03\x04": "an Excel or OpenDocument workbook", b"\xd0\xcf\x11\xe0": "Excel"}
_SPREADSHEET_NAMES = (".xlsx", ".xlsm", ".xls", ".ods", ".numbers")


@dataclass(frozen=True)
class Table:
    """A table as text: nothing is guessed about what the cells mean.

    Attributes:
        path: The file.
        columns: Names of the columns, in the order of the file, each once.
        rows: Column to cell, stripped of white space around it; an empty cell is "". All cells are
            text, so that leading zeros stay.
        lines: The line of the file on which each row begins, from 1.
        notes: What was noticed about the file and accepted.
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[dict[str, str]]
    lines: list[int]
    notes: tuple[str, ...] = ()


def read_table(path: str | os.PathLike[str]) -> Table:
    """Reads a table of text.

    Commas, semicolons and tabs are told apart by the header and by what cuts every row into as many
    cells. UTF-8 with or without a byte-order mark, UTF-16 with one, and, with a note, Windows-1252
    are read; any line ends; quoted cells may hold the separator or line breaks. Blank lines are
    skipped, and so are several lines with # above the header, as cBioPortal writes them. Duplicate
    rows are kept: what they mean is for the caller to say.

    Raises:
        UserError: If the file cannot be read, is a workbook, has no row, a column without a name or
            twice, or a row with more or fewer cells than the header.
    """
    path = Path(path)
    notes: list[str] = []
    text = _decoded(path, _content(path), notes)
    first_line = 1
    declared = re.match(r"sep=([,;\t])\r?\n", text)  # Excel's own hint, above the header.
    if declared is not None:
        text, first_line = text[declared.end() :], 2
    remarks = re.match(r"(#[^\r\n]*(\r\n|\r|\n)){2,}", text)  # One alone may be the header.
    if remarks is not None:
        text, first_line = text[remarks.end() :], first_line + len(remarks.group().splitlines())
    delimiter = declared[1] if declared is not None else _delimiter(text)
    records = _records(path, text, delimiter, first_line)
    header_line, header = next(records, (0, []))
    if not header:
        raise UserError(
            f"{path}: no line with text in it; expected a header and at least one row. Save the "
            "table again."
        )
    body = list(records)
    for line, cells in body:
        if len(cells) != len(header):
            raise UserError(
                f"{path}, line {line}: {len(cells)} cells; expected {len(header)}, as in the "
                f"header (separated by {_DELIMITERS[delimiter]}). Quote cells that contain the "
                "separator, or fill the row up."
            )
    if not body:
        raise UserError(
            f"{path}: only the header {', '.join(header[:6])} in it; expected at least one row "
            "below it. Save the table again."
        )
    kept = _kept_columns(path, header_line, header, [cells for _, cells in body], notes)
    rows = [{header[position]: cells[position] for position in kept} for _, cells in body]
    columns = tuple(header[position] for position in kept)
    return Table(path, columns, rows, [line for line, _ in body], tuple(notes))


def _content(path: Path) -> bytes:
    suffix = path.suffix.lower()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); expected a table saved as CSV. Check the "
            "path and its permissions."
        ) from error
    kind = _SPREADSHEETS.get(content[:4])
    if kind is None and suffix in _SPREADSHEET_NAMES:
        kind = f"a workbook by its name ({suffix})"
    if kind is not None:
        raise UserError(
            f"{path}: is {kind}; expected text. Open it and save the sheet as 'CSV UTF-8', with "
            "the columns of ids formatted as text so that leading zeros stay."
        )
    return content


def _decoded(path: Path, content: bytes, notes: list[str]) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    else:
        encodings = ["utf-8-sig", "cp1252", "latin-1"]
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        if encoding in ("cp1252", "latin-1"):
            notes.append(
                f"{path.name}: not UTF-8; read as {encoding}. Look at names with accents, or save "
                "the table as 'CSV UTF-8'."
            )
        return text
    raise UserError(
        f"{path}: no text (zero or undecodable bytes); expected a table saved as CSV. Save it as "
        "'CSV UTF-8'."
    )


def _records(
    path: Path, text: str, delimiter: str, first_line: int = 1
) -> Iterator[tuple[int, list[str]]]:
    """Yields the line on which a record begins, and its cells; blank lines are left out."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = first_line
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise UserError(
                f"{path}, line {line}: no valid CSV ({error}); expected cells separated by "
                f"{_DELIMITERS[delimiter]}, quoted by double quotes where they contain one. Save "
                "the table as CSV again."
            ) from error
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield line, [cell.strip() for cell in cells]
        line = first_line + reader.line_num


def _delimiter(text: str) -> str:
    """Returns what separates the cells: what cuts all rows alike, else the header most often."""
    widths: dict[str, int] = {}
    for delimiter in ("\t", ";", ","):  # A comma may be text or a decimal point, a tab hardly.
        counts: list[int] = []
        try:
            for _, cells in _records(Path(), text, delimiter):
                counts.append(len(cells))
        except UserError:
            counts.append(-1)  # Its quotes do not fit this separator; told when it is chosen.
        if counts and counts[0] > 1:
            if len(set(counts)) == 1:
                return delimiter
            widths[delimiter] = counts[0]
    return max(widths, key=lambda delimiter: widths[delimiter], default=",")


def _kept_columns(
    path: Path, line: int, header: list[str], body: list[list[str]], notes: list[str]
) -> list[int]:
    """Returns the positions of the columns to keep; refuses names that are missing or twice."""
    kept = []
    for position, name in enumerate(header):
        column = [cells[position] for cells in body]
        if name:
            if name in header[:position]:
                raise UserError(
                    f"{path}, line {line}: column {name!r} is there twice; expected each once. "
                    "Rename or remove one."
                )
            kept.append(position)
        elif position == 0 and column == [str(number) for number in range(len(body))]:
            notes.append(f"{path.name}: the first column has no name and only counts: left out.")
        elif any(column):
            raise UserError(
                f"{path}, line {line}: column {position + 1} has no name but holds "
                f"{next(filter(None, column))!r}; expected a name above every column. Name or "
                "remove it."
            )
    return kept
