"""From `cohort.csv` to the layouts of other programs."""

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipelines.case_threads import map_cases
from data_pipelines.exporting.bids import plan_bids
from data_pipelines.exporting.brats2023 import plan_brats2023
from data_pipelines.exporting.journal import Journal, digest_of
from data_pipelines.exporting.monai import plan_monai
from data_pipelines.exporting.nnunet import plan_nnunet
from data_pipelines.exporting.place import place_case
from data_pipelines.exporting.plan import Plan, PlannedCase
from data_pipelines.ingest.companion import COMPANION
from gmmas_jax.cases.manifest import Row, read_manifest, write_manifest
from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.errors import UserError

TARGETS: dict[str, Callable[..., Plan]] = {
    "nnunet": plan_nnunet,
    "brats2023": plan_brats2023,
    "bids": plan_bids,
    "monai": plan_monai,
}
"""Layout to what plans it, `(rows, *, fill_missing) -> Plan`."""

_TOLD = 10


@dataclass(frozen=True)
class Exported:
    """What an export did.

    Attributes:
        out: The output folder.
        cases: What is there now.
        before: How many of them were there already.
        notes: What the user should know.
        refused: Cases that could not be exported, one line each.
    """

    out: Path
    cases: list[PlannedCase]
    before: int
    notes: list[str]
    refused: list[str]


def export_cohort(
    cohort: Path,
    *,
    layout: str,
    out: Path,
    link: bool = False,
    fill_missing: bool = False,
    with_skull: bool = False,
    strict: bool = False,
    workers: int = 2,
    on_case: Callable[[int, int, str], None] | None = None,
) -> Exported:
    """Writes the cases of a manifest in a layout; an interrupted call goes on where it stopped.

    Images are copied bit for bit (or linked); a mask is written anew only where its codes change.
    What describes the cases is written last, together with `gmmas-cases.csv`, a manifest of the
    exported files.

    Args:
        cohort: The manifest.
        layout: A name of `TARGETS`.
        out: Folder for the cases; empty, or one that an export of this manifest began.
        link: Whether to link instead of copying.
        fill_missing: Whether a sequence that a case lacks becomes a volume of zeros, in layouts
            that need all channels.
        with_skull: For bids: whether the images still show the skull.
        strict: Whether a case that has to be refused is an error.
        workers: Cases that are written at a time, in threads; each holds one mask in memory.
        on_case: Called after each case with (cases done, all cases, case id).

    Raises:
        UserError: If the manifest is bad, no case can be exported, or (strict) one is refused, or
            the folder holds something else or cannot be written.
    """
    rows, notes, refused = _usable(read_manifest(cohort), cohort.parent)
    if layout not in TARGETS:
        raise UserError(f"layout {layout!r}; expected one of {', '.join(TARGETS)}.")
    if with_skull and layout != "bids":
        raise UserError(f"--with-skull: layout {layout} has no place for it. Leave it out.")
    more = {"with_skull": True} if with_skull else {}
    plan = TARGETS[layout](rows, fill_missing=fill_missing, **more)
    refused += plan.refused
    if strict and refused:
        raise UserError(_listing(f"{len(refused)} cases cannot be exported (--strict)", refused))
    if not plan.cases:
        raise UserError(_listing(f"{cohort}: no case can be exported as {layout}", refused))
    journal = Journal(out, layout)
    journal.check_strangers(plan.cases)
    journal.sweep(plan.cases)
    kept: list[PlannedCase] = []
    before = 0

    def bring(case: PlannedCase) -> tuple[str, bool]:
        """Returns what the case depends on, and whether it was there already."""
        digest = digest_of(case, cohort.parent, link=link)
        known = journal.done(case, digest)
        if not known:
            place_case(case, cohort.parent, out, link=link)
        return digest, known

    with closing(map_cases(bring, plan.cases, workers=workers)) as results:
        for done, (case, result) in enumerate(zip(plan.cases, results, strict=True), 1):
            if isinstance(result, UserError):
                refused.append(f"{case.row.case_id}: {result}")
            else:
                kept.append(case)
                before += result[1]
                if not result[1]:
                    journal.note(case, result[0])
            if on_case is not None:
                on_case(done, len(plan.cases), case.row.case_id)
    if not kept or (strict and len(kept) < len(plan.cases)):
        raise UserError(_listing(f"{len(refused)} cases cannot be exported", refused))
    plan.finish(out, kept)
    write_manifest(out / COMPANION, [_exported_row(case) for case in kept])
    return Exported(out, kept, before, notes + plan.notes, refused)


def _usable(rows: Sequence[Row], root: Path) -> tuple[list[Row], list[str], list[str]]:
    """Returns the rows whose files are there, what was left out, and what was refused."""
    usable: list[Row] = []
    notes: list[str] = []
    refused: list[str] = []
    failed = [row.case_id for row in rows if row.quality == "fail"]
    if failed:
        notes.append(f"{len(failed)} cases of quality fail were left out: {', '.join(failed[:3])}")
    for row in rows:
        if row.quality == "fail":
            continue
        paths = [*row.images.values(), *([row.seg] if row.seg else [])]
        missing = [path for path in paths if not (root / path).is_file()]
        if missing:
            refused.append(
                f"{row.case_id}: {root / missing[0]}: no such file; expected a NIfTI file. Correct "
                "the path in the manifest."
            )
        elif not row.images:
            refused.append(
                f"{row.case_id}: has no sequence; expected at least one of {', '.join(SEQUENCES)}. "
                "Take it out of the manifest."
            )
        else:
            usable.append(row)
    return usable, notes, refused


def _exported_row(case: PlannedCase) -> Row:
    """Returns the row of a case with the exported files; volumes of zeros are not among them."""
    real = {name: path for name, path in case.images.items() if name not in case.filled}
    changed: dict[str, Any] = {name: real.get(name) for name in SEQUENCES}
    changed |= {"seg": case.seg, "label_convention": case.convention if case.seg else None}
    return dataclasses.replace(case.row, **changed)


def _listing(what: str, lines: Sequence[str]) -> str:
    more = f"\n... and {len(lines) - _TOLD} more" if len(lines) > _TOLD else ""
    shown = "\n".join(lines[:_TOLD])
    return f"{what}:\n{shown}{more}\nMend them, or take them out of the manifest."
