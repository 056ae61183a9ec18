"""The layout `folders`: any tree of folders that each hold one case."""

from pathlib import Path

from data_pipelines.case_files import find_files, is_numbered, told_by_name
from data_pipelines.ingest.found import Found
from data_pipelines.ingest.gather import Gathering, Options, folders
from gmmas_jax.cases.manifest import SPLITS
from gmmas_jax.errors import UserError


def case_folders(source: Path, *, options: Options) -> Found:
    """Finds a case in each folder with NIfTI files, by the names of the files.

    Where the names are bare (`t1.nii.gz`), the case is named by its folders: in
    `P7/2019-03/t1.nii.gz` it is `P7_2019-03`, time point `2019-03` of patient `P7`. A first folder
    `train`, `val` or `test` tells the split.

    Args:
        source: Where to begin.
        options: See `Options`.
    """
    gathering = Gathering(options)
    for folder, _, paths in folders(source):
        if not paths:
            continue
        try:
            files = find_files(folder, channel_order=options.channel_order)
        except UserError as error:
            gathering.refused.append(str(error))
            continue
        parts = list(folder.relative_to(source).parts)
        split = parts.pop(0).lower() if parts and parts[0].lower() in SPLITS else None
        case_id, patient, timepoint = files.case_id, files.case_id, None
        bare = not any(is_numbered(p) or told_by_name(p.name)[1] for p in files.images.values())
        if bare and len(parts) > 1:
            case_id, patient, timepoint = "_".join(parts), parts[0], "_".join(parts[1:])
        gathering.add(
            case_id,
            files.images,
            place=folder,
            seg=files.seg,
            patient_id=patient,
            timepoint=timepoint,
            split=split,
        )
    return gathering.found()
