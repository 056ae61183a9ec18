"""The cohort as training reads it: prepared cases on disk, memory-mapped, and their index.

A folder holds `index.json` and one folder a case:

    image.npy        float16 [d h w 4]   z-scores, as `gmmas_jax.cases.prepare` makes them
    whole.npy        float16 [D H W 4]   the same, resized to one grid for all cases
    label.npy        uint8 [d h w]       where the case has a label
    whole_label.npy  uint8 [D H W]
    foreground.npy   int32 [n]           flat indices of the tumour voxels, sorted by label code
    case.json        written last: without it the folder does not count

The name of a case's folder ends with a hash of its files' content and of the settings, so that what
is there already is used, and what has changed is prepared anew.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gmmas_jax.cases.case import Case
from gmmas_jax.cases.files import atomic_path, write_json
from gmmas_jax.cases.labels import LABELS
from gmmas_jax.cases.prepare import prepare, whole_label, whole_volume
from gmmas_jax.cases.sequences import SEQUENCES, presence
from gmmas_jax.errors import UserError

FORMAT = 1
"""Raised whenever `prepare` or the files here change: older folders are then not used any more."""

INDEX_FILE = "index.json"
_CASE_FILE = "case.json"


@dataclass(frozen=True)
class PreparedCase:
    """One case of the index.

    Attributes:
        case_id: As in the manifest.
        patient_id: As in the manifest.
        split: As in the manifest, or None.
        folder: Where its arrays lie, relative to the index.
        shape: d, h, w.
        sequences: Names of the sequences that it has.
        foreground: Number of voxels per label code from 1 on; None without a label.
        tasks: Task name to class name, where known.
    """

    case_id: str
    patient_id: str
    split: str | None
    folder: str
    shape: tuple[int, int, int]
    sequences: tuple[str, ...]
    foreground: tuple[int, ...] | None
    tasks: dict[str, str]


@dataclass(frozen=True, eq=False)
class CaseArrays:
    """The arrays of one case, memory-mapped; the files' own dtypes.

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
        folder = self.root / case.folder
        labelled = case.foreground is not None
        counts = case.foreground or ()
        voxels = _map(folder / "foreground.npy") if any(counts) else np.zeros(0, np.int32)
        by_code = np.split(voxels, np.cumsum(counts)[:-1]) if any(counts) else []
        return CaseArrays(
            image=_map(folder / "image.npy"),
            whole=_map(folder / "whole.npy"),
            label=_map(folder / "label.npy") if labelled else None,
            whole_label=_map(folder / "whole_label.npy") if labelled else None,
            foreground=tuple(part for part in by_code if part.size),
            present=presence(case.sequences),
        )


def read_index(root: Path) -> PreparedIndex:
    """Reads the index of a folder that `prepare_cohort` made.

    Raises:
        UserError: If there is none, or it was made by another version.
    """
    path = root / INDEX_FILE
    document = _read_json(path)
    if document is None or document["format"] != FORMAT:
        raise UserError(
            f"{path}: missing, or made by another version of gmmas; expected the index of prepared "
            "cases. Run the command that prepares the cohort again."
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
    files: dict[str, Any],
) -> None:
    """Writes the index; `files` is what `cohort.FileHashes` wants back the next time."""
    document = {
        "format": FORMAT,
        "spacing_mm": spacing_mm,
        "whole": list(whole),
        "cases": [asdict(case) for case in cases],
        "files": files,
    }
    write_json(root / INDEX_FILE, document)


def read_file_hashes(root: Path) -> dict[str, Any]:
    """Returns the `files` of an earlier index, empty without one."""
    document = _read_json(root / INDEX_FILE)
    return {} if document is None else document["files"]


def store_case(case: Case, folder: Path, *, spacing_mm: float, whole: Sequence[int]) -> None:
    """Prepares one case and writes its folder.

    Each file appears whole or not at all, the one that makes the folder count last.

    Raises:
        UserError: If the case has no brain, or the folder cannot be written.
    """
    prepared = prepare(case, spacing_mm=spacing_mm)
    arrays = {
        "image": prepared.image.astype(np.float16),
        "whole": whole_volume(prepared.image, whole).astype(np.float16),
    }
    counts = None
    if prepared.label is not None:
        codes = prepared.label.ravel()
        order = np.argsort(codes, kind="stable")
        foreground = order[np.searchsorted(codes[order], 1) :]
        counts = np.bincount(codes, minlength=len(LABELS))[1:].tolist()
        arrays["label"] = prepared.label
        arrays["whole_label"] = whole_label(prepared.label, whole)
        if foreground.size:
            arrays["foreground"] = foreground.astype(np.int32)
    for name, array in arrays.items():
        with atomic_path(folder / f"{name}.npy") as temporary:
            np.save(temporary, array, allow_pickle=False)
    facts = {
        "shape": prepared.image.shape[:3],
        "sequences": [name for name in SEQUENCES if name in case.images],
        "foreground": counts,
    }
    write_json(folder / _CASE_FILE, facts)


def stored_facts(folder: Path) -> dict[str, Any] | None:
    """Returns shape, sequences and foreground of a stored case; None where it is not complete."""
    return _read_json(folder / _CASE_FILE)


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


def _map(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
