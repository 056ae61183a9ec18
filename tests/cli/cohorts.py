"""Small cohorts of noise on disk, and the config of a very small network to train on them."""

from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np

from gmmas_jax.cases.manifest import Row, write_manifest
from gmmas_jax.cases.sequences import SEQUENCES

SHAPE = (12, 11, 10)

CONFIG = """
from ml_collections import ConfigDict

from gmmas_jax.config import base_config
from tests.models.small import small_config


def get_config():
    config = base_config()
    config.name = "tiny"
    with config.unlocked():
        config.model = ConfigDict(small_config(deep_supervision=0))
    config.data.update(spacing_mm=1.0, patch=(8, 8, 8), whole=(8, 8, 8), batch_size=2)
    config.objective.update(tasks=("idh", "histology"))
    config.optimizer.schedule = "constant"
    config.train.update(steps=3, log_every=1, checkpoint_every=2, ema_decay=0.9)
    config.inference.update(window=(8, 8, 8))
    return config.lock()
"""


def write_config(folder: Path) -> Path:
    """Writes the config of a network that trains in seconds."""
    path = folder / "tiny.py"
    path.write_text(CONFIG, encoding="utf-8")
    return path


def save(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """Writes a NIfTI file without a check."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def head(seed: int) -> np.ndarray:
    """Returns [12 11 10] float32: noise in a box of brain, zero around it."""
    image = np.zeros(SHAPE, np.float32)
    image[1:-1, 1:-1, 1:-1] = np.random.default_rng(seed).normal(100, 10, (10, 9, 8))
    return image


def write_cohort(folder: Path, *, cases: int = 2, **changes: str | None) -> Path:
    """Writes cases of noise with a small tumour, and the manifest.

    Args:
        folder: Where to.
        cases: How many.
        changes: Fields of the first row.
    """
    rows = []
    for index in range(cases):
        name = f"case-{index}"
        files = {
            sequence: save(folder / name / f"{sequence}.nii.gz", head(10 * index + channel))
            for channel, sequence in enumerate(SEQUENCES)
        }
        label = np.zeros(SHAPE, np.uint8)
        label[3:8, 3:8, 3:8], label[4:7, 4:7, 4:7], label[5, 5, 5] = 2, 1, 3
        files["seg"] = save(folder / name / "seg.nii.gz", label)
        fields: Mapping[str, str | None] = {
            **{key: str(path.relative_to(folder)) for key, path in files.items()},
            "case_id": name,
            "patient_id": name,
            "label_convention": "brats2023",
            "idh": ("wildtype", "mutant")[index % 2],
            "split": "train",
        }
        rows.append(Row(**{**fields, **(changes if index == 0 else {})}))
    write_manifest(folder / "cohort.csv", rows)
    return folder / "cohort.csv"
