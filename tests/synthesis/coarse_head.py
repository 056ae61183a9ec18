"""A coarse head of three shells, so that generating takes no time."""

import numpy as np

from gmmas_jax.synthesis.anatomy import PRIOR_MM, anatomy_affine, head_maps
from gmmas_jax.synthesis.frame import BOX_MM

SPACING = 8.0


def _world(spacing_mm: float) -> np.ndarray:
    shape = [int((high - low) / spacing_mm) for low, high in BOX_MM]
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    return index * spacing_mm + anatomy_affine(spacing_mm)[:3, 3].reshape(3, 1, 1, 1)


def _radius(world: np.ndarray) -> np.ndarray:
    centre, axes = np.array([0, -18, 6]), np.array([66, 82, 66])
    return np.sqrt((((world.T - centre) / axes) ** 2).sum(-1)).T


def coarse_maps() -> np.ndarray:
    """Returns [20 24 20 9] float32: white matter in a shell of grey, a ventricle in the middle.

    As in the atlas, the ventricle is a hole in the brain's mask.
    """
    world = _world(SPACING)
    radius = _radius(world)
    grey, white = (radius < 0.9) & (radius >= 0.6), (radius < 0.6) & (radius > 0.25)
    mask = (radius < 1) & (radius > 0.25)
    return head_maps(mask, grey * 1.0, white * 1.0, world, SPACING)


def coarse_priors() -> np.ndarray:
    """Returns [3 40 48 40] float32: the right half of white matter, all of it, and grey too."""
    world = _world(PRIOR_MM)
    radius = _radius(world)
    white = (radius < 0.6) & (radius > 0.3)
    priors = [white * (world[0] > 0), white, 0.5 * (radius < 0.8) * (radius >= 0.6) + white]
    return np.stack(priors).astype(np.float32)
