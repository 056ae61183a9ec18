"""Layouts of public collections: UCSF-PDGM, UPENN-GBM, LUMIERE."""

import re
from pathlib import Path

from data_pipelines.ingest.brats import matching_files
from data_pipelines.ingest.found import Found
from data_pipelines.ingest.gather import Gathering, Options, folders, stem
from gmmas_jax.cases.sequences import canonical_sequence

UCSF_ID = re.compile(r"(?P<patient>UCSF-PDGM-\d{3,4})(_(?P<timepoint>FU\w+?))?(_nifti)?")
UPENN_ID = re.compile(r"(?P<patient>UPENN-GBM-\d{5})_(?P<timepoint>\d{2})")
_UCSF_FILE = re.compile(
    r"(?P<id>UCSF-PDGM-\d{3,4}(_FU[0-9a-z]+)?)_(?P<kind>T1|T1c|T2|FLAIR|tumor_segmentation)"
)
_UPENN_FILE = re.compile(
    rf"(?P<id>{UPENN_ID.pattern})_(?P<kind>T1|T1GD|T2|FLAIR|segm|automated_approx_segm)"
)
PATIENT = re.compile(r"Patient-\d{3}")
WEEK = re.compile(r"week-\d{3}(-\d+)?")


def ucsf_pdgm(source: Path, *, options: Options) -> Found:
    """Finds `UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_T1c.nii.gz` and so on.

    Follow-up exams (`…_FU003d`) are cases of the same patient. The bias-corrected copies and the
    other sequences and maps of the collection are left alone.

    Args:
        source: Holds the folders of the cases.
        options: See `Options`.
    """
    gathering = Gathering(options)
    cases, named, _ = matching_files(source, _UCSF_FILE, folder_id=UCSF_ID)
    places = {name.removesuffix("_nifti"): folder for name, folder in named.items()}
    for case_id in sorted(cases.keys() | places.keys()):
        match = UCSF_ID.fullmatch(case_id)
        assert match is not None  # Both patterns allow nothing else.
        files = gathering.single_files(case_id, cases.get(case_id, {}))
        if files is None:
            continue
        seg = files.pop("tumor_segmentation", None)
        gathering.add(
            case_id,
            files,
            place=places.get(case_id, source),
            seg=seg,
            convention="brats2021",
            patient_id=match["patient"],
            timepoint=match["timepoint"],
            site="UCSF",
        )
    return gathering.found()


def upenn_gbm(source: Path, *, options: Options) -> Found:
    """Finds `UPENN-GBM-00001_11_T1GD.nii.gz` and so on, masks in any folder beside.

    Time point 11 is before the operation, 21 a follow-up. A mask corrected by hand (`…_segm`) is
    preferred to the automated one, which is taken with a note.

    Args:
        source: Holds `images_structural` and the folders of masks.
        options: See `Options`.
    """
    gathering = Gathering(options)
    cases, named, _ = matching_files(source, _UPENN_FILE, folder_id=UPENN_ID)
    for case_id in sorted(cases.keys() | named.keys()):
        match = UPENN_ID.fullmatch(case_id)
        assert match is not None  # Both patterns contain it.
        files = gathering.single_files(case_id, cases.get(case_id, {}))
        if files is None:
            continue
        seg, automated = files.pop("segm", None), files.pop("automated_approx_segm", None)
        if seg is None and automated is not None:
            seg = automated
            gathering.remark(case_id, "the mask is the automated one, not corrected by hand")
        gathering.add(
            case_id,
            files,
            place=named.get(case_id, source),
            seg=seg,
            convention="brats2021",
            patient_id=match["patient"],
            timepoint=match["timepoint"],
            site="UPENN",
        )
    return gathering.found()


def lumiere(source: Path, *, options: Options) -> Found:
    """Finds `Patient-001/week-044/{T1,CT1,T2,FLAIR}.nii.gz`.

    The collection's masks of two programs follow conventions that are not ours (one of them is
    not documented), and are left alone.

    Args:
        source: Holds the folders of the patients, at any depth.
        options: See `Options`.
    """
    gathering = Gathering(options)
    masks = False
    for folder, names, paths in folders(source):
        if WEEK.fullmatch(folder.name) is None or PATIENT.fullmatch(folder.parent.name) is None:
            continue
        masks = masks or any("segmentation" in name.lower() for name in names)
        case_id = f"{folder.parent.name}_{folder.name}"
        files: dict[str, list[Path]] = {}
        for path in paths:
            sequence = canonical_sequence(stem(path.name))
            if sequence is not None:
                files.setdefault(sequence, []).append(path)
        images = gathering.single_files(case_id, files)
        if images is None:
            continue
        gathering.add(
            case_id,
            images,
            place=folder,
            patient_id=folder.parent.name,
            timepoint=folder.name,
            site="Bern",
        )
    if masks:
        gathering.notes.append(
            "the masks of DeepBraTumIA and HD-GLIO-AUTO were left out: their codes are of no "
            "convention here"
        )
    return gathering.found()
