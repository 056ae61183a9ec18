"""From a manifest to a store: the cases in parallel, their places, then what describes them."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipelines.prepared import (
    INDEX_FILE,
    PreparedCase,
    PreparedIndex,
    index_facts,
    read_index,
    write_index,
)
from data_pipelines.store.files import (
    HASHES,
    REPORT,
    UNASSIGNED,
    check_folder,
    find_records,
    invalidate,
    move_into_place,
    only_builder,
    places,
    work_folder,
)
from data_pipelines.store.one_case import Built, Item, OutputError
from data_pipelines.store.record import FORMAT, PROGRAM
from data_pipelines.store.spread import Progress, build_cases
from gmmas_jax.cases.files import output_folder, write_json
from gmmas_jax.cases.manifest import Row
from gmmas_jax.errors import UserError

_TOLD = 10
"""Refused cases that a message names."""


@dataclass(frozen=True, kw_only=True)
class StoreReport:
    """What a build came to.

    Attributes:
        index: The store.
        content_sha256: Of all that training reads, whatever the order and means of the work.
        splits: Split to number of cases.
        skipped: Case id and reason of each case that could not be used.
        failed_quality: Ids of cases left out since the manifest says quality=fail.
        read: Cases whose files were read this time; the others were there.
    """

    index: PreparedIndex
    content_sha256: str
    splits: dict[str, int]
    skipped: tuple[tuple[str, str], ...]
    failed_quality: tuple[str, ...]
    read: int


def build_store(
    rows: Sequence[Row],
    root: Path,
    out: Path,
    *,
    spacing_mm: float,
    whole: tuple[int, int, int],
    workers: int | None = None,
    max_memory: int | None = None,
    beam: Sequence[str] | None = None,
    strict: bool = False,
    on_case: Progress | None = None,
) -> StoreReport:
    """Builds the store of a manifest, goes on with an interrupted build, or finds it built.

    Cases whose files and settings did not change are not read again. Several processes may call it
    at a time with the same arguments: one builds.

    Args:
        rows: Of the manifest. Rows with quality=fail are left out, and named.
        root: Folder that their paths are relative to.
        out: The store.
        spacing_mm: Isotropic spacing of the images.
        whole: D, H, W of the whole volumes.
        workers: Processes; None takes what fits into cores and memory; 0 works in this process.
        max_memory: Bytes for all workers together; None takes 0.8 of what is free.
        beam: Options of Apache Beam, which then spreads the cases; None works without it.
        strict: Refuses to make a store if any case cannot be used.
        on_case: Called after each case with (cases done, all cases, case id).

    Raises:
        UserError: If no case can be used (with `strict`: if one cannot), the folder cannot be
            written or is full, or holds something else. What was built until then is kept.
    """
    out = Path(out)
    check_folder(out)
    output_folder(out)
    output_folder(work_folder(out))
    failed = [row.case_id for row in rows if row.quality == "fail"]
    rows = [row for row in rows if row.quality != "fail"]
    with only_builder(out):
        items = _items(rows, root, out, spacing_mm, whole)
        try:
            results = build_cases(
                items, workers=workers, max_memory=max_memory, beam=beam, on_case=on_case
            )
        except OutputError as error:
            kept = len(find_records(out))
            raise UserError(
                f"{error}; expected room for a store of {len(rows)} cases. {kept} cases are kept: "
                "make room, and run the same command again."
            ) from error
        built = {row: result for row, result in results.items() if isinstance(result, Built)}
        skipped = [
            (row.case_id, str(result))
            for row, result in results.items()
            if isinstance(result, UserError)
        ]
        _remember(built.values(), out)
        if skipped and (strict or not built):
            raise _refusal(skipped, len(rows))
        if not built:
            raise UserError("no case to build a store of: every row has quality=fail, or none.")
        return _publish(
            built,
            out,
            spacing_mm=spacing_mm,
            whole=whole,
            skipped=tuple(skipped),
            failed=tuple(failed),
        )


def _items(
    rows: Sequence[Row], root: Path, out: Path, spacing_mm: float, whole: tuple[int, int, int]
) -> list[Item]:
    existing = find_records(out)
    known = _known_hashes(out)
    items = []
    for row in rows:
        paths = [*row.images.values(), *([row.seg] if row.seg is not None else [])]
        names = [str((root / path).absolute()) for path in paths]
        items.append(
            Item(
                row=row,
                root=root,
                work=work_folder(out),
                spacing_mm=spacing_mm,
                whole=whole,
                existing=tuple(existing.get(row.case_id, ())),
                hashes={name: known[name] for name in names if name in known},
            )
        )
    return items


def _publish(
    built: dict[Row, Built],
    out: Path,
    *,
    spacing_mm: float,
    whole: tuple[int, int, int],
    skipped: tuple[tuple[str, str], ...],
    failed: tuple[str, ...],
) -> StoreReport:
    """Gives the records their places and describes them, unless all of it is there already."""
    targets = places([row.split for row in built], out)
    cases = [
        PreparedCase(
            case_id=row.case_id,
            patient_id=row.patient_id,
            split=row.split,
            file=target.name,
            tasks=row.tasks,
            site=row.site,
            **index_facts(result.facts.meta),
        )
        for (row, result), target in zip(built.items(), targets, strict=True)
    ]
    content = _content_hash(built, spacing_mm, whole)
    report = {
        "format": FORMAT,
        "gmmas": PROGRAM,
        "spacing_mm": spacing_mm,
        "whole": list(whole),
        "content_sha256": content,
        "cases": len(cases),
        "splits": dict(Counter(row.split or UNASSIGNED for row in built)),
        "skipped": [{"case_id": case_id, "reason": reason} for case_id, reason in skipped],
        "failed_quality": list(failed),
    }
    records = [result.path for result in built.values()]
    if records != targets or not _same(out, report, cases):
        # TensorFlow is imported by now only if something has to be written.
        from data_pipelines.store.tfds_builder import write_dataset_info

        invalidate(out)
        move_into_place(records, targets, out)
        write_dataset_info(out, targets)
        write_index(out, cases, spacing_mm=spacing_mm, whole=whole)
        write_json(out / REPORT, report)
    return StoreReport(
        index=read_index(out),
        content_sha256=content,
        splits=dict(Counter(row.split or UNASSIGNED for row in built)),
        skipped=skipped,
        failed_quality=failed,
        read=sum(result.read for result in built.values()),
    )


def _same(out: Path, report: dict[str, Any], cases: Sequence[PreparedCase]) -> bool:
    """Returns whether the store is complete and says the same."""
    try:
        written = json.loads((out / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if written != report or not (out / INDEX_FILE).is_file():
        return False
    return list(read_index(out).cases) == list(cases)


def _content_hash(built: dict[Row, Built], spacing_mm: float, whole: tuple[int, int, int]) -> str:
    records = sorted(
        (row.case_id, row.split or "", result.facts.sha256) for row, result in built.items()
    )
    text = json.dumps([FORMAT, spacing_mm, list(whole), records])
    return hashlib.sha256(text.encode()).hexdigest()


def _refusal(skipped: Sequence[tuple[str, str]], total: int) -> UserError:
    if len(skipped) == 1:
        case_id, reason = skipped[0]
        return UserError(
            f"{case_id}: {reason} (1 of {total} cases cannot be used; the others are kept. Mend it "
            "or take it out of the manifest, and run the same command again.)"
        )
    shown = "\n".join(f"{case_id}: {reason}" for case_id, reason in skipped[:_TOLD])
    more = f"\n... and {len(skipped) - _TOLD} more" if len(skipped) > _TOLD else ""
    return UserError(
        f"{len(skipped)} of {total} cases cannot be used:\n{shown}{more}\n"
        "Mend them, or take them out of the manifest, and run the same command again: the others "
        "are kept."
    )


def _known_hashes(out: Path) -> dict[str, Any]:
    try:
        return json.loads((work_folder(out) / HASHES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # A cache: without it the files are read again.
        return {}


def _remember(built: Iterable[Built], out: Path) -> None:
    known = {name: seen for result in built for name, seen in result.hashes.items()}
    if known != _known_hashes(out):
        write_json(work_folder(out) / HASHES, known)
