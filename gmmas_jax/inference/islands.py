"""Removal of small separate findings, the common post-processing of segmentation challenges."""

import numpy as np
from scipy import ndimage


def drop_islands(probabilities: np.ndarray, *, min_voxels: float) -> None:
    """Turns every separate piece of tumour below a size into background, in place.

    Voxels that touch by a face, an edge or a corner belong to one piece. The largest piece always
    stays: to find something small is no reason to find nothing.

    Args:
        probabilities: float32 [d h w k], class 0 background.
        min_voxels: Smallest size that stays.
    """
    pieces, count = ndimage.label(probabilities.argmax(axis=-1) > 0, structure=np.ones((3, 3, 3)))
    if count < 2:
        return
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    small = (sizes < min_voxels) & (sizes < sizes.max())
    small[0] = False
    dropped = small[pieces]
    probabilities[dropped] = 0.0
    probabilities[dropped, 0] = 1.0
