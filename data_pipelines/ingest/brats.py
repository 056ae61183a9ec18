"""The layouts of the BraTS challenges."""

import re
from collections.abc import Mapping
from pathlib import Path

from data_pipelines.ingest.found import Found
from data_pipelines.ingest.gather import Gathering, Options, folders, stem
from data_pipelines.ingest.sites import brats_site
from data_pipelines.ingest.tables import read_table
from gmmas_jax.cases.manifest import SPLITS
from gmmas_jax.cases.sequences import canonical_sequence

ID_2023 = re.compile(
    r"BraTS-(?P<set>[A-Za-z]+)-(?P<patient>\d{5})-(?P<timepoint>\d{3})", re.IGNORECASE
)
ID_2021 = re.compile(r"(brats(2012|2013|2014|2015|17|18|19|20|2021)|fets\d{4})_\w+", re.IGNORECASE)
_FILE_2023 = re.compile(rf"(?P<id>{ID_2023.pattern})-(?P<kind>t1n|t1c|t2w|t2f|seg)", re.IGNORECASE)
_FILE_2021 = re.compile(
    r"(?P<id>.+?)_(?P<kind>t1|t1ce|t1c|t1gd|t2|flair|seg"
    # One released mask has such a name; the TCGA collections have the others.
    r"|segm|glistrboost|glistrboost_manuallycorrected)",
    re.IGNORECASE,
)
_MASKS = ("seg", "glistrboost_manuallycorrected", "glistrboost")
"""Names of masks, the best first."""
_AFTER_TREATMENT = 100
"""From this time point on, a BraTS-GLI exam is of after treatment."""
_PAEDIATRIC = (
    "the codes of BraTS-PED (enhancing, non-enhancing, cyst, oedema) are of no convention here"
)
_MANY_SITES = "partitioning_1.csv"


def brats2023(source: Path, *, options: Options) -> Found:
    """Finds `BraTS-GLI-00000-000-t1n.nii.gz` and so on, in folders of any depth.

    The time point is the id's end. Exams of after treatment (BraTS-GLI from time point 100 on)
    have the resection cavity as code 4. A folder `train`, `val` or `test` tells the split.

    Args:
        source: Holds the folders of the cases.
        options: See `Options`.
    """
    gathering = Gathering(options)
    cases, named, others = matching_files(source, _FILE_2023, folder_id=ID_2023)
    for case_id in sorted(cases.keys() | named.keys()):
        match = ID_2023.fullmatch(case_id)
        assert match is not None  # Both patterns contain it.
        files = gathering.single_files(case_id, cases.get(case_id, {}))
        if files is None:
            continue
        seg = files.pop("seg", None)
        first = next(iter(files.values()), source)
        after = match["set"].upper() == "GLI" and int(match["timepoint"]) >= _AFTER_TREATMENT
        paediatric = match["set"].upper() == "PED"
        gathering.add(
            case_id,
            files,
            place=named.get(case_id, first.parent),
            seg=seg,
            convention=None if paediatric else "brats2024" if after else "brats2023",
            unusable_mask=_PAEDIATRIC if paediatric else None,
            patient_id=case_id.rpartition("-")[0],
            timepoint=match["timepoint"],
            split=_split_by_folder(first, source),
        )
        if match["set"].upper() in ("MEN", "MET", "PED"):
            gathering.remark(case_id, f"BraTS-{match['set']} is no adult-type diffuse glioma")
    return _finished(gathering, others)


def brats2021(source: Path, *, options: Options) -> Found:
    """Finds `X_{t1,t1ce,t2,flair,seg}.nii.gz`, as BraTS up to 2021, FeTS and the TCGA masks have.

    Folders `HGG` and `LGG` are walked through; they tell no grade of today's classification. The
    site is that of `partitioning_1.csv` where FeTS brings one, else what the id begins with.

    Args:
        source: Holds the folders of the cases.
        options: See `Options`.
    """
    gathering = Gathering(options)
    cases, named, others = matching_files(source, _FILE_2021, folder_id=ID_2021)
    _adopt_strange_masks(cases, gathering)
    sites = _sites(source)
    for case_id in sorted(cases.keys() | named.keys()):
        files = gathering.single_files(case_id, cases.get(case_id, {}))
        if files is None:
            continue
        masks = [files.pop(kind) for kind in _MASKS if kind in files]
        if masks and stem(masks[0].name).lower().endswith("_glistrboost"):
            gathering.remark(case_id, "the mask is GLISTRboost's, not corrected by hand")
        patient, timepoint = _patient_2021(case_id)
        first = next(iter(files.values()), source)
        gathering.add(
            case_id,
            files,
            place=named.get(case_id, first.parent),
            seg=masks[0] if masks else None,
            convention="brats2021",
            patient_id=patient,
            timepoint=timepoint,
            site=sites.get(case_id) or brats_site(case_id),
            split=_split_by_folder(first, source),
        )
    return _finished(gathering, others)


