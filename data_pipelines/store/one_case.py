"""The work on one case, wherever it runs: here, in a worker process, or on a machine of Beam's."""

import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.exam_files import ExamFiles
from data_pipelines.store.exam_record import case_features, exam_record
from data_pipelines.store.file_hashes import FileHashes
from data_pipelines.store.record import FORMAT, RecordFacts, map_record, write_record
from gmmas_jax.cases.manifest import Row
from gmmas_jax.errors import UserError


class OutputError(Exception):
    """The store cannot be written: no fault of the case, and the next would fail as well."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """What the work on a case needs.

    Attributes:
        row: Of the manifest.
        root: Folder that its paths are relative to.
        work: Folder for new records.
        spacing_mm: Isotropic spacing of the image.
        whole: D, H, W of the whole volume.
        existing: Records that are there under the case's id, with what they say.
        hashes: What `FileHashes` knows of the files.
    """

    row: Row
    root: Path
    work: Path
    spacing_mm: float
    whole: tuple[int, int, int]
    existing: tuple[tuple[Path, RecordFacts], ...] = ()
    hashes: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Built:
    """What became of a case.

    Attributes:
        path: Its record.
        facts: What the record says.
        hashes: The files' hashes, for the next time.
        read: Whether its files had to be read.
    """

    path: Path
    facts: RecordFacts
    hashes: dict[str, Any]
    read: bool


def build_case(item: Item) -> Built:
    """Makes the record of a case, or finds it made.

    Raises:
        OutputError: If it cannot be written.
        UserError: If the case cannot be used.
    """
    hashes = FileHashes(item.hashes or {})
    inputs = {name: hashes.of(path) for name, path in _files(item).items()}
    found = _existing(item, inputs)
    if found is not None:
        return replace(found, hashes=hashes.known)
    key = _key(item, inputs)
    same = [path for path, facts in item.existing if facts.meta["key"] == key]
    if same:
        # The same arrays; only what the manifest says of them changed.
        facts_and_path = _rewritten(item, same[0], key)
    else:
        facts_and_path = _made(item, key, inputs)
    path, facts = facts_and_path
    return Built(path=path, facts=facts, hashes=hashes.known, read=not same)


def already_built(item: Item) -> Built | None:
    """Returns the record of a case if it is there and no file was touched since; reads no file."""
    hashes = FileHashes(item.hashes or {})
    inputs = {}
    for name, path in _files(item).items():
        digest = hashes.remembered(path)
        if digest is None:
            return None
        inputs[name] = digest
    found = _existing(item, inputs)
    return None if found is None else replace(found, hashes=hashes.known)


def _existing(item: Item, inputs: dict[str, str]) -> Built | None:
    key, row = _key(item, inputs), item.row
    for path, facts in item.existing:
        meta = facts.meta
        if (meta["key"], meta["tasks"], meta["patient_id"]) == (key, row.tasks, row.patient_id):
            return Built(path=path, facts=facts, hashes={}, read=False)
    return None


def _made(item: Item, key: str, inputs: dict[str, str]) -> tuple[Path, RecordFacts]:
    row = item.row
    images = {name: item.root / path for name, path in row.images.items()}
    meta, arrays = exam_record(
        ExamFiles(images, case_id=row.case_id),
        seg=None if row.seg is None else item.root / row.seg,
        label_convention=row.label_convention,
        spacing_mm=item.spacing_mm,
        whole=item.whole,
        patient_id=row.patient_id,
        tasks=row.tasks,
        key=key,
        inputs=inputs,
    )
    return _written(item, key, meta, arrays)


def _rewritten(item: Item, source: Path, key: str) -> tuple[Path, RecordFacts]:
    meta, arrays = map_record(source)
    del meta["arrays"]
    meta |= {"tasks": item.row.tasks, "patient_id": item.row.patient_id}
    return _written(item, key, meta, arrays)


def _written(
    item: Item, key: str, meta: dict[str, Any], arrays: dict[str, np.ndarray]
) -> tuple[Path, RecordFacts]:
    path = item.work / _file_name(item, key)
    features = case_features(meta)
    try:
        return path, write_record(path, meta, arrays, features)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
    except UserError as error:
        raise OutputError(str(error)) from error


def _files(item: Item) -> dict[str, Path]:
    files = {name: item.root / path for name, path in item.row.images.items()}
    if item.row.seg is not None:
        files["seg"] = item.root / item.row.seg
    return files


def _key(item: Item, inputs: dict[str, str]) -> str:
    """Returns a hash of all that the arrays and the provenance of a case depend on."""
    names = {name: path.name for name, path in _files(item).items()}
    settings = [FORMAT, item.spacing_mm, list(item.whole), item.row.case_id]
    text = json.dumps([settings, inputs, names, item.row.label_convention], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _file_name(item: Item, key: str) -> str:
    text = json.dumps([key, item.row.tasks, item.row.patient_id], sort_keys=True)
    readable = re.sub(r"[^A-Za-z0-9._-]", "_", item.row.case_id)[:80].lstrip(".")
    return f"{readable}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.tfrecord"
