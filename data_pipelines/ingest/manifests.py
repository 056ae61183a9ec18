"""The layout `manifest`: a `cohort.csv`, to join more tables or to write it elsewhere."""

from pathlib import Path

from data_pipelines.ingest.found import Found
from data_pipelines.ingest.gather import Gathering, Options
from gmmas_jax.cases.manifest import COLUMNS, read_manifest
from gmmas_jax.cases.sequences import SEQUENCES

_FILES = (*SEQUENCES, "seg", "label_convention", "case_id")


def manifest(source: Path, *, options: Options) -> Found:
    """Reads a manifest; its files have to be there.

    Args:
        source: `cohort.csv`.
        options: See `Options`.

    Raises:
        UserError: If it is no valid manifest.
    """
    gathering = Gathering(options)
    for row in read_manifest(source):
        files = row.images | ({"seg": row.seg} if row.seg else {})
        paths = {name: source.parent / path for name, path in files.items()}
        missing = [path for path in paths.values() if not path.is_file()]
        if missing:
            gathering.refused.append(
                f"{row.case_id}: {missing[0]}: no such file; expected a NIfTI file. Correct the "
                "path in the manifest."
            )
            continue
        gathering.add(
            row.case_id,
            {name: path for name, path in paths.items() if name != "seg"},
            place=source,
            seg=paths.get("seg"),
            convention=row.label_convention,
            **{name: getattr(row, name) for name in COLUMNS if name not in _FILES},
        )
    return gathering.found()
