"""The same image twice in an archive: a copy of a file, or two that claim to be one."""

import filecmp
from collections.abc import Sequence

from data_pipelines.ingest.dicom_slices import Slice


def without_copies(slices: Sequence[Slice]) -> tuple[list[Slice], int, str | None]:
    """Leaves out files that repeat another byte for byte, as archives exported twice have them.

    Returns:
        The slices without copies, in order of number and identifier; how many were left out; and
        what is wrong where two different files have one identifier, or None.
    """
    kept: dict[str, Slice] = {}
    copies = 0
    clash = None
    for plane in slices:
        name = plane.uid or plane.path
        known = kept.setdefault(name, plane)
        if known is plane:
            continue
        if filecmp.cmp(known.path, plane.path, shallow=False):
            copies += 1
        else:
            clash = f"images {known.number} and {plane.number} have one identifier and differ"
    return sorted(kept.values(), key=lambda plane: (plane.number, plane.uid)), copies, clash
