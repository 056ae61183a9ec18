"""Constructed heads: small, quick to make, and with the contrasts that the check looks for."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from gmmas_jax.cases.manifest import Row
from gmmas_jax.cases.sequences import SEQUENCES

SHAPE = (40, 48, 38)
SPACING = 4.0
AFFINE = np.diag([-SPACING, -SPACING, SPACING, 1.0])
"""As in BraTS: from right to left, from front to back."""

# Fluid, grey matter, white matter, NCR, ED, ET.
_TISSUES = {
    "t1n": (30, 70, 100, 45, 65, 75),
    "t1c": (30, 70, 100, 45, 65, 190),
    "t2w": (210, 110, 80, 170, 165, 130),
    "t2f": (30, 105, 85, 90, 190, 140),
}


def make_head(seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns images, sequence to float32 [40 48 38], and label, uint8 with our codes."""
    generator = np.random.default_rng(seed)
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
    offset = (index - (np.array(SHAPE) - 1) / 2) * SPACING
    radius = np.sqrt(((offset / np.array([66, 82, 62])) ** 2).sum(-1))
    folds = ndimage.gaussian_filter(generator.normal(size=SHAPE), 1.2)
    folds /= folds.std()
    brain = radius < 1
    white = (radius + 0.12 * folds < 0.75) & brain
    place, size = (
        generator.uniform(-8, 8, 3),
        np.array([14, 34, 12]) * generator.uniform(0.8, 1.3, 3),
    )
    ventricle = (np.abs(offset - place) < size).all(-1)
    fluid = brain & (ventricle | ((radius > 0.9) & (folds > 0.8)))
    centre = np.array([generator.choice([-36, 36]), generator.integers(-30, 30), 18])
    tumour = np.sqrt(((offset - centre) ** 2).sum(-1)) + 2 * folds
    label = np.zeros(SHAPE, np.uint8)
    for code, size in ((2, 20), (3, 14), (1, 9)):
        label[(tumour < size * generator.uniform(0.9, 1.1)) & brain] = code
    vessels = brain & (generator.random(SHAPE) > 0.995)
    images = {}
    for name in SEQUENCES:
        csf, grey, matter, core, oedema, enhancing = _TISSUES[name]
        image = np.select(
            [label == 1, label == 2, label == 3, fluid, white, brain],
            [core, oedema, enhancing, csf, matter, grey],
            0.0,
        )
        if name == "t1c":
            image = np.where(vessels & (label == 0), 190.0, image)
        image = ndimage.gaussian_filter(image, 0.5) + generator.normal(0, 3, SHAPE)
        images[name] = np.where(brain, np.clip(10 * image, 50, None), 0).astype(np.float32)
    return images, label


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """Writes a NIfTI file without a check; float arrays as float32, others as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm")
    path.write_bytes(gzip.compress(image.to_bytes(), 1))
    return path


def write_case(folder: Path, case_id: str, seed: int, **fields: str | float | None) -> Row:
    """Writes the five files of a case; returns its row, with the fields changed."""
    images, label = make_head(seed)
    for name, image in images.items():
        save(folder / case_id / f"{name}.nii.gz", image.astype(np.int16))
    save(folder / case_id / "seg.nii.gz", label)
    cells: dict[str, object] = {
        **{name: f"{case_id}/{name}.nii.gz" for name in (*SEQUENCES, "seg")},
        "case_id": case_id,
        "patient_id": case_id,
        "label_convention": "brats2023",
        "split": "train",
    }
    return Row(**{**cells, **fields})  # type: ignore[arg-type]
