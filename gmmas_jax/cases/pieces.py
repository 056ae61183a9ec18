"""Connected pieces of a mask and the holes in them, in 3D; voxels touch by their faces."""

import numpy as np
from scipy import ndimage


def filled(mask: np.ndarray) -> np.ndarray:
    """Returns a mask with its holes filled; one labelling, much faster than binary_fill_holes.

    Args:
        mask: bool [d h w].
    """
    outside, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))
    return np.asarray(outside[1:-1, 1:-1, 1:-1] != outside[0, 0, 0])


def largest_filled(mask: np.ndarray) -> np.ndarray:
    """Returns the largest piece of a mask, its holes filled; empty for an empty one.

    Args:
        mask: bool [d h w].
    """
    pieces, count = ndimage.label(mask)
    if count > 1:
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        mask = pieces == sizes.argmax()
    return filled(mask)
