"""The cohort as training reads it: an index in memory, and cases that are mapped, not loaded.

A store (`data_pipelines.store`) holds `index.json`, which is read here, and one record a case:

    image        float16 [d h w 4]   z-scores, as `gmmas_jax.cases.prepare` makes them
    whole        float16 [D H W 4]   the same, resized to one grid for all cases
    label        uint8 [d h w]       [2 2 2] of 0 where the case has no label
    whole_label  uint8 [D H W]       as label
    foreground   int32 [n]           flat indices of the tumour voxels, sorted by label code
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.store.record import (
    FORMAT,
    PROGRAM,
    RecordFacts,
    map_record,
    read_facts,
    write_record,
)
from gmmas_jax.cases.case import Case, Grid
from gmmas_jax.cases.files import write_json
from gmmas_jax.cases.labels import LABELS
from gmmas_jax.cases.prepare import prepare, whole_label, whole_volume
from gmmas_jax.cases.sequences import SEQUENCES, presence
from gmmas_jax.cases.tasks import TASKS, task_index
from gmmas_jax.errors import UserError

INDEX_FILE = "index.json"


@dataclass(frozen=True)
class PreparedCase:
    """One case of the index.

    Attributes:
        case_id: As in the manifest.
        patient_id: As in the manifest.
        split: As in the manifest, or None.
        file: Its record, relative to the index.
        shape: d, h, w.
        sequences: Names of the sequences that it has.
        foreground: Number of voxels per label code from 1 on; None without a label.
        tasks: Task name to class name, where known.
        site: As in the manifest, or None.
    """

    case_id: str
    patient_id: str
    split: str | None
    file: str
    shape: tuple[int, int, int]
    sequences: tuple[str, ...]
    foreground: tuple[int, ...] | None
    tasks: dict[str, str]
    site: str | None = None


@dataclass(frozen=True, eq=False)
class CaseArrays:
    """The arrays of one case, memory-mapped, in the dtypes of the record.

    Attributes:
        image: float16 [d h w 4].
        whole: float16 [D H W 4].
        label: uint8 [d h w], or None.
        whole_label: uint8 [D H W], or None.
        foreground: Per label code that the case has: flat voxel indices, int32 [n].
        present: float32 [4].
    """

    image: np.ndarray
    whole: np.ndarray
    label: np.ndarray | None
    whole_label: np.ndarray | None
    foreground: tuple[np.ndarray, ...]
    present: np.ndarray


@dataclass(frozen=True, eq=False)
class PreparedIndex:
    """The prepared cases of a cohort, or of a part of it.

    Attributes:
        root: Folder of the index.
        spacing_mm: Distance between voxel centres of the images.
        whole: D, H, W of the whole volumes.
        cases: In the order of the manifest.
    """

    root: Path
    spacing_mm: float
    whole: tuple[int, int, int]
    cases: tuple[PreparedCase, ...]

    def select(self, split: str) -> "PreparedIndex":
        """Returns the index of the cases of one split."""
        return replace(self, cases=tuple(case for case in self.cases if case.split == split))

    def open(self, position: int) -> CaseArrays:
        """Maps the arrays of the case at a position; nothing is read until it is used."""
        case = self.cases[position]
        _, arrays = map_record(self.root / case.file)
        labelled = case.foreground is not None
        counts = case.foreground or ()
        voxels = arrays["foreground"]
        by_code = np.split(voxels, np.cumsum(counts)[:-1]) if any(counts) else []
        return CaseArrays(
            image=arrays["image"],
            whole=arrays["whole"],
            label=arrays["label"] if labelled else None,
            whole_label=arrays["whole_label"] if labelled else None,
            foreground=tuple(part for part in by_code if part.size),
            present=presence(case.sequences),
        )


def read_index(root: Path) -> PreparedIndex:
    """Reads the index of a store.

    Raises:
        UserError: If there is none, or it was made by another version.
    """
    path = root / INDEX_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"{path}: missing; expected a store that was built to its end. Run `gmmas build` (the "
            "same command again, if it was interrupted)."
        ) from error
    except (ValueError, OSError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); expected the index of a store. Run `gmmas build` "
            "again: it keeps the cases."
        ) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else None
        raise UserError(
            f"{path}: a store of format {found}; this version of gmmas ({PROGRAM}) reads "
            f"format {FORMAT}. Build it again with `gmmas build`, in an empty folder."
        )
    depth, height, width = document["whole"]
    return PreparedIndex(
        root=root,
        spacing_mm=document["spacing_mm"],
        whole=(depth, height, width),
        cases=tuple(_case_of(entry) for entry in document["cases"]),
    )


def write_index(
    root: Path,
    cases: Sequence[PreparedCase],
    *,
    spacing_mm: float,
    whole: Sequence[int],
) -> None:
    """Writes the index."""
    document = {
        "format": FORMAT,
        "spacing_mm": spacing_mm,
        "whole": list(whole),
        "cases": [asdict(case) for case in cases],
    }
    write_json(root / INDEX_FILE, document)


def store_case(
    case: Case,
    path: Path,
    *,
    spacing_mm: float,
    whole: Sequence[int],
    patient_id: str | None = None,
    key: str = "",
    inputs: Mapping[str, str] | None = None,
) -> RecordFacts:
    """Prepares one case and writes its record, which appears whole or not at all.

    Args:
        case: As read from its files.
        path: The record.
        spacing_mm: Isotropic spacing of the image.
        whole: D, H, W of the whole volume.
        patient_id: The case's id without it.
        key: Hash of all that the arrays depend on.
        inputs: Sequence or "seg" to sha256 of its file, for the provenance.

    Raises:
        OSError: If the record cannot be written.
        UserError: If the case has no brain, or the record cannot be written.
    """
    prepared = prepare(case, spacing_mm=spacing_mm)
    arrays: dict[str, np.ndarray] = {
        "image": prepared.image.astype(np.float16),
        "whole": whole_volume(prepared.image, whole).astype(np.float16),
    }
    counts, foreground = None, np.zeros(0, np.int64)
    # Not of no voxel: `tfds.data_source` cannot read a tensor of fewer bytes than axes.
    label: np.ndarray = np.zeros((2, 2, 2), np.uint8)
    whole_codes: np.ndarray = label
    if prepared.label is not None:
        label, whole_codes = prepared.label, whole_label(prepared.label, whole)
        codes = label.ravel()
        foreground = np.flatnonzero(codes)
        foreground = foreground[np.argsort(codes[foreground], kind="stable")]
        counts = np.bincount(codes, minlength=len(LABELS))[1:].tolist()
    arrays |= {
        "label": label,
        "whole_label": whole_codes,
        "foreground": foreground.astype(np.int32),
    }
    meta = {
        "case_id": case.case_id,
        "patient_id": patient_id or case.case_id,
        "tasks": case.tasks,
        "key": key,
        "sequences": [name for name in SEQUENCES if name in case.images],
        "foreground": counts,
        "spacing_mm": spacing_mm,
        "whole": list(whole),
        "provenance": {
            "gmmas": PROGRAM,
            "inputs": dict(inputs or {}),
            "label_convention": case.label_convention,
            "source": _described(case.source_grid),
            "canonical": _described(case.grid),
            # Voxels of the canonical grid that the image covers.
            "brain_box": [[side.start, side.stop] for side in prepared.box],
            "warnings": case.warnings,
        },
    }
    return write_record(path, meta, arrays, case_features(meta))


def case_features(meta: Mapping[str, Any]) -> dict[str, bytes | list[int]]:
    """Returns the small features of a record; see `store.tfds_builder.features`."""
    answers: dict[str, bytes | list[int]] = {}
    for task in TASKS:
        index = task_index(task, meta["tasks"].get(task))
        answers[task] = [-1 if index is None else index]
    return answers | {
        "case_id": meta["case_id"].encode(),
        "patient_id": meta["patient_id"].encode(),
        "present": presence(meta["sequences"]).astype("<f4").tobytes(),
        "has_label": [int(meta["foreground"] is not None)],
    }


def stored_facts(path: Path) -> dict[str, Any]:
    """Returns shape, sequences and foreground of a stored case, as `PreparedCase` takes them.

    Raises:
        UserError: As `read_facts`.
    """
    return index_facts(read_facts(path).meta)


def index_facts(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the index says of a record beside its identity."""
    counts = meta["foreground"]
    depth, height, width, _ = meta["arrays"]["image"]["shape"]
    return {
        "shape": (depth, height, width),
        "sequences": tuple(meta["sequences"]),
        "foreground": None if counts is None else tuple(counts),
    }


def _case_of(entry: dict[str, Any]) -> PreparedCase:
    depth, height, width = entry["shape"]
    counts = entry["foreground"]
    return PreparedCase(
        **entry
        | {
            "shape": (depth, height, width),
            "sequences": tuple(entry["sequences"]),
            "foreground": None if counts is None else tuple(counts),
        }
    )


def _described(grid: Grid) -> dict[str, Any]:
    return {"shape": list(grid.shape), "affine": grid.affine.tolist()}