def matching_files(
    source: Path, pattern: re.Pattern[str], *, folder_id: re.Pattern[str] | None = None
) -> tuple[dict[str, dict[str, list[Path]]], dict[str, Path], int]:
    """Collects the files of a tree by case.

    Args:
        source: Where to begin.
        pattern: Of a whole file name without its ending, with groups `id` and `kind`.
        folder_id: Of a folder's whole name that promises a case.

    Returns:
        Case id to kind (sequence, or the mask's kind in lower case) to paths; case id to folder,
        for folders that promise a case and hold none of its files; number of NIfTI files that fit
        no pattern.
    """
    cases: dict[str, dict[str, list[Path]]] = {}
    named: dict[str, Path] = {}
    filled: set[Path] = set()
    others = 0
    for folder, _, files in folders(source):
        if folder_id is not None and folder_id.fullmatch(folder.name):
            named.setdefault(folder.name, folder)
        for path in files:
            match = pattern.fullmatch(stem(path.name))
            if match is None:
                others += 1
                continue
            kind = canonical_sequence(match["kind"]) or match["kind"].lower()
            cases.setdefault(match["id"], {}).setdefault(kind, []).append(path)
            filled.update(path.parents)
    return cases, {name: at for name, at in named.items() if at not in filled}, others


def _adopt_strange_masks(cases: dict[str, dict[str, list[Path]]], gathering: Gathering) -> None:
    """Gives a mask `…_Segm.nii` to the case in whose folder it lies."""
    strange = {i: files["segm"] for i, files in cases.items() if set(files) == {"segm"}}
    beside = {
        path.parent: (case_id, files)
        for case_id, files in cases.items()
        if case_id not in strange
        for path in next(iter(files.values()))[:1]
    }
    for files in [files for i, files in cases.items() if i not in strange]:
        if "segm" in files:
            files.setdefault("seg", []).extend(files.pop("segm"))
    for stranger, paths in strange.items():
        del cases[stranger]
        for path in paths:
            case_id, files = beside.get(path.parent, ("", {}))
            if not case_id or "seg" in files:
                gathering.notes.append(f"{path}: a mask of no case found here; left out")
                continue
            files["seg"] = [path]
            gathering.remark(case_id, f"the mask is {path.name}, the only one in the folder")


def _patient_2021(case_id: str) -> tuple[str, str | None]:
    """Returns patient and time point: `Brats18_TCIA01_201_1` is exam 1 of patient 201."""
    match = re.fullmatch(r"(?P<patient>brats1[789]_.+)_(?P<exam>\d+)", case_id, re.IGNORECASE)
    if match is not None:
        return match["patient"], match["exam"]
    match = re.fullmatch(r"(?P<patient>TCGA-..-....)_(?P<date>[\d.]+)", case_id)
    if match is not None:
        return match["patient"], match["date"]
    return case_id, None


def _sites(source: Path) -> Mapping[str, str]:
    """Returns case id to institution, of the table that FeTS 2021 and 2022 bring."""
    path = source / _MANY_SITES
    if not path.is_file():
        return {}
    table = read_table(path)
    if not {"Partition_ID", "Subject_ID"} <= set(table.columns):
        return {}
    return {row["Subject_ID"]: row["Partition_ID"] for row in table.rows if row["Partition_ID"]}


def _split_by_folder(path: Path, source: Path) -> str | None:
    try:
        parts = path.relative_to(source).parts
    except ValueError:
        return None
    return next((part.lower() for part in parts[:-1] if part.lower() in SPLITS), None)


def _finished(gathering: Gathering, others: int) -> Found:
    if others:
        gathering.notes.append(f"{others} NIfTI files with other names were left alone")
    return gathering.found()
