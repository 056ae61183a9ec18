"""One DICOM series to one NIfTI file, by dcm2niix, and read back."""

import importlib
import itertools
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from data_pipelines.ingest.dicom_geometry import header_affine
from data_pipelines.ingest.dicom_headers import Series
from data_pipelines.nifti import read_mask, write_volume
from gmmas_jax.cases.case import Grid
from gmmas_jax.errors import UserError

_LONGEST_S = 900
_SAME_PLACE_MM = 1.0
_SAME_SHARE = 0.02
"""Millimetres, or share of a volume's extent, by which dcm2niix may place it otherwise."""


def converter() -> str:
    """Returns the path of dcm2niix.

    Raises:
        UserError: If it is not installed.
    """
    try:
        # Not everybody who has NIfTI files has the converter.
        return str(importlib.import_module("dcm2niix").bin)
    except ImportError as error:
        raise UserError(
            "dcm2niix: not installed; expected it for DICOM. Install gmmas-jax[preprocess]."
        ) from error


def convert(series: Series, out: Path) -> Grid:
    """Converts a series whose planes make a volume, and writes it whole or not at all.

    The result is read back and compared with the headers; then voxels and geometry alone are
    written: what dcm2niix notes in free text, such as the time of day, is not.

    Args:
        series: Without a fault of `dicom_geometry.fault_of`.
        out: Ends with `.nii.gz`.

    Returns:
        The grid of the file.

    Raises:
        UserError: If dcm2niix fails, makes more than one volume of it, or one that does not fit
            the headers.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".dicom-", dir=out.parent) as scratch:
        volume = _converted(series, Path(scratch))
        try:
            array, grid = read_mask(volume)
        except UserError as error:
            # The message names a file that is about to vanish.
            problem = str(error).removeprefix(f"{volume}: ")
            raise UserError(f"what dcm2niix made of it cannot be used: {problem}") from error
    if array.min() == array.max():
        raise UserError("every voxel has the same value")
    grid = _grid(series, array, grid)
    write_volume(out, array, grid, dtype=array.dtype.type)
    return grid


def _converted(series: Series, scratch: Path) -> Path:
    images, made = scratch / "images", scratch / "made"
    images.mkdir()
    made.mkdir()
    paths = dict.fromkeys(plane.path for plane in series.slices)
    for number, path in enumerate(paths):
        # Names without blanks, dashes or patients, whatever the archive calls its files.
        staged = images / f"{number:06d}.dcm"
        try:
            staged.symlink_to(Path(path).absolute())
        except OSError:  # A file system without links.
            shutil.copyfile(path, staged)
    command = [
        *(converter(), "-z", "n", "-b", "n", "-x", "i", "-c", "", "-w", "1", "-f", "volume"),
        *("-o", str(made), str(images)),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=_LONGEST_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"dcm2niix took longer than {_LONGEST_S} s") from error
    volumes = sorted(made.glob("*.nii"))
    if done.returncode != 0 or not volumes:
        raise UserError(f"dcm2niix failed on it (exit code {done.returncode})")
    if len(volumes) > 1:
        raise UserError(f"dcm2niix made {len(volumes)} volumes of it; expected one")
    return volumes[0]


def _grid(series: Series, array: np.ndarray, made: Grid) -> Grid:
    """Returns the grid of the headers for the array of dcm2niix, whose own has to be near it.

    dcm2niix takes the distance of slices from the first two, where rounded positions put the last
    slice of a real series 1.3 mm beside its place; here it is the mean over all.
    """
    expected = header_affine(series.slices)
    rows, columns = series.slices[0].matrix
    shape = (columns, rows, len(series.slices))
    if array.ndim != 3 or sorted(array.shape) != sorted(shape):
        raise UserError(
            f"dcm2niix made a volume of {'x'.join(map(str, array.shape))} voxels; its headers say "
            f"{'x'.join(map(str, shape))}"
        )
    candidates = [
        Grid(made.shape, _reordered(expected, shape, order, flips))
        for order in itertools.permutations(range(3))
        if tuple(shape[axis] for axis in order) == made.shape
        for flips in itertools.product((False, True), repeat=3)
    ]
    beside = [float(np.abs(grid.corners() - made.corners()).max()) for grid in candidates]
    best = int(np.argmin(beside))
    extent = float(np.abs(made.corners()[-1] - made.corners()[0]).max())
    if beside[best] > max(_SAME_PLACE_MM, _SAME_SHARE * extent):
        raise UserError(f"dcm2niix put it {beside[best]:.3g} mm beside where its headers do")
    return candidates[best]


def _reordered(
    affine: np.ndarray, shape: tuple[int, int, int], order: tuple[int, ...], flips: tuple[bool, ...]
) -> np.ndarray:
    """Returns the affine after axes were put in another order and some of the new ones flipped."""
    result = affine[:, [*order, 3]].copy()
    for axis, flip in enumerate(flips):
        if flip:
            result[:3, 3] += result[:3, axis] * (shape[order[axis]] - 1)
            result[:3, axis] *= -1
    return result
