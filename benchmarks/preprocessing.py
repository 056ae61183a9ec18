"""Preprocessing of two real native exams against their published BraTS versions.

    .venv/bin/python -m benchmarks.preprocessing

The published T1c is matched rigidly with the native one; every native sequence is then brought to
the published grid by one interpolation, with the maps that preprocessing found, and so is the brain
mask. Mutual information with T1c is measured in the same voxels (both brains, every sequence of
both) by one function for both versions, and again after both were smoothed alike, since blurring
alone raises it.

How sharp the published volumes are, and where they were cut, is no matter of registration. So the
published registration is found as well, each native sequence matched with its published version,
and the same native voxels are sampled by it and by ours: the column "resampled alike".
"""

import argparse
import datetime
import resource
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from benchmarks.machine import save_result
from data_pipelines.nifti import read_volume
from data_pipelines.preprocess.atlas import load_atlas
from data_pipelines.preprocess.bias import without_bias
from data_pipelines.preprocess.case import preprocess_case
from data_pipelines.preprocess.images import antialiased, resampled, to_array, to_image
from data_pipelines.preprocess.native import read_record
from data_pipelines.preprocess.registration import align
from data_pipelines.preprocess.settings import Settings
from gmmas_jax.cases.case import Grid
from gmmas_jax.measure import machine_facts

DATA = Path(__file__).resolve().parents[2] / "shared/data"
EXAMS = {"tcga-fg-6692": "raw", "tcga-du-7294": "native"}
MOVING = ("t1n", "t2w", "t2f")
SMOOTH_MM = 1.5
"""Deviation of the Gaussian that both versions get for the fair comparison."""

_BLOCK = 24
_GROUPS = 20
"""Blocks of so many voxels along an edge, in so many groups, are left out in turn."""

_BINS = 64


def main() -> None:
    """Measures and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--score", action="store_true", help="only score what --keep holds")
    parser.add_argument("--keep", type=Path, help="folder that receives the preprocessed exams")
    arguments = parser.parse_args()
    atlas, rows = load_atlas(), {}
    with tempfile.TemporaryDirectory() as folder:
        for exam, part in EXAMS.items():
            out = (arguments.keep or Path(folder)) / exam
            images = {name: DATA / exam / part / f"{name}.nii.gz" for name in ("t1c", *MOVING)}
            start = time.process_time()
            if arguments.score:
                record = read_record(out)
            else:
                record = preprocess_case(
                    exam, images, out, atlas, Settings(brain_extraction="atlas")
                )
            seconds = time.process_time() - start
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            rows[exam] = score(record, out, DATA / exam / "atlas") | {
                "cpu_s": seconds,
                "peak_bytes": peak,
                "verdict": record["verdict"],
            }
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": machine_facts(),
        "exams": rows,
    }
    page = _page(result)
    print(page)
    if not arguments.check:
        save_result("preprocessing", result, page)


def score(record: Mapping[str, Any], folder: Path, published: Path) -> dict[str, Any]:
    """Compares a preprocessed case with its published version.

    Args:
        record: The content of preprocess.json.
        folder: Of the case.
        published: Folder of the published sequences, one grid, skull-stripped.

    Returns:
        `dice` and `brain_ml` (ours, published), and per sequence `ours`, `published`, the ratio
        and its standard `error` (blocks left out in turn): `sequences` as they are, `smoothed`
        alike, and `resampled`, one native sequence by our registration and by the published one.
    """
    theirs = {name: read_volume(published / f"{name}.nii.gz") for name in ("t1c", *MOVING)}
    grid = theirs["t1c"][1]
    brain = np.all([array != 0 for array, _ in theirs.values()], axis=0)
    entries = record["sequences"]
    native = {}
    for name, entry in entries.items():
        array, own = read_volume(entry["source"])
        native[name] = to_image(antialiased(array, own, min(grid.spacing)), own)
    array, own = read_volume(folder / f"{record['case']}-t1c.nii.gz")
    # The atlas may be another than the published one: both brains have their centres.
    start = np.eye(4)
    start[:3, 3] = _centre(array != 0, own) - _centre(brain, grid)
    deep = to_image(ndimage.binary_erosion(brain, iterations=2), grid)
    match, _ = align(
        to_image(theirs["t1c"][0], grid),
        without_bias(native["t1c"]),
        initial=np.array(entries["t1c"]["matrix"]) @ start,
        affine=False,
        levels_mm=(4, 2, 1),
        mask=deep,
    )
    maps = {name: np.array(entries[name]["to_reference"]) @ match for name in native}
    ours = {name: to_array(resampled(image, grid, maps[name])) for name, image in native.items()}
    as_published = {"t1c": ours["t1c"]}
    for name in MOVING:
        target = to_image(theirs[name][0], grid)
        found, _ = align(
            target, native[name], initial=maps[name], affine=False, levels_mm=(2, 1), mask=deep
        )
        as_published[name] = to_array(resampled(native[name], grid, found))
    back = np.linalg.inv(entries["t1c"]["matrix"]) @ match
    mask = to_array(resampled(to_image((array != 0).astype(np.float32), own), grid, back)) > 0.5
    whole = theirs["t1c"][0] != 0
    both = brain & mask
    both &= np.all([a != 0 for a in (*ours.values(), *as_published.values())], axis=0)
    arrays = {name: (ours[name], theirs[name][0]) for name in ours}
    again = {name: (ours[name], as_published[name]) for name in ours}
    smooth = {
        name: tuple(ndimage.gaussian_filter(a.astype(np.float32), SMOOTH_MM) for a in pair)
        for name, pair in arrays.items()
    }
    inner = ndimage.binary_erosion(both, iterations=3)
    return {
        "dice": 2 * float((mask & whole).sum()) / float(mask.sum() + whole.sum()),
        "brain_ml": [float(m.sum()) * grid.voxel_ml for m in (mask, whole)],
        "sequences": {name: _compared(arrays, name, both) for name in MOVING},
        "smoothed": {name: _compared(smooth, name, inner) for name in MOVING},
        "resampled": {name: _compared(again, name, both) for name in MOVING},
    }


def _centre(mask: np.ndarray, grid: Grid) -> np.ndarray:
    centre: np.ndarray = grid.affine[:3, :3] @ np.argwhere(mask).mean(axis=0) + grid.affine[:3, 3]
    return centre


def _compared(
    arrays: Mapping[str, tuple[np.ndarray, ...]], name: str, where: np.ndarray
) -> dict[str, float]:
    block = np.argwhere(where) // _BLOCK
    _, number = np.unique(block, axis=0, return_inverse=True)
    group = number.ravel() % _GROUPS
    sides = [_by_group(arrays["t1c"][s][where], arrays[name][s][where], group) for s in (0, 1)]
    whole = [counts.sum(axis=0) for counts in sides]
    ours, published = map(_information, whole)
    # Neighbouring voxels are not independent: whole blocks are left out, not voxels (jackknife).
    left = [
        _information(whole[0] - sides[0][n]) / _information(whole[1] - sides[1][n])
        for n in range(_GROUPS)
    ]
    error = np.sqrt((_GROUPS - 1) * np.var(left))
    return {
        "ours": ours,
        "published": published,
        "ratio": ours / published,
        "error": float(error),
    }


def _by_group(a: np.ndarray, b: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Returns the joint histogram of each group of voxels, [groups bins bins]."""
    a, b = (_bin(values) for values in (a, b))
    flat = (group * _BINS + a) * _BINS + b
    counts = np.bincount(flat, minlength=_GROUPS * _BINS * _BINS)
    return counts.reshape(_GROUPS, _BINS, _BINS)


