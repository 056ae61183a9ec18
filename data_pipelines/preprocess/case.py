"""One case from its files to its results: registration, brain, one interpolation, numbers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from data_pipelines.case_files import is_numbered
from data_pipelines.nifti import read_mask, read_volume, write_volume
from data_pipelines.preprocess import brain as extraction
from data_pipelines.preprocess.atlas import Atlas
from data_pipelines.preprocess.bias import without_bias
from data_pipelines.preprocess.coregistration import Sequence, coregistered, refine
from data_pipelines.preprocess.images import antialiased, resampled, to_array, to_image
from data_pipelines.preprocess.native import RECORD, grid_record, resampled_labels
from data_pipelines.preprocess.picture import Panel, quality_png
from data_pipelines.preprocess.quality import faults
from data_pipelines.preprocess.registration import mutual_information, rigid_part
from data_pipelines.preprocess.settings import Settings
from gmmas_jax.cases.case import Grid
from gmmas_jax.cases.files import output_folder, write_bytes, write_json
from gmmas_jax.cases.geometry import to_canonical
from gmmas_jax.cases.labels import convert_back, convert_labels, infer_convention
from gmmas_jax.errors import UserError

FORMAT = 2
PICTURE = "qc.png"


def preprocess_case(
    case_id: str,
    images: Mapping[str, Path],
    out: Path,
    atlas: Atlas,
    settings: Settings,
    *,
    seg: Path | None = None,
    label_convention: str | None = None,
    fingerprint: str = "",
) -> dict[str, Any]:
    """Preprocesses one case.

    Args:
        case_id: Its name, which its files get.
        images: Sequence to native file.
        out: Folder of the case.
        atlas: Where it is brought to.
        settings: How.
        seg: A mask on the grid of one of the sequences.
        label_convention: Of the mask; None: as far as its values leave no doubt.
        fingerprint: Kept in the record, which is written last.

    Returns:
        The content of preprocess.json.

    Raises:
        UserError: If a file is bad, nothing is found that could be a brain, or the mask lies on
            no sequence's grid.
    """
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    notes: list[str] = []
    reference = settings.pick_reference(list(images))
    if reference != settings.reference:
        notes.append(f"no {settings.reference}; {reference} is the reference")
    sequences, working = coregistered(images, reference, notes)
    try:
        fit, method = _brain(sequences, reference, working, atlas, settings, notes)
    except UserError as error:
        raise UserError(f"{case_id}: {error}") from error
    if method != "given":
        refine(sequences, reference, working, fit.brain)
    pose = fit.matrix
    if settings.fit == "rigid":
        pose = rigid_part(fit.matrix, atlas.centre)
    inside = to_array(resampled(to_image(fit.brain.astype(np.float32), working), atlas.grid, pose))
    kept = inside > 0.5
    if method not in ("given", "none"):
        kept &= _mostly_reached(sequences, pose, atlas.grid)
    if not kept.any():
        raise UserError(f"{case_id}: no brain on the atlas grid; expected a head. Look at it.")
    if method == "none":
        kept = np.ones_like(kept)
    out = output_folder(out)
    entries, panels = {}, []
    for name, sequence in sequences.items():
        entries[name], panel = _written(
            out / f"{case_id}-{name}.nii.gz", name, sequence, pose, kept, atlas.grid, settings
        )
        panels.append(panel)
    if seg is not None:
        codes, note = _label(seg, label_convention, sequences, pose, atlas.grid)
        write_volume(out / f"{case_id}-seg.nii.gz", codes, atlas.grid, dtype=np.uint8)
        notes.extend(note)
    numbers = _numbers(fit, sequences, reference, working, pose, atlas, inside)
    for name, entry in entries.items():
        numbers["sequences"][name]["clipped"] = entry.pop("clipped")
    wrong = faults(numbers)
    record = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "case": case_id,
        "atlas": {"name": atlas.name, "sha256": atlas.sha256},
        "settings": settings.record(),
        "reference": reference,
        "brain_extraction": method,
        "atlas_to_reference": {"pose": pose.tolist(), "affine": fit.matrix.tolist()},
        "volume_scale": float(abs(np.linalg.det(pose[:3, :3]))),
        "grid": grid_record(atlas.grid),
        "sequences": entries,
        "seg": seg is not None,
        "quality": numbers,
        "verdict": "fail" if wrong else "pass",
        "faults": wrong,
        "notes": notes,
    }
    picture = quality_png(
        sorted(panels, key=lambda panel: panel.name != reference),
        to_canonical(kept, atlas.grid.affine)[0],
        numbers,
        title=case_id,
        faults=wrong,
    )
    write_bytes(out / PICTURE, picture)
    write_json(out / RECORD, record)
    return record


def _mostly_reached(sequences: Mapping[str, Sequence], pose: np.ndarray, grid: Grid) -> np.ndarray:
    """Returns where more than half of the sequences have voxels; rays run on beyond the edge."""
    count = np.zeros(grid.shape, np.uint8)
    for sequence in sequences.values():
        covered = to_image(np.ones(sequence.grid.shape, np.uint8), sequence.grid)
        matrix = sequence.matrix @ pose
        count += to_array(resampled(covered, grid, matrix, interpolator=sitk.sitkNearestNeighbor))
    reached: np.ndarray = 2 * count > len(sequences)
    return reached


def _brain(
    sequences: Mapping[str, Sequence],
    reference: str,
    working: Grid,
    atlas: Atlas,
    settings: Settings,
    notes: list[str],
) -> tuple[extraction.Fit, str]:
    """Returns the brain with its fit to the atlas, and by which method it was found."""
    images = {name: sequence.working for name, sequence in sequences.items()}
    t1 = images.get("t1n", images[reference])
    stripped = [name for name, sequence in sequences.items() if sequence.stripped]
    if stripped:
        if len(stripped) < len(sequences):
            notes.append(f"only {', '.join(stripped)} skull-stripped; all get the same brain")
        bare = [s.bare for s in sequences.values() if s.bare is not None]
        brain = np.mean(bare, axis=0) >= 0.5
        return extraction.fit_brain(brain, t1, working, atlas), "given"
    method = settings.brain_extraction
    if method == "auto":
        method = extraction.installed()
    if method in extraction.TOOLS:
        sequence = sequences[reference]
        array, grid = read_volume(sequence.path)
        mask = extraction.tool_mask(array, grid, method).astype(np.float32)
        brain = to_array(resampled(to_image(mask, grid), working)) > 0.5
        return extraction.fit_brain(brain, t1, working, atlas), method
    return extraction.extract_brain(images, working, atlas), method


def _written(
    path: Path,
    name: str,
    sequence: Sequence,
    pose: np.ndarray,
    kept: np.ndarray,
    grid: Grid,
    settings: Settings,
) -> tuple[dict[str, Any], Panel]:
    """Interpolates a sequence once, from its file to the atlas, and writes it."""
    array, own = read_volume(sequence.path)
    matrix = sequence.matrix @ pose
    fine = antialiased(array, own, min(grid.spacing))
    image = resampled(to_image(fine, own), grid, matrix)
    if settings.n4_output:
        image = without_bias(image, to_image(kept, grid))
    values = to_array(image)
    low, high = float(array.min()), float(array.max())
    # Linear interpolation never overshoots; where a sequence does not reach, 0 is no overshoot.
    over = (values > high) | ((values < low) & (values != 0))
    clipped = 0.0 if settings.n4_output else float(over[kept].mean())
    panel = Panel.of(name, to_canonical(values, grid.affine)[0])
    brain = values[kept].astype(np.float64)
    levels = np.percentile(brain, (0.1, 1, 50, 99, 99.9)).tolist()
    mean, deviation = float(brain.mean()), float(brain.std())
    if settings.normalise == "zscore":
        values = (values - mean) / max(deviation, 1e-6)
    elif settings.normalise == "percentile":
        values = np.clip((values - levels[0]) / max(levels[-1] - levels[0], 1e-6), 0, 1)
    write_volume(path, np.where(kept, values, 0), grid, dtype=np.float32)
    entry = {
        "source": str(sequence.path),
        "grid": grid_record(own),
        "matrix": matrix.tolist(),
        "to_reference": sequence.matrix.tolist(),
        "skull_stripped": sequence.stripped,
        "intensity": {
            "mean": mean,
            "deviation": deviation,
            "percentiles": dict(zip(("0.1", "1", "50", "99", "99.9"), levels, strict=True)),
        },
        "clipped": clipped,
    }
    return entry, panel


def _label(
    seg: Path,
    convention: str | None,
    sequences: Mapping[str, Sequence],
    pose: np.ndarray,
    grid: Grid,
) -> tuple[np.ndarray, list[str]]:
    """Brings the mask along with the sequence that it was drawn on."""
    codes, own = read_mask(seg)
    owner = next((name for name, s in sequences.items() if s.grid.matches(own)), None)
    if owner is None:
        grids = "; ".join(f"{name} {s.grid.describe()}" for name, s in sequences.items())
        raise UserError(
            f"{seg}: on the grid of no sequence: found {own.describe()}, expected one of: {grids}. "
            "Give the mask on the grid of the image that it was drawn on."
        )
    numbered = any(is_numbered(sequence.path) for sequence in sequences.values())
    convention = convention or infer_convention(codes, str(seg), numbered_channels=numbered)
    ours = convert_labels(codes, convention, str(seg))
    moved = resampled_labels(ours, own, grid, sequences[owner].matrix @ pose)
    return convert_back(moved, convention), [f"{seg.name}: drawn on {owner}, moved with it"]


def _numbers(
    fit: extraction.Fit,
    sequences: Mapping[str, Sequence],
    reference: str,
    working: Grid,
    pose: np.ndarray,
    atlas: Atlas,
    inside: np.ndarray,
) -> dict[str, Any]:
    expected = extraction.brain_of_atlas(atlas, working, fit.matrix)
    both = float((fit.brain & expected).sum())
    fixed = sequences[reference].working
    corners = working.corners()
    reached = float((inside > 0.5).sum()) * atlas.grid.voxel_ml * abs(np.linalg.det(pose[:3, :3]))
    brain_ml = float(fit.brain.sum()) * working.voxel_ml
    rows: dict[str, dict[str, float]] = {}
    for name, sequence in sequences.items():
        rows[name] = {}
        if name == reference:
            continue
        moved = corners @ sequence.matrix[:3, :3].T + sequence.matrix[:3, 3] - corners
        rows[name] = {
            "information_before": _information(fixed, sequence.as_is, fit.brain),
            "information_after": _information(fixed, sequence.working, fit.brain),
            "displacement_mm": float(np.linalg.norm(moved, axis=1).mean()),
        }
    return {
        "brain_ml": brain_ml,
        "atlas_dice": 2 * both / max(float(fit.brain.sum() + expected.sum()), 1.0),
        "atlas_similarity": fit.similarity,
        "atlas_volume_ratio": float(1 / max(abs(np.linalg.det(fit.matrix[:3, :3])), 1e-6)),
        "rim": extraction.rim(
            {name: sequence.working for name, sequence in sequences.items()}, fit.brain
        ),
        "cut": max(0.0, 1 - reached / brain_ml),
        "sequences": rows,
    }


def _information(a: np.ndarray, b: np.ndarray | None, brain: np.ndarray) -> float:
    if b is None:
        return 0.0
    both = brain & (a != 0) & (b != 0)
    return mutual_information(a[both], b[both])
