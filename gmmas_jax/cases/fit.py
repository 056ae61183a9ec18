"""Slices of any size in a frame of one size, and back."""

from collections.abc import Sequence

import numpy as np

from gmmas_jax.cases.geometry import linear_weights, mix_along


def fit(plane: np.ndarray, size: Sequence[int], *, linear: bool = True) -> np.ndarray:
    """Resizes the first two axes with their proportions kept, and puts them amid zeros.

    Args:
        plane: [h w ...].
        size: Rows and columns of the result, of which the larger in proportion is filled.
        linear: Interpolate; else take the nearest, for labels.

    Returns:
        [*size ...].
    """
    zoom = _zoom(plane.shape, size)
    for axis, new in enumerate(_used(plane.shape, size)):
        weights = linear_weights(plane.shape[axis], new, zoom)
        if linear:
            plane = mix_along(plane, weights, axis=axis)
        else:
            plane = np.take(plane, weights.argmax(axis=1), axis=axis)
    result = np.zeros((*size, *plane.shape[2:]), plane.dtype)
    result[_middle(plane.shape, size)] = plane
    return result


def unfit(frame: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Undoes `fit`, linearly.

    Args:
        frame: [h w ...], what was made of a fitted slice.
        shape: h, w of the slice before.

    Returns:
        [*shape ...].
    """
    size = frame.shape[:2]
    plane = frame[_middle(_used(shape, size), size)]
    for axis in (0, 1):
        weights = linear_weights(plane.shape[axis], shape[axis], 1.0 / _zoom(shape, size))
        plane = mix_along(plane, weights, axis=axis)
    return plane


def _zoom(shape: Sequence[int], size: Sequence[int]) -> float:
    return min(new / old for new, old in zip(size, shape[:2], strict=True))


def _used(shape: Sequence[int], size: Sequence[int]) -> tuple[int, int]:
    zoom = _zoom(shape, size)
    rows, columns = (
        min(max(1, round(old * zoom)), new) for old, new in zip(shape[:2], size, strict=True)
    )
    return rows, columns


def _middle(shape: Sequence[int], size: Sequence[int]) -> tuple[slice, slice]:
    (top, left) = ((room - used) // 2 for room, used in zip(size, shape[:2], strict=True))
    return slice(top, top + shape[0]), slice(left, left + shape[1])