def _bin(values: np.ndarray) -> np.ndarray:
    low, high = np.percentile(values, (0.5, 99.5))
    scaled = (np.clip(values, low, high) - low) / (high - low) * _BINS
    return np.minimum(scaled.astype(np.int64), _BINS - 1)


def _information(counts: np.ndarray) -> float:
    """Returns what `mutual_information` does, of a joint histogram, in nats."""
    joint = counts / counts.sum()
    independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    filled = joint > 0
    return float((joint[filled] * np.log(joint[filled] / independent[filled])).sum())


def _page(result: Mapping[str, Any]) -> str:
    lines = [
        "# Two native exams, preprocessed, against their published versions",
        "",
        "Mutual information with T1c in nats, same voxels; ratio with its standard error.",
        "",
        "| exam | sequence | here | published | ratio | smoothed alike | resampled alike |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for exam, row in result["exams"].items():
        for name, found in row["sequences"].items():
            fair, same = row["smoothed"][name], row["resampled"][name]
            lines.append(
                f"| {exam} | {name} | {found['ours']:.4f} | {found['published']:.4f} "
                f"| {found['ratio']:.3f} ± {found['error']:.3f} "
                f"| {fair['ratio']:.3f} ± {fair['error']:.3f} "
                f"| {same['ratio']:.3f} ± {same['error']:.3f} |"
            )
    lines += [
        "",
        "| exam | Dice of the brains | mL here | mL published | processor s | peak GB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {exam} | {row['dice']:.4f} | {row['brain_ml'][0]:.0f} | {row['brain_ml'][1]:.0f} "
        f"| {row['cpu_s']:.0f} | {row['peak_bytes'] / 1e9:.2f} |"
        for exam, row in result["exams"].items()
    ]
    machine = result["machine"]
    lines += [
        "",
        f"{machine['processor']}, {machine['cores']} cores, load before {machine['load_before']}. "
        "The peak is of the process, which keeps it: of the largest exam so far.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
