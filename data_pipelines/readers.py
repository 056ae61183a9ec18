"""From files to a `Case`: whether they belong together, and in which codes the label is."""

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from data_pipelines.case_files import find_files, is_numbered
from data_pipelines.nifti import read_mask, read_volume
from gmmas_jax.cases.case import GRID_TOLERANCE_MM, Case, Grid
from gmmas_jax.cases.geometry import canonical_grid, to_canonical
from gmmas_jax.cases.labels import convert_labels, infer_convention
from gmmas_jax.cases.manifest import Row
from gmmas_jax.cases.sequences import SEQUENCES, canonical_sequence
from gmmas_jax.cases.tasks import TASKS, task_index
from gmmas_jax.errors import UserError

MOSTLY = 0.75
"""Share of non-zero voxels from which an image is not taken to be skull-stripped."""

THICK_MM = 3.0
"""Slice distance above which a report says that small parts of a tumour may be missed."""

NEGATIVE = 0.01
"""Share of negative voxels from which a report says so; interpolation leaves less."""


def read_case(
    images: Mapping[str, str | os.PathLike[str]],
    *,
    case_id: str,
    seg: str | os.PathLike[str] | None = None,
    label_convention: str | None = None,
    tasks: Mapping[str, str] | None = None,
) -> Case:
    """Reads the sequences of one case, and its label.

    Args:
        images: Sequence (or an alias of it) to path; one to four.
        case_id: Name of the case.
        seg: The label file.
        label_convention: Name of `labels.CONVENTIONS`; None infers it where the values leave no
            doubt, and notes that in the warnings.
        tasks: Task name to class name.

    Raises:
        UserError: If a file is bad (`nifti.read_volume`), sequences and label are not on one
            grid, one file is given as two sequences, there is no sequence, the label's values
            are unknown or ambiguous, or a task value is unknown.
    """
    paths = _canonical_paths(images, case_id)
    notes: list[str] = []
    volumes: dict[str, np.ndarray] = {}
    grids: dict[str, Grid] = {}
    for name, path in paths.items():
        array, grids[name] = read_volume(path, notes=notes)
        volumes[name] = np.ascontiguousarray(to_canonical(array, grids[name].affine)[0])
    first = next(iter(paths))
    source = grids[first]
    for name, path in paths.items():
        check_one_grid(path, grids[name], paths[first], source)
    _check_contents(paths, volumes)
    notes.extend(_image_notes(paths, volumes, source))
    label = None
    if seg is not None:
        seg = Path(seg)
        mask, grid = read_mask(seg, notes=notes)
        check_one_grid(seg, grid, paths[first], source)
        mask = to_canonical(mask, grid.affine)[0]
        if label_convention is None:
            numbered = any(map(is_numbered, paths.values()))
            label_convention = infer_convention(mask, str(seg), numbered_channels=numbered)
            notes.append(f"{seg.name}: label convention taken to be {label_convention}")
        label = np.ascontiguousarray(convert_labels(mask, label_convention, str(seg)))
        notes.extend(_label_notes(seg, label, volumes))
    return Case(
        case_id=case_id,
        images=volumes,
        label=label,
        grid=canonical_grid(source),
        source_grid=source,
        tasks=_checked_tasks(case_id, tasks or {}),
        warnings=notes,
        label_convention=label_convention if label is not None else None,
    )


def read_folder(
    folder: str | os.PathLike[str],
    *,
    channel_order: Sequence[str] | None = None,
    label_convention: str | None = None,
    with_label: bool = True,
) -> Case:
    """Reads the case in a folder: `find_files`, then `read_case`.

    Args:
        folder: As for `find_files`.
        channel_order: As for `find_files`.
        label_convention: As for `read_case`.
        with_label: Whether to read a mask that lies there. Without it, a mask of unknown
            convention is no obstacle.

    Raises:
        UserError: As both.
    """
    files = find_files(folder, channel_order=channel_order)
    return read_case(
        files.images,
        case_id=files.case_id,
        seg=files.seg if with_label else None,
        label_convention=label_convention,
    )


