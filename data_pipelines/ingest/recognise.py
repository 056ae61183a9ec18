"""Which layout a source has, where its names leave no doubt."""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from data_pipelines.case_files import told_by_name
from data_pipelines.ingest.brats import ID_2021, ID_2023
from data_pipelines.ingest.datalist import SECTIONS
from data_pipelines.ingest.four_d import count_volumes
from data_pipelines.ingest.gather import folders, is_volume, stem
from data_pipelines.ingest.label_names import read_json
from data_pipelines.ingest.public_sets import PATIENT, UCSF_ID, UPENN_ID, WEEK
from data_pipelines.ingest.tables import read_table
from gmmas_jax.cases.manifest import COLUMNS
from gmmas_jax.cases.sequences import SEQUENCES, canonical_sequence
from gmmas_jax.errors import UserError

_LOOKED_AT = 300
"""Folders that are looked at."""

_BY_NAME = (
    ("brats2023", ID_2023),
    ("brats2021", ID_2021),
    ("ucsf-pdgm", UCSF_ID),
    ("upenn-gbm", UPENN_ID),
)
"""What names of case folders tell."""


def recognise(source: Path) -> tuple[str, str]:
    """Returns the layout of a source and why it is taken to be that.

    Args:
        source: A folder, a list or a table.

    Raises:
        UserError: If no layout fits, or more than one.
    """
    fitting = dict(_of_folder(source) if source.is_dir() else _of_file(source))
    if len(fitting) == 1:
        return next(iter(fitting.items()))
    found = (
        "; ".join(f"{name} ({why})" for name, why in fitting.items())
        if fitting
        else "no sign of a layout"
    )
    raise UserError(
        f"{source}: {found}; expected exactly one known layout. Say which it is with --layout NAME "
        "(`folders` for any tree of folders that each hold one case)."
    )


def _of_file(path: Path) -> Iterator[tuple[str, str]]:
    if path.suffix.lower() == ".json":
        document = read_json(path)
        sections = [key for key in SECTIONS if isinstance(document, dict) and key in document]
        if sections:
            yield "monai", f"a datalist with {', '.join(sections)}"
        return
    columns = read_table(path).columns
    if "case_id" in columns and set(SEQUENCES) & set(columns) and set(columns) <= set(COLUMNS):
        yield "manifest", "the columns of cohort.csv"
        return
    if any(re.fullmatch(r"channel_?\d+", column, re.IGNORECASE) for column in columns):
        yield "gandlf", "a list with columns Channel_0, …"
        return
    sequences = [column for column in columns if canonical_sequence(column) is not None]
    if sequences:
        yield "fets", f"a list with columns {', '.join(sequences)}"
    else:
        yield "clinical", "a table without columns of paths"


def _of_folder(source: Path) -> Iterator[tuple[str, str]]:
    images = [
        path
        for name in ("imagesTr", "imagesTs")
        if (source / name).is_dir()
        for path in islice((p for p in (source / name).iterdir() if is_volume(p.name)), 1)
    ]
    if images:
        yield from _of_numbered(source, images[0])
        return
    if (source / "dataset_description.json").is_file():
        yield "bids", "dataset_description.json"
        return
    names: dict[str, str] = {}
    cases = 0
    for folder, subfolders, files in islice(folders(source), _LOOKED_AT):
        if folder.name.startswith("sub-") and "anat" in subfolders:
            names.setdefault("bids", f"folder {folder.name}/anat")
        if PATIENT.fullmatch(folder.parent.name) and WEEK.fullmatch(folder.name):
            names.setdefault("lumiere", f"folder {folder.parent.name}/{folder.name}")
        for layout, pattern in _BY_NAME:
            ids = [folder.name, *(stem(path.name) for path in files)]
            told = next((name for name in ids if pattern.match(name)), None)
            if told is not None and files:
                names.setdefault(layout, f"the name {told}")
        cases += any(told_by_name(path.name)[0] in SEQUENCES for path in files)
        if not files and any(path.suffix.lower() == ".dcm" for path in folder.iterdir()):
            names.setdefault("dicom", f"DICOM files in {folder.name}")
    if not names and cases:
        names["folders"] = f"{cases} folders with files named by sequence"
    yield from names.items()


def _of_numbered(source: Path, image: Path) -> Iterator[tuple[str, str]]:
    if re.fullmatch(r".+_\d{4}", stem(image.name)) is None and count_volumes(image) > 1:
        yield "msd", f"{image.name} is a 4-D file"
    elif (source / "dataset.json").is_file():
        yield "nnunet", f"dataset.json and {image.name}"
    else:
        yield "nnunet", f"{image.name}"
        yield "msd", "no dataset.json tells the order of its channels"
