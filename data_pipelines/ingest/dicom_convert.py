"""One DICOM series to one NIfTI file, by dcm2niix, and read back."""

import importlib
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from data_pipelines.ingest.dicom_geometry import end_planes, slice_distance
from data_pipelines.ingest.dicom_headers import Series
from data_pipelines.nifti import read_mask, write_volume
from gmmas_jax.cases.case import Grid
from gmmas_jax.errors import UserError

_LONGEST_S = 900
_SAME_SPACING = 0.02
_SAME_PLACE_MM = 1.0


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
    _check(series, array, grid)
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
        *(converter(), "-z", "i", "-b", "n", "-x", "i", "-c", "", "-w", "1", "-f", "volume"),
        *("-o", str(made), str(images)),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=_LONGEST_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"dcm2niix took longer than {_LONGEST_S} s") from error
    volumes = sorted(made.glob("*.nii.gz"))
    if done.returncode != 0 or not volumes:
        raise UserError(f"dcm2niix failed on it (exit code {done.returncode})")
    if len(volumes) > 1:
        raise UserError(f"dcm2niix made {len(volumes)} volumes of it; expected one")
    return volumes[0]


def _check(series: Series, array: np.ndarray, grid: Grid) -> None:
    """Compares a volume with the headers of its planes."""
    planes = series.slices
    expected = sorted([*planes[0].matrix, len(planes)])
    if sorted(grid.shape) != expected:
        raise UserError(
            f"dcm2niix made a volume of {'x'.join(map(str, grid.shape))} voxels; its headers say "
            f"{'x'.join(map(str, expected))}"
        )
    assert planes[0].spacing is not None  # Else it has a fault.
    sizes = sorted([*planes[0].spacing, slice_distance(planes)])
    if not np.allclose(sorted(grid.spacing), sizes, rtol=_SAME_SPACING):
        raise UserError(
            f"dcm2niix made voxels of {_sizes(sorted(grid.spacing))} mm; its headers say "
            f"{_sizes(sizes)} mm"
        )
    corners = grid.corners()
    for plane in end_planes(planes):
        corner = np.array(plane.position) * (-1, -1, 1)  # LPS to RAS.
        beside = float(np.abs(corners - corner).max(axis=1).min())
        if beside > _SAME_PLACE_MM:
            raise UserError(f"dcm2niix put it {beside:.3g} mm beside where its headers do")
    if array.min() == array.max():
        raise UserError("every voxel has the same value")


def _sizes(values: list[float]) -> str:
    return " x ".join(f"{value:.3g}" for value in values)
