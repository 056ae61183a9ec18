"""`gmmas-cases.csv`: what a layout cannot hold of the cases that `gmmas export-cohort` wrote in it.

It is a manifest of the exported files. Names, order, splits and labels of a case are taken from it
where its images are the ones that the layout's own reader found.
"""

import dataclasses
import os
from pathlib import Path

from data_pipelines.ingest.found import Found
from gmmas_jax.cases.manifest import Row, read_manifest

COMPANION = "gmmas-cases.csv"


def with_companion(found: Found, source: Path) -> Found:
    """Returns the cases as the companion beside them describes them, if there is one.

    Args:
        found: By the reader of the layout.
        source: Of the layout: a folder, or a list in the folder.

    Raises:
        UserError: If the companion is no valid manifest.
    """
    path = (source if source.is_dir() else source.parent) / COMPANION
    if not path.is_file():
        return found
    described = {}
    order: dict[str, int] = {}
    for position, row in enumerate(read_manifest(path)):
        order[row.case_id] = position
        described[_key(row, path.parent)] = row
    rows: list[Row] = []
    unknown = 0
    for row in found.rows:
        known = described.get(_key(row, path.parent))
        if known is None:
            unknown += 1
            rows.append(row)
            continue
        kept = {name: getattr(row, name) for name in ("t1n", "t1c", "t2w", "t2f", "seg")}
        rows.append(dataclasses.replace(known, **kept, label_convention=row.label_convention))
    rows.sort(key=lambda row: order.get(row.case_id, len(order)))
    notes = [f"{path.name}: names, order, splits and labels of {len(rows) - unknown} cases"]
    if unknown:
        notes.append(f"{path.name}: does not describe {unknown} of the cases; kept as found")
    return Found(rows, [*found.notes, *notes], found.refused)


def _key(row: Row, root: Path) -> frozenset[tuple[str, str]]:
    """Returns the images of a case, by which it is known."""
    return frozenset((n, os.path.abspath(root / path)) for n, path in row.images.items())
