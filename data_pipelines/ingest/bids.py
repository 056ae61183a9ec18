"""The layout `bids`: raw data sets and derivatives of the Brain Imaging Data Structure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipelines.ingest.found import Found
from data_pipelines.ingest.gather import Gathering, Options, folders, single_files, stem
from data_pipelines.ingest.label_names import convention_of_codes
from data_pipelines.ingest.tables import read_table
from gmmas_jax.cases.manifest import SEXES
from gmmas_jax.errors import UserError

_SUFFIXES = {"T1w": "t1n", "T2w": "t2w", "FLAIR": "t2f", "dseg": "seg"}
_NATIVE = ("orig", "")
_WITHOUT_CONTRAST = ("none", "no", "pre")
_NOT_OF_TUMOUR = ("aseg", "aparc", "tissue", "brain", "parc", "ventricle", "skull")
_SEX = {"f": "female", "m": "male"} | {sex: sex for sex in SEXES}


@dataclass(frozen=True)
class _File:
    """A file with its entities."""

    path: Path
    kind: str
    subject: str
    session: str | None
    space: str


def bids(source: Path, *, options: Options) -> Found:
    """Finds the cases of a BIDS data set, one for each subject and session.

    T1w (with `ce-…`: with contrast), T2w and FLAIR in `anat`, and a `dseg` mask of the tumour, here
    and in `derivatives`. Of files in several spaces those are taken that the mask is in; where
    that leaves a doubt the case is refused. `dseg.tsv` tells the convention of the masks, and
    `participants.tsv` age and sex.

    Args:
        source: The data set, or the folder of one pipeline under `derivatives`.
        options: See `Options`.
    """
    gathering = Gathering(options)
    exams: dict[tuple[str, str], list[_File]] = {}
    masks_only = 0
    for folder, _, paths in folders(source):
        if folder.name != "anat":
            continue
        for path in paths:
            file = _parse(path)
            if file is not None:
                exams.setdefault((file.subject, file.session or ""), []).append(file)
            elif re.search(r"_(mask|probseg|roi)$", stem(path.name)):
                masks_only += 1
    people = _participants(source)
    for (subject, session), files in sorted(exams.items()):
        case_id = f"sub-{subject}" + (f"_ses-{session}" if session else "")
        try:
            images, seg = _one_space(case_id, files)
        except UserError as error:
            gathering.refused.append(str(error))
            continue
        gathering.add(
            case_id,
            images,
            place=files[0].path.parent,
            seg=seg,
            convention=None if seg is None else _convention(seg, source),
            patient_id=f"sub-{subject}",
            timepoint=session or None,
            **people.get(f"sub-{subject}", {}),
        )
    for subject in sorted(_empty_subjects(source, {subject for subject, _ in exams})):
        gathering.add(subject, {}, place=source / subject)
    if masks_only:
        gathering.notes.append(
            f"{masks_only} binary or probabilistic masks (mask, probseg, roi) were left alone; a "
            "dseg file holds the parts of a tumour"
        )
    return gathering.found()


def _parse(path: Path) -> _File | None:
    *pairs, suffix = stem(path.name).split("_")
    entities = {key: value for pair in pairs for key, _, value in [pair.partition("-")]}
    kind = _SUFFIXES.get(suffix)
    if kind is None or not entities.get("sub"):
        return None
    if kind == "t1n" and entities.get("ce", "none").lower() not in _WITHOUT_CONTRAST:
        kind = "t1c"
    if kind == "seg":
        described = f"{entities.get('desc', '')} {entities.get('label', '')}".lower()
        if "atlas" in entities or "seg" in entities or any(w in described for w in _NOT_OF_TUMOUR):
            return None
    return _File(path, kind, entities["sub"], entities.get("ses"), entities.get("space", ""))


def _one_space(case_id: str, files: Iterable[_File]) -> tuple[dict[str, Path], Path | None]:
    """Returns images and mask that lie in one space.

    Raises:
        UserError: If there are several such spaces, or two files for one sequence.
    """
    spaces: dict[str, dict[str, list[Path]]] = {}
    for file in files:
        space = "" if file.space in _NATIVE else file.space
        spaces.setdefault(space, {}).setdefault(file.kind, []).append(file.path)
    with_images = {s: found for s, found in spaces.items() if set(found) - {"seg"}}
    chosen = {s: found for s, found in with_images.items() if "seg" in found} or with_images
    if len(chosen) > 1:
        named = ", ".join(sorted(f"space-{s}" if s else "no space entity" for s in chosen))
        raise UserError(
            f"{case_id}: images in several spaces ({named}); expected one. Name the folder of one "
            "pipeline under derivatives as the source."
        )
    if not chosen:
        return {}, None
    single = single_files(case_id, next(iter(chosen.values())))
    seg = single.pop("seg", None)
    return single, seg


def _convention(seg: Path, source: Path) -> str | None:
    """Returns what the nearest `dseg.tsv` tells, by the inheritance of BIDS."""
    name = stem(seg.name)
    folder = seg.parent
    while True:
        for path in sorted(folder.glob("*dseg.tsv")):
            entities = path.name.removesuffix("_dseg.tsv").split("_")
            if path.name == "dseg.tsv" or set(entities) <= set(name.split("_")):
                return _codes(path)
        if folder == source or folder.parent == folder:
            return None
        folder = folder.parent


def _codes(path: Path) -> str | None:
    table = read_table(path)
    index = next((c for c in table.columns if c.lower() == "index"), None)
    if index is None:
        return None
    for wanted in ("name", "abbreviation"):
        column = next((c for c in table.columns if c.lower() == wanted), None)
        if column is None or not all(row[index].isdigit() for row in table.rows):
            continue
        convention = convention_of_codes({int(row[index]): row[column] for row in table.rows})
        if convention is not None:
            return convention
    return None


def _participants(source: Path) -> Mapping[str, dict[str, Any]]:
    path = source / "participants.tsv"
    if not path.is_file():
        return {}
    table = read_table(path)
    if "participant_id" not in table.columns:
        return {}
    people = {}
    for row in table.rows:
        cells: dict[str, Any] = {}
        if re.fullmatch(r"\d{1,3}(\.\d+)?", row.get("age", "")):
            cells["age"] = float(row["age"])
        if row.get("sex", "").lower() in _SEX:
            cells["sex"] = _SEX[row["sex"].lower()]
        people[row["participant_id"]] = cells
    return people


def _empty_subjects(source: Path, known: set[str]) -> Iterable[str]:
    for path in source.glob("sub-*"):
        if path.is_dir() and path.name.removeprefix("sub-") not in known:
            yield path.name