def read_row(row: Row, root: str | os.PathLike[str], *, with_label: bool = True) -> Case:
    """Reads the case of a manifest's row.

    Args:
        row: From `manifest.read_manifest`.
        root: The folder of the manifest.
        with_label: Whether to read the mask.

    Raises:
        UserError: As `read_case`.
    """
    root = Path(root)
    return read_case(
        {name: root / path for name, path in row.images.items()},
        case_id=row.case_id,
        seg=root / row.seg if with_label and row.seg is not None else None,
        label_convention=row.label_convention,
        tasks=row.tasks,
    )


def _canonical_paths(images: Mapping[str, str | os.PathLike[str]], case_id: str) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for name, path in images.items():
        sequence = canonical_sequence(name)
        if sequence is None or sequence in paths:
            found = "unknown" if sequence is None else f"a second file for {sequence}"
            raise UserError(
                f"{case_id}: sequence {name!r} is {found}; expected each of "
                f"{', '.join(SEQUENCES)} at most once. Correct the names."
            )
        paths[sequence] = Path(path)
    if not paths:
        raise UserError(
            f"{case_id}: no sequence given; expected at least one of {', '.join(SEQUENCES)}. Name "
            "at least one file."
        )
    ordered = {name: paths[name] for name in SEQUENCES if name in paths}
    for (first, path), (second, other) in combinations(ordered.items(), 2):
        if path.resolve() == other.resolve():
            raise UserError(
                f"{path}: given as {first} and as {second}; expected a file per sequence. Leave "
                "out the sequence that is missing."
            )
    return ordered


def _check_contents(paths: Mapping[str, Path], volumes: Mapping[str, np.ndarray]) -> None:
    for first, second in combinations(volumes, 2):
        if np.array_equal(volumes[first], volumes[second]):
            raise UserError(
                f"{paths[first]} and {paths[second]}: the same voxels, given as {first} and as "
                f"{second}; expected two different sequences. Leave out the one that is missing."
            )


def check_one_grid(path: Path, grid: Grid, reference_path: Path, reference: Grid) -> None:
    """Refuses a file that is not on the grid of another, whatever the order of their axes.

    Raises:
        UserError: Naming both files and both grids.
    """
    canonical, canonical_reference = canonical_grid(grid), canonical_grid(reference)
    if canonical.matches(canonical_reference):
        return
    apart = ""
    if canonical.shape == canonical_reference.shape:
        distance = np.abs(canonical.corners() - canonical_reference.corners()).max()
        apart = f" (corners up to {distance:.3g} mm apart)"
    raise UserError(
        f"{path}: not on the grid of {reference_path}: found {grid.describe()}, expected "
        f"{reference.describe()}{apart}; corners may differ by at most {GRID_TOLERANCE_MM:g} mm. "
        "Co-register the sequences to one grid first."
    )


def _image_notes(
    paths: Mapping[str, Path], volumes: Mapping[str, np.ndarray], grid: Grid
) -> Iterable[str]:
    if max(grid.spacing) > THICK_MM:
        yield f"slices of {max(grid.spacing):.1f} mm: small parts of a tumour may be missed"
    for name, volume in volumes.items():
        if np.count_nonzero(volume) > MOSTLY * volume.size:
            yield (
                f"{paths[name].name}: nearly every voxel is non-zero; skull-stripped images with a "
                "background of 0 are expected"
            )
        negative = np.count_nonzero(volume < 0)
        if negative > NEGATIVE * volume.size:
            yield f"{paths[name].name}: {negative / volume.size:.0%} of the voxels are negative"


def _label_notes(path: Path, label: np.ndarray, volumes: Mapping[str, np.ndarray]) -> Iterable[str]:
    labelled = label > 0
    if not labelled.any():
        yield f"{path.name}: no voxel is labelled"
        return
    for volume in volumes.values():
        labelled &= volume == 0
    outside = int(labelled.sum())
    if outside:
        yield f"{path.name}: {outside} labelled voxels lie where every sequence is 0"


def _checked_tasks(case_id: str, tasks: Mapping[str, str]) -> dict[str, str]:
    checked = {}
    for task, value in tasks.items():
        index = task_index(task, value, source=case_id)
        if index is not None:
            checked[task] = TASKS[task][index]
    return checked
