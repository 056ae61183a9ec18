"""What is kept of one mask, and what is wrong with it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from data_pipelines.check.findings import Finding, from_message
from gmmas_jax.cases.labels import (
    CONVENTIONS,
    LABELS,
    convert_labels,
    infer_convention,
    integer_codes,
)
from gmmas_jax.errors import UserError

_OUTSIDE = 0.01
"""Share of a mask outside of the brain from which it is told."""


@dataclass(frozen=True)
class Mask:
    """One mask, reduced.

    Attributes:
        values: The codes in the file, without 0.
        convention: Declared or inferred; None where neither is possible.
        volumes_ml: Name of `LABELS` to volume, for the labels that are there.
        exposed: Our code to the share of its surface that adjoins background.
    """

    values: tuple[int, ...]
    convention: str | None
    volumes_ml: Mapping[str, float]
    exposed: Mapping[int, float]


def reduce_mask(
    array: np.ndarray,
    *,
    voxel_ml: float,
    convention: str | None,
    numbered_channels: bool,
    brain: np.ndarray | None,
    case_id: str,
    source: str,
) -> tuple[Mask, list[Finding]]:
    """Reduces a mask and judges it.

    Args:
        array: [d h w] in RAS, any real dtype.
        voxel_ml: Volume of a voxel.
        convention: As declared, or None.
        numbered_channels: As for `labels.infer_convention`.
        brain: bool [d h w], where any sequence is not 0; None if that is not known.
        case_id: Of the findings.
        source: The file, of the findings.
    """
    findings: list[Finding] = []

    def add(code: str, found: str) -> None:
        findings.append(Finding(code, found, case_id=case_id, file=source))

    def refuse(code: str, error: UserError) -> None:
        findings.append(from_message(code, str(error), case_id=case_id, source=source))

    try:
        codes = integer_codes(array, source)
    except UserError as error:
        refuse("label.values", error)
        return Mask((), convention, {}, {}), findings
    if not np.array_equal(codes, array):
        add("label.rounded", f"{np.count_nonzero(codes != array)} values are not quite integers")
    values = tuple(np.flatnonzero(_counts(codes)).tolist())
    values = tuple(value for value in values if value)
    if convention is None:
        try:
            convention = infer_convention(codes, source, numbered_channels=numbered_channels)
        except UserError as error:
            fits = any(set(values) <= set(mapping) for mapping in CONVENTIONS.values())
            refuse("label.ambiguous" if fits else "label.unknown_code", error)
            return Mask(values, None, {}, {}), findings
        if values:
            add("label.inferred", f"codes {values} taken to be those of {convention}")
    try:
        label = convert_labels(codes, convention, source)
    except UserError as error:
        refuse("label.unknown_code", error)
        return Mask(values, convention, {}, {}), findings
    for code, found in _doubts(label, brain, voxel_ml):
        add(code, found)
    counts = _counts(label)
    volumes = {
        LABELS[code]: float(counts[code]) * voxel_ml
        for code in range(1, len(LABELS))
        if counts[code]
    }
    return Mask(values, convention, volumes, _exposed(label)), findings


def _counts(codes: np.ndarray) -> np.ndarray:
    """Returns the number of voxels per code, int64 [256].

    Plane by plane: NumPy counts in a copy of 64 bits a voxel.
    """
    return np.sum([np.bincount(plane.ravel(), minlength=256) for plane in codes], axis=0)


def _doubts(
    label: np.ndarray, brain: np.ndarray | None, voxel_ml: float
) -> Iterator[tuple[str, str]]:
    counts = _counts(label)
    total = int(counts[1:].sum())
    if total == 0:
        yield "label.empty", "no voxel is labelled"
        return
    labelled = label > 0
    extent = [int(labelled.any(axis=axes).sum()) for axes in ((1, 2), (0, 2), (0, 1))]
    if min(extent) == 1:
        words = "one voxel" if total == 1 else f"one slice of {total} voxels"
        yield "label.tiny", f"the mask is {words} ({total * voxel_ml:.2g} mL)"
    if counts[3] == total:
        yield "label.enhancing_alone", f"{total} voxels of ET, none of NCR, ED or RC"
    if brain is not None:
        outside = int(np.count_nonzero(labelled & ~brain))
        if outside > _OUTSIDE * total:
            yield (
                "label.outside_brain",
                f"{outside} of {total} labelled voxels ({outside / total:.0%}) lie where every "
                "sequence is 0",
            )


def _exposed(label: np.ndarray) -> dict[int, float]:
    """Returns, per code, the share of its surface (voxel faces) that adjoins background."""
    labelled = np.nonzero(label)
    if not labelled[0].size:
        return {}
    box = tuple(slice(max(int(i.min()) - 1, 0), int(i.max()) + 2) for i in labelled)
    small = label[box]
    pairs = np.zeros((len(LABELS), len(LABELS)), np.int64)
    for axis in range(3):
        one = np.moveaxis(small, axis, 0)
        codes = one[:-1].astype(np.int64) * len(LABELS) + one[1:]
        table = np.bincount(codes.ravel(), minlength=len(LABELS) ** 2).reshape(pairs.shape)
        pairs += table + table.T
    np.fill_diagonal(pairs, 0)
    return {
        code: float(pairs[code, 0] / pairs[code].sum())
        for code in range(1, len(LABELS))
        if pairs[code].sum()
    }
