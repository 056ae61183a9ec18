"""Back from the atlas grid to the grid of every native sequence."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from data_pipelines.preprocess.images import resampled, to_array, to_image
from gmmas_jax.cases.case import Grid
from gmmas_jax.errors import UserError

RECORD = "preprocess.json"


def read_record(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads what was done to a case.

    Raises:
        UserError: If the folder holds no readable preprocess.json.
    """
    path = Path(folder) / RECORD
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); expected the record of a preprocessed case. "
            "Preprocess the case again."
        ) from error
    return record


def to_native(mask: np.ndarray, folder: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Brings a mask back to the native grid of every sequence.

    Each label is interpolated linearly, and the one with the largest share taken.

    Args:
        mask: Integers [i j k] on the grid of the preprocessed files, in their axis order.
        folder: Of the preprocessed case.

    Returns:
        Sequence name to uint8 [i j k] on the grid of the native file, in its axis order.

    Raises:
        UserError: If the record cannot be read, or the mask is not on the case's grid.
    """
    record = read_record(folder)
    grid = _grid(record["grid"])
    if mask.shape != grid.shape:
        raise UserError(
            f"{folder}: the mask has {mask.shape} voxels; expected {grid.shape}, the grid of the "
            "preprocessed files. Give a mask that was made from them."
        )
    return {
        name: resampled_labels(mask, grid, _grid(entry["grid"]), np.linalg.inv(entry["matrix"]))
        for name, entry in record["sequences"].items()
    }


def resampled_labels(
    mask: np.ndarray, source: Grid, target: Grid, matrix: np.ndarray
) -> np.ndarray:
    """Samples labels on another grid: linear per label, the largest share wins.

    Args:
        mask: Integers [i j k].
        source: Its grid.
        target: The grid of the result.
        matrix: float64 [4 4], points of `target` to points of `source`, RAS mm.

    Returns:
        uint8 on `target`.
    """
    codes = [int(code) for code in np.unique(mask) if code]
    winner = np.zeros(target.shape, np.uint8)
    best = np.full(target.shape, 0.0, np.float32)
    total = np.zeros(target.shape, np.float32)
    for code in codes:
        one = to_image((mask == code).astype(np.float32), source)
        share = to_array(resampled(one, target, matrix, interpolator=sitk.sitkLinear))
        winner[share > best] = code
        best = np.maximum(best, share)
        total += share
    # What is left of a voxel is background.
    winner[best <= 1.0 - total] = 0
    return winner


def grid_record(grid: Grid) -> dict[str, Any]:
    """Returns a grid for JSON, exactly."""
    return {"shape": list(grid.shape), "affine": grid.affine.tolist()}


def _grid(record: dict[str, Any]) -> Grid:
    i, j, k = record["shape"]
    return Grid((i, j, k), np.array(record["affine"], np.float64))
