"""Layouts that are tables of paths: FeTS and GaNDLF."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from data_pipelines.case_files import told_by_name
from data_pipelines.ingest.found import Found
from data_pipelines.ingest.gather import Gathering, Options, single_files
from data_pipelines.ingest.tables import Table, read_table
from gmmas_jax.cases.sequences import SEQUENCES, canonical_sequence
from gmmas_jax.errors import UserError

_IDS = ("patientid", "subjectid", "caseid", "subject", "patient", "case", "id")
_TIMES = ("timestamp", "timepoint", "session", "visit")
_LABELS = ("label", "seg", "segmentation", "mask", "groundtruth", "gt")
_SITES = ("partitionid", "site", "institution")
_CHANNEL = re.compile(r"channel_?(\d+)", re.IGNORECASE)


def fets(source: Path, *, options: Options) -> Found:
    """Reads a CSV list with a column a sequence: `PatientID,T1,T1GD,T2,T2FLAIR`.

    Columns for the time point (`Timestamp`), the mask (`Label`, `Seg`) and the site may be there.
    Under FeTS's own names of columns (T1GD, T2FLAIR), masks have the codes of BraTS up to 2021;
    under others, theirs are not known.

    Args:
        source: The list; its paths are relative to it, or absolute.
        options: See `Options`.

    Raises:
        UserError: If the table cannot be read, or has no column of ids or of sequences.
    """
    table = read_table(source)
    columns: dict[str, str] = {}
    for column in table.columns:
        sequence = canonical_sequence(column)
        if sequence is None:
            continue
        if sequence in columns:
            raise UserError(
                f"{source}: columns {columns[sequence]!r} and {column!r} both hold {sequence}; "
                "expected one column a sequence. Remove one."
            )
        columns[sequence] = column
    if not columns:
        raise UserError(
            f"{source}: columns {', '.join(table.columns[:8])}; expected an id and a column a "
            "sequence, such as PatientID,T1,T1GD,T2,T2FLAIR. Rename the columns."
        )
    own_names = {"t1gd", "t2flair"} <= {column.lower() for column in columns.values()}
    convention = "brats2021" if own_names else None
    gathering = Gathering(options)
    for row, where in _distinct(table, _column(table, _IDS, required=True), gathering):
        try:
            images = {
                sequence: listed_path(source.parent, row[column], where)
                for sequence, column in columns.items()
                if row[column]
            }
            _add(gathering, table, row, where, images, convention=convention)
        except UserError as error:
            gathering.refused.append(str(error))
    return gathering.found()


def gandlf(source: Path, *, options: Options) -> Found:
    """Reads a GaNDLF list: `SubjectID,Channel_0,…,Label,ValueToPredict`.

    Which sequence a channel is must be declared, or told by the names of the files; where both
    tell it, they have to agree. `ValueToPredict` is left alone: it does not say of what.

    Args:
        source: The list; its paths are relative to it, or absolute.
        options: See `Options`.

    Raises:
        UserError: If the table cannot be read, or has no column of ids or of channels.
    """
    table = read_table(source)
    channels = sorted(
        (int(match[1]), column)
        for column in table.columns
        if (match := _CHANNEL.fullmatch(column)) is not None
    )
    if not channels:
        raise UserError(
            f"{source}: columns {', '.join(table.columns[:8])}; expected those of GaNDLF, "
            "SubjectID,Channel_0,…,Label. Rename the columns."
        )
    gathering = Gathering(options)
    for row, where in _distinct(table, _column(table, _IDS, required=True), gathering):
        try:
            paths = [
                listed_path(source.parent, row[column], where) if row[column] else None
                for _, column in channels
            ]
            _add(gathering, table, row, where, ordered_images(paths, options, where))
        except UserError as error:
            gathering.refused.append(str(error))
    if any(column.lower().startswith("valuetopredict") for column in table.columns):
        gathering.notes.append(
            f"{source.name}: ValueToPredict was left alone; join the labels with --clinical"
        )
    return gathering.found()


def ordered_images(paths: Sequence[Path | None], options: Options, where: str) -> dict[str, Path]:
    """Returns which sequence each file of a case is, by the declared order and by its name.

    Args:
        paths: In the order of the channels; None for one that is not there.
        options: Their `channel_order` counts where it is declared.
        where: For messages.

    Raises:
        UserError: If nothing tells it, names and order disagree, or two are one sequence.
    """
    files: dict[str, list[Path]] = {}
    order = options.channel_order
    if order is not None and len(paths) > len(order):
        raise UserError(
            f"{where}: {len(paths)} channels; expected {len(order)}, as declared: "
            f"{', '.join(order)}. Correct --channel-order."
        )
    for number, path in enumerate(paths):
        if path is None:
            continue
        told = told_by_name(path.name)[0]
        if told not in SEQUENCES:
            told = None
        declared = order[number] if order is not None else None
        if told is not None and declared is not None and told != declared:
            raise UserError(
                f"{where}: channel {number} is {path.name}, declared as {declared}; its name tells "
                f"{told}. Correct --channel-order or the list."
            )
        sequence = told or declared
        if sequence is None:
            raise UserError(
                f"{where}: neither the name {path.name} nor a declared order tells which sequence "
                f"channel {number} is; expected one of {', '.join(SEQUENCES)}. Declare it, for "
                "example --channel-order t1n,t1c,t2w,t2f."
            )
        files.setdefault(sequence, []).append(path)
    return single_files(where, files)


def listed_path(root: Path, text: str, where: str) -> Path:
    """Returns the file that a list names.

    Args:
        root: The list's folder, for relative paths.
        text: As it stands in the list.
        where: For messages.

    Raises:
        UserError: If a relative path leaves the folder, or there is no such file.
    """
    path = Path(text)
    if not path.is_absolute() and "\\" in text and not (root / path).exists():
        path = Path(text.replace("\\", "/"))
    if path.is_absolute():
        whole = path
    else:
        inside = os.path.normpath(path)
        if inside == ".." or inside.startswith("../"):
            raise UserError(
                f"{where}: {text!r} leads out of the list's folder {root}; expected a path in it, "
                "or an absolute one. Move the list, or write the whole path."
            )
        whole = root / inside
    if whole.is_dir():
        raise UserError(
            f"{where}: {whole} is a folder; expected a NIfTI file. For DICOM, take --layout dicom."
        )
    if not whole.is_file():
        raise UserError(f"{where}: {whole}: no such file; expected a NIfTI file. Correct the path.")
    return whole


def _add(
    gathering: Gathering,
    table: Table,
    row: Mapping[str, str],
    where: str,
    images: Mapping[str, Path],
    *,
    convention: str | None = None,
) -> None:
    patient = row[str(_column(table, _IDS))]
    time = row.get(_column(table, _TIMES) or "") or None
    label = row.get(_column(table, _LABELS) or "") or None
    site = row.get(_column(table, _SITES) or "") or None
    gathering.add(
        patient if time is None else f"{patient}_{time}",
        images,
        place=Path(where),
        seg=None if label is None else listed_path(table.path.parent, label, where),
        convention=convention,
        patient_id=patient,
        timepoint=time,
        site=site,
    )


def _distinct(
    table: Table, column: str | None, gathering: Gathering
) -> Iterable[tuple[Mapping[str, str], str]]:
    """Yields each row with an id, once, and where it stands."""
    assert column is not None  # Required by the callers.
    seen: dict[tuple[str, ...], int] = {}
    for row, line in zip(table.rows, table.lines, strict=True):
        where = f"{table.path}, line {line}"
        if not row[column]:
            gathering.refused.append(
                f"{where}, column {column}: empty; expected an id. Fill it in."
            )
            continue
        cells = tuple(row.values())
        if cells in seen:
            gathering.notes.append(f"{where}: the same as line {seen[cells]}; taken once")
            continue
        seen[cells] = line
        yield row, where


def _column(table: Table, names: Sequence[str], *, required: bool = False) -> str | None:
    plain = {re.sub(r"[^a-z0-9]", "", column.lower()): column for column in table.columns}
    for name in names:
        if name in plain:
            return plain[name]
    if required:
        raise UserError(
            f"{table.path}: no column of ids among {', '.join(table.columns[:8])}; expected one "
            "such as PatientID or SubjectID. Rename the column."
        )
    return None
