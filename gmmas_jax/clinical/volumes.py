"""Volumes in millilitres of a label map."""

from collections.abc import Sequence

import numpy as np

from gmmas_jax.cases.labels import LABELS, REGIONS, class_regions


def volumes_ml(
    label: np.ndarray, *, voxel_ml: float, known_labels: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Measures every label and region that the model knows.

    A label that the model cannot give is left out: 0 mL would read as "looked for, not found".

    Args:
        label: [d h w] uint8 label map.
        voxel_ml: volume of a voxel in millilitres (`Grid.voxel_ml`).
        known_labels: names of the labels that the model tells apart, background left out.

    Returns:
        {"labels": {name: mL}, "regions": {name: mL}}, rounded to a microlitre.

    Raises:
        ValueError: a voxel carries a label that is not known.
    """
    counts = np.bincount(np.asarray(label).ravel(), minlength=len(LABELS))
    codes = {name: LABELS.index(name) for name in LABELS[1:] if name in known_labels}
    unknown = sorted(set(np.flatnonzero(counts).tolist()) - {0, *codes.values()})
    if unknown:
        raise ValueError(f"label values {unknown} are none of the known labels {known_labels}")
    return {
        "labels": {name: _ml(int(counts[code]), voxel_ml) for name, code in codes.items()},
        "regions": {
            region: _ml(sum(int(counts[code]) for code in REGIONS[region]), voxel_ml)
            for region in class_regions(("background", *known_labels))
        },
    }


def _ml(voxels: int, voxel_ml: float) -> float:
    return round(voxels * voxel_ml, 3)
