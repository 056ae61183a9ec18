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

from data_pipelines.store.record import FORMAT, PROGRAM, map_record
from gmmas_jax.cases.files import write_json
from gmmas_jax.cases.sequences import presence
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
