"""A small batch and the `augment` section that leaves it as it is."""

import jax
import numpy as np
import pytest

from gmmas_jax.augment.patch import make_augmentation
from gmmas_jax.config import base_config, to_dict

_PROGRAMS = {}
"""Compiled once for all tests: a program of many stages takes ten seconds."""


@pytest.fixture(name="off")
def _off():
    """The section with everything off."""
    still = {"flip": (0.0, 0.0, 0.0), "intensity_scale": 0.0, "intensity_shift": 0.0}
    return to_dict(base_config())["augment"] | still


@pytest.fixture(name="section")
def _section(off):
    """Returns the section with some fields of some stages changed."""

    def make(**changes):
        merged = dict(off)
        for name, value in changes.items():
            merged[name] = off[name] | value if isinstance(value, dict) else value
        return merged

    return make


@pytest.fixture(name="everything")
def _everything():
    """Changes of the section that switch every stage on."""
    likely = {"probability": 0.7}
    stages = ("rotation", "scaling", "shear", "elastic", "bias", "blur", "low_resolution")
    stages += ("thick_slices", "gaussian_noise", "rician_noise", "brightness", "contrast")
    stages += ("inverted_gamma", "natural_gamma")
    return dict.fromkeys(stages, likely) | {
        "flip": (0.5, 0.5, 0.5),
        "sequence_dropout": 0.2,
        "gamma": 0.1,
    }


@pytest.fixture(name="batch")
def _batch():
    """Two examples; the second lacks t1c. The outermost layers are background."""
    rng = np.random.default_rng(0)
    present = np.ones((2, 4), np.float32)
    present[1, 1] = 0
    volumes = {}
    for name, shape in (("image", (12, 10, 9)), ("whole", (8, 7, 8))):
        volume = rng.normal(size=(2, *shape, 4)).astype(np.float32)
        inside = np.zeros(shape, bool)
        inside[1:-1, 1:-1, 1:-1] = True
        label = (rng.integers(0, 4, (2, *shape)) * inside).astype(np.int32)
        volume = np.where(inside[None, ..., None] & (present[:, None, None, None] > 0), volume, 0)
        volumes |= {name: volume, "label" if name == "image" else "whole_label": label}
    return volumes | {
        "present": present,
        "box": np.array([[[0.1, 0.2, 0.3], [0.6, 0.5, 0.9]]] * 2, np.float32),
        "label_valid": np.ones(2, np.float32),
        "targets": {"idh": np.eye(2, dtype=np.float32)},
    }


@pytest.fixture(name="augmented")
def _augmented(section):
    """Returns the batch as a section makes it."""

    def apply(batch, seed=0, **changes):
        settings = repr(changes)
        if settings not in _PROGRAMS:
            _PROGRAMS[settings] = jax.jit(make_augmentation(**section(**changes)))
        return jax.device_get(_PROGRAMS[settings](jax.random.key(seed), batch))

    return apply
