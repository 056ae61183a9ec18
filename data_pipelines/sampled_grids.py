"""Grids of some of a cohort's images, by which the memory of a worker is reckoned."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from data_pipelines.nifti import read_grid
from gmmas_jax.cases.case import Grid
from gmmas_jax.cases.manifest import Row
from gmmas_jax.errors import UserError

_SAMPLED = 64


def sampled_grids(rows: Sequence[Row], root: Path) -> Iterator[Grid]:
    """Yields the grids of all images of up to about 64 rows, evenly over the manifest.

    Args:
        rows: Of the manifest.
        root: Folder that their paths are relative to.
    """
    for row in rows[:: max(1, len(rows) // _SAMPLED)]:
        for path in row.images.values():
            try:
                yield read_grid(root / path)
            except UserError:
                continue  # The work on the case will say what is wrong with it.
