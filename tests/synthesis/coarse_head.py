"""A coarse head of three shells, so that generating takes no time."""

import numpy as np

from gmmas_jax.synthesis.anatomy import anatomy_affine

SPACING = 8.0


def coarse_maps() -> np.ndarray:
    """Returns [6 20 24 20] float32: an ellipsoid of white matter in a shell of grey."""
    affine = anatomy_affine(SPACING)
    index = np.stack(np.meshgrid(np.arange(20), np.arange(24), np.arange(20), indexing="ij"))
    world = index * SPACING + affine[:3, 3].reshape(3, 1, 1, 1)
    centre, axes = np.array([0, -18, 6]), np.array([66, 82, 66])
    radius = np.sqrt((((world.T - centre) / axes) ** 2).sum(-1)).T
    brain, grey, white = radius < 1, (radius < 0.9) & (radius >= 0.6), radius < 0.6
    # A ventricle of fluid in the middle.
    white &= radius > 0.2
    priors = [white * (world[0] > 0), white, grey * 0.5 + white]
    return np.stack([brain, grey, white, *priors]).astype(np.float32)
