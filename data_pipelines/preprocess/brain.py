"""Brain extraction without a network: the atlas finds the head, rays find the skull, in turns.

An affine map alone cannot tell a large brain from a head when the template has no skull. So the
template first gets a plain skull and scalp; from where that fits, `surface.brain_surface` looks for
the dark shell, the brain inside it is matched with the template's, brain with brain, and both are
repeated with less and less freedom.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from data_pipelines.nifti import read_mask, write_volume
from data_pipelines.preprocess.atlas import Atlas
from data_pipelines.preprocess.images import coarser, grid_of, resampled, to_array, to_image
from data_pipelines.preprocess.registration import align, similarity
from data_pipelines.preprocess.surface import brain_surface
from gmmas_jax.cases.case import Grid
from gmmas_jax.cases.pieces import largest_filled
from gmmas_jax.errors import UserError

WORKING_MM = 2.0
"""Spacing of the grid on which the brain is looked for."""

TOOLS = {"hd-bet": "hd-bet", "synthstrip": "mri_synthstrip"}
"""Method to the program that does it."""

_FREEDOM_MM = (15.0, 8.0, 4.0)
_FAT = 1.5
_BONE = 0.35
_RIM_MM = 16.0
_OPENING_MM = 4.0
_AROUND_MM = 8.0
_SHIFTS_MM = (-10.0, 0.0, 10.0, 20.0, 30.0)
_PITCHES = (-20.0, -10.0, 0.0, 10.0, 20.0, 30.0)
_UPPER_MM = 100.0
_SCALE = 0.95
_STRIPPED_ML = (600.0, 2200.0)
_TOOL_SECONDS = 1800


class Fit(NamedTuple):
    """A brain and where the atlas lies on it.

    Attributes:
        brain: bool on the working grid.
        matrix: float64 [4 4], affine, points of the atlas to points of the patient, RAS mm.
        similarity: Mutual information of brain and template after it.
    """

    brain: np.ndarray
    matrix: np.ndarray
    similarity: float


def is_stripped(array: np.ndarray, grid: Grid) -> bool:
    """Returns whether an image holds a brain and nothing around it.

    True where the background is exactly 0 and what is not 0, one piece with its holes filled, has
    a brain's volume; a head of which only the air was set to 0 is larger.
    """
    inside = array != 0
    if inside.mean() > 0.6:
        return False
    filled = largest_filled(inside)
    low, high = _STRIPPED_ML
    return low <= float(filled.sum()) * grid.voxel_ml <= high


def fit_brain(brain: np.ndarray, image: np.ndarray, grid: Grid, atlas: Atlas) -> Fit:
    """Maps the atlas onto a brain that is known.

    Args:
        brain: bool [d h w].
        image: float32 [d h w], T1-weighted for preference.
        grid: Of both.
        atlas: Where the brain is brought to.
    """
    if not brain.any():
        raise UserError("no brain found in the images; expected a head. Look at the files.")
    inside = to_array(atlas.brain) > 0
    own = atlas.grid_of_image
    scale = (brain.sum() * grid.voxel_ml / (inside.sum() * own.voxel_ml)) ** (1 / 3)
    start = np.eye(4) * scale
    start[3, 3] = 1.0
    start[:3, 3] = _centroid(brain, grid) - scale * atlas.centre
    moving = to_image(np.where(brain, image, 0).astype(np.float32), grid)
    near = _around(inside, own)
    matrix, value = align(
        atlas.image, moving, initial=start, affine=True, levels_mm=(8, 4), mask=near, iterations=80
    )
    return Fit(brain, matrix, value)


def extract_brain(images: Mapping[str, np.ndarray], grid: Grid, atlas: Atlas) -> Fit:
    """Finds the brain in a head with skull.

    Args:
        images: Sequence to float32 [d h w], co-registered, free of bias.
        grid: Isotropic, axes near to RAS.
        atlas: Tells where brains are.

    Raises:
        UserError: If there is none.
    """
    t1 = images[next(name for name in ("t1n", "t1c", "t2f", "t2w") if name in images)]
    matrix = _fit_head(to_image(t1, grid), atlas)
    fat_like = images.get("t1n", images.get("t1c"))
    fit = None
    for freedom in _FREEDOM_MM:
        prior = brain_of_atlas(atlas, grid, matrix)
        if not prior.any():
            raise UserError("no head found where the images are; expected a head. Look at them.")
        depth = ndimage.distance_transform_edt(prior)
        core = depth > 0.5 * depth.max()
        tissue = np.max([_relative(image, core) for image in images.values()], axis=0)
        fat = np.zeros(grid.shape, np.float32)
        if fat_like is not None:
            fat = (_relative(fat_like, core) > _FAT).astype(np.float32)
        brain = brain_surface(tissue, fat, prior, grid, prior_mm=freedom)
        brain = _trimmed(brain, fat > 0.5, tissue < _BONE)
        fit = fit_brain(brain, t1, grid, atlas)
        matrix = fit.matrix
    assert fit is not None  # There is more than one round.
    return fit


def brain_of_atlas(atlas: Atlas, grid: Grid, matrix: np.ndarray) -> np.ndarray:
    """Returns the atlas's brain on a patient's grid, bool.

    Args:
        atlas: The atlas.
        grid: Of the patient.
        matrix: float64 [4 4], points of the atlas to points of the patient, RAS mm.
    """
    brain = sitk.Cast(atlas.brain, sitk.sitkFloat32)
    found: np.ndarray = to_array(resampled(brain, grid, np.linalg.inv(matrix))) > 0.5
    return found


def tool_mask(image: np.ndarray, grid: Grid, method: str) -> np.ndarray:
    """Lets an installed program find the brain.

    Args:
        image: float32 [i j k], with skull.
        grid: Its grid.
        method: A name of `TOOLS`.

    Returns:
        bool [i j k].

    Raises:
        UserError: If the program is not installed, or fails.
    """
    program = shutil.which(TOOLS[method])
    if program is None:
        raise UserError(
            f"--brain-extraction {method}: no program {TOOLS[method]} on the path; expected it "
            "installed. Install it, or use --brain-extraction atlas, which needs nothing."
        )
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "head.nii.gz", Path(folder) / "brain.nii.gz"
        write_volume(source, image, grid, dtype=np.float32, compression=1)
        if method == "hd-bet":
            words = [program, "-i", str(source), "-o", str(out), "-device", "cpu"]
            words += ["--disable_tta", "--save_bet_mask", "--no_bet_image"]
            out = out.with_name("brain_bet.nii.gz")
        else:
            words = [program, "-i", str(source), "-m", str(out)]
        try:
            done = subprocess.run(
                words, capture_output=True, text=True, check=False, timeout=_TOOL_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise UserError(
                f"{program}: not done after {_TOOL_SECONDS} s. Use --brain-extraction atlas."
            ) from error
        if done.returncode != 0 or not out.is_file():
            said = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["nothing"]
            raise UserError(
                f"{program}: failed (exit code {done.returncode}, it said: {said[0]}). Mend its "
                "installation, or use --brain-extraction atlas."
            )
        found: np.ndarray = read_mask(out)[0] > 0
    return found


def rim(images: Mapping[str, np.ndarray], brain: np.ndarray) -> float:
    """Returns how bright the shell 2 to 6 mm outside of a brain is, relative to the brain.

    The least over the sequences: bone and air are dark in every one, in noise nothing is.
    """
    outside = ndimage.distance_transform_edt(~brain) * WORKING_MM
    shell = (outside >= 2) & (outside <= 6)
    if not shell.any() or not brain.any():
        return 0.0
    return min(
        float(np.median(image[shell]) / max(float(np.median(image[brain])), 1e-6))
        for image in images.values()
    )


def installed() -> str:
    """Returns the first of `TOOLS` whose program is there, else `atlas`."""
    return next((name for name, program in TOOLS.items() if shutil.which(program)), "atlas")


def _fit_head(head: sitk.Image, atlas: Atlas) -> np.ndarray:
    """Returns the affine map of the atlas with a skull put around it onto a head."""
    inside = to_array(atlas.brain) > 0
    grid = atlas.grid_of_image
    fixed, mask, top, middle = _with_skull(to_array(atlas.image), inside, grid)
    grid_head, array = grid_of(head), to_array(head)
    tissue = ndimage.binary_opening(array > 0.25 * np.percentile(array, 95))
    points = np.argwhere(tissue) @ grid_head.affine[:3, :3].T + grid_head.affine[:3, 3]
    if len(points) < 1000:
        raise UserError("hardly a voxel is brighter than the background; expected a head.")
    highest = float(np.percentile(points[:, 2], 99.8))
    upper = points[points[:, 2] > highest - _UPPER_MM]
    side, front = np.median(upper[:, 0]), np.median(upper[:, 1])
    small_fixed, small_head = coarser(fixed, 8.0), coarser(head, 8.0)
    starts: list[tuple[float, int, np.ndarray]] = []
    for shift, pitch in product(_SHIFTS_MM, _PITCHES):
        angle = np.deg2rad(pitch)
        start = np.eye(4)
        start[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        start[:3, :3] *= _SCALE
        place = np.array([side, front, highest - 10 - (top - middle[2]) + shift])
        start[:3, 3] = place - start[:3, :3] @ middle
        found = similarity(small_fixed, small_head, start, spacing_mm=8.0, mask=mask)
        starts.append((found, len(starts), start))
    best = []
    for _, number, start in sorted(starts, key=lambda entry: -entry[0])[:3]:
        matrix, _ = align(
            fixed, head, initial=start, affine=True, levels_mm=(8,), mask=mask, iterations=60
        )
        found = similarity(fixed, head, matrix, spacing_mm=4.0, mask=mask)
        if 0.5 < np.linalg.det(matrix[:3, :3]) < 1.5:
            best.append((found, number, matrix))
    if not best:
        return sorted(starts, key=lambda entry: -entry[0])[0][2]
    matrix = max(best, key=lambda entry: entry[0])[2]
    return align(fixed, head, initial=matrix, affine=True, levels_mm=(4,), mask=mask)[0]


def _with_skull(
    template: np.ndarray, inside: np.ndarray, grid: Grid
) -> tuple[sitk.Image, sitk.Image, float, np.ndarray]:
    """Puts fluid, bone and scalp around a template; returns also where to compare, top, middle."""
    outside = ndimage.distance_transform_edt(~inside, sampling=grid.spacing)
    shell = np.select([outside <= 2.5, outside <= 8, outside <= 14], [0.2, 0.05, 1.1], 0.0)
    level = np.percentile(template[inside], 95)
    head = np.where(inside, template / level, shell).astype(np.float32)
    points = np.argwhere(inside) @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    top = float(points[:, 2].max())
    middle = points[points[:, 2] > top - _UPPER_MM].mean(axis=0)
    indices = np.indices(inside.shape, np.float32)
    height = np.tensordot(grid.affine[2, :3], indices, axes=1) + grid.affine[2, 3]
    # Below, faces and necks differ too much for a shell.
    compared = inside | ((outside <= 17) & (height > points[:, 2].mean() - 30))
    return to_image(head, grid), to_image(compared, grid), top, middle


def _around(inside: np.ndarray, grid: Grid) -> sitk.Image:
    near = ndimage.distance_transform_edt(~inside, sampling=grid.spacing) < _AROUND_MM
    return to_image(near, grid)


def _trimmed(brain: np.ndarray, fat: np.ndarray, bone: np.ndarray) -> np.ndarray:
    """Takes fat and bone near the surface away: orbits, scalp and marrow that rays ran into."""
    outer = ndimage.distance_transform_edt(brain) * WORKING_MM < _RIM_MM
    left = brain & ~(outer & (fat | bone))
    deep = ndimage.distance_transform_edt(left) * WORKING_MM > _OPENING_MM
    pieces, count = ndimage.label(deep)
    if count == 0:
        return brain
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    away = ndimage.distance_transform_edt(pieces != sizes.argmax()) * WORKING_MM
    return largest_filled((away <= _OPENING_MM + 0.5) & brain & ~(outer & fat))


def _relative(image: np.ndarray, core: np.ndarray) -> np.ndarray:
    level = float(np.median(image[core]))
    relative: np.ndarray = image / max(level, 1e-6)
    return relative


def _centroid(mask: np.ndarray, grid: Grid) -> np.ndarray:
    middle: np.ndarray = grid.affine[:3, :3] @ np.argwhere(mask).mean(axis=0) + grid.affine[:3, 3]
    return middle
