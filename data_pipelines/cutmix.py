"""Tumor-CutMix: a tumour of one class completed by a part of a tumour of another class.

From the caption of GMMAS's figure: segments of the tumours of two patients of different class are
combined into one, whose label is in the proportion of the two. What the caption leaves open is
written down in `docs/explanation/tumor-cutmix.md`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from data_pipelines.prepared import CaseArrays, PreparedCase
from gmmas_jax.cases.geometry import resample
from gmmas_jax.cases.labels import REGIONS
from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.cases.tasks import TASKS, task_index
from gmmas_jax.errors import UserError

Box = tuple[slice, slice, slice]
TumourVoxels = dict[int, np.ndarray]
"""Label code to flat voxel indices, int32 [n], C order; only codes that the case has."""

LEAST_PART, GREATEST_PART = 0.3, 0.7
"""Between which the part of its own tumour lies that the first patient keeps."""

_WHOLE_TUMOUR = REGIONS["WT"]
_UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class Composite:
    """What takes the place of a box of the first case.

    Attributes:
        box: Around the tumour of the first case.
        image: [n n n 4], of the dtype of the case's image.
        label: uint8 [n n n].
        pasted: bool [n n n], where the second tumour was put.
        share: Tumour voxels of the first case divided by all, above 0 and below 1.
    """

    box: Box
    image: np.ndarray
    label: np.ndarray
    pasted: np.ndarray
    share: float


class Partners:
    """Which cases may be combined: both with a tumour, of different class, a sequence in common."""

    def __init__(self, cases: Sequence[PreparedCase], tasks: Sequence[str]) -> None:
        """Tabulates the classes of all cases, a few bytes for each.

        Args:
            cases: To train on; none of the splits val and test.
            tasks: Names of `TASKS`. The first of them that both cases know decides.

        Raises:
            UserError: If a task is unknown, a case is not for training, or no two cases fit.
        """
        for task in tasks:
            if task not in TASKS:
                raise UserError(
                    f"data.cutmix_task: {task!r} is unknown; expected some of {', '.join(TASKS)}."
                )
        held_out = [case.case_id for case in cases if case.split not in (None, "train")]
        if held_out:
            raise UserError(
                f"data.cutmix is on, but {held_out[0]} is of the split that is held out; expected "
                "cases of the split train only. Set it to 0."
            )
        classes = [[task_index(task, case.tasks.get(task)) for task in tasks] for case in cases]
        self._classes = np.array(
            [[_UNKNOWN if known is None else known for known in row] for row in classes], np.int8
        ).reshape(len(cases), len(tasks))
        self._sequences = np.array([_sequence_bits(case) for case in cases], np.uint8)
        self._tumour = np.array([has_tumour(case) for case in cases], bool)
        if not any(self.of(position).size for position in range(len(cases))):
            raise UserError(
                f"data.cutmix is on, but no two cases with a tumour mask differ in "
                f"{' or '.join(tasks) or 'data.cutmix_task, which names no task'}. Name another "
                "task in data.cutmix_task, or set data.cutmix to 0."
            )

    def of(self, position: int) -> np.ndarray:
        """Returns the positions of the cases that one may be combined with, int64 [n]."""
        if not self._tumour[position]:
            return np.zeros(0, np.int64)
        undecided = self._tumour & ((self._sequences & self._sequences[position]) > 0)
        differs = np.zeros_like(undecided)
        for theirs, own in zip(self._classes.T, self._classes[position], strict=True):
            if own != _UNKNOWN:
                both_known = undecided & (theirs != _UNKNOWN)
                differs |= both_known & (theirs != own)
                undecided &= ~both_known
        return np.flatnonzero(differs)


def has_tumour(case: PreparedCase) -> bool:
    """Says whether a case has a mask with tumour in it; a cavity alone is none."""
    return case.foreground is not None and any(
        case.foreground[code - 1] for code in _WHOLE_TUMOUR if code <= len(case.foreground)
    )


def tumour_voxels(case: PreparedCase, arrays: CaseArrays) -> TumourVoxels:
    """Returns the voxels of each label code of a case, from what is stored of them."""
    codes = [code for code, count in enumerate(case.foreground or (), start=1) if count]
    return dict(zip(codes, arrays.foreground, strict=True))


def combine(
    generator: np.random.Generator,
    first: tuple[CaseArrays, TumourVoxels],
    second: tuple[CaseArrays, TumourVoxels],
    *,
    feather: int = 0,
) -> Composite | None:
    """Combines two tumours; only the boxes around them are read.

    A plane across a random axis parts the box of the first tumour, so that a part of 0.3 to 0.7 of
    it (as near as whole slices come) lies on the side that stays. The second tumour's box is
    resampled to the size of the first's (image linear, label nearest), and on the other side its
    tumour takes the place of what was there. Tumour of the first case that it does not cover stays,
    so that there is no hole; and nothing is put outside the first brain.

    Args:
        generator: Of this example; always draws the same number of times.
        first: A case with tumour, and its voxels by code.
        second: A case of another class.
        feather: Voxels from the border of the pasted tumour inwards over which the images blend;
            the label does not.

    Returns:
        The composite; None if nothing of the second tumour would show, or the first is a single
        voxel.
    """
    part = generator.uniform(LEAST_PART, GREATEST_PART)
    axes, reverse = generator.permutation(3), bool(generator.integers(2))
    box, other_box = _bounds(*first), _bounds(*second)
    assert first[0].label is not None  # Both have a tumour.
    assert second[0].label is not None
    label = np.array(first[0].label[box])
    tumour = np.isin(label, _WHOLE_TUMOUR)
    cuttable = [axis for axis in axes.tolist() if label.shape[axis] > 1]
    if not cuttable:
        return None
    given = _other_side(tumour, axis=cuttable[0], part=part, reverse=reverse)
    other_label = _nearest(np.asarray(second[0].label[other_box]), label.shape)
    image = np.array(first[0].image[box])
    pasted = given & np.isin(other_label, _WHOLE_TUMOUR) & image.any(axis=-1)
    if not pasted.any():
        return None
    other_image = resample(np.asarray(second[0].image[other_box]), label.shape)
    weight = _feathered(pasted, feather)[pasted][:, None]
    own = image[pasted].astype(np.float32)
    image[pasted] = own + weight * (other_image[pasted] - own)
    label[pasted] = other_label[pasted]
    kept = np.count_nonzero(tumour & ~pasted)
    return Composite(box, image, label, pasted, kept / (kept + np.count_nonzero(pasted)))


def composite_voxels(
    composite: Composite, voxels: TumourVoxels, shape: Sequence[int]
) -> TumourVoxels:
    """Returns the voxels by code of the first case with the composite in its place.

    Args:
        composite: Of `combine`.
        voxels: Of the first case.
        shape: d, h, w of the first case.
    """
    origin = np.array([side.start for side in composite.box])[:, None]
    result = {}
    for code in sorted({*_WHOLE_TUMOUR, *voxels}):
        inside = np.array(np.nonzero(composite.label == code)) + origin
        found = np.ravel_multi_index(tuple(inside), tuple(shape)).astype(np.int32)
        if code not in _WHOLE_TUMOUR and code in voxels:
            # A resection cavity may lie outside the tumour's box; the tumour does not.
            found = np.concatenate([found, _outside(voxels[code], composite.box, shape)])
        if found.size:
            result[code] = found
    return result


def _bounds(arrays: CaseArrays, voxels: TumourVoxels) -> Box:
    """Returns the smallest box around the whole tumour."""
    shape = tuple(arrays.image.shape[:3])
    flat = np.concatenate([voxels[code] for code in _WHOLE_TUMOUR if code in voxels])
    x, y, z = (slice(int(i.min()), int(i.max()) + 1) for i in np.unravel_index(flat, shape))
    return (x, y, z)


def _outside(flat: np.ndarray, box: Box, shape: Sequence[int]) -> np.ndarray:
    places = np.unravel_index(flat, tuple(shape))
    inside = np.ones(flat.shape, bool)
    for place, side in zip(places, box, strict=True):
        inside &= (place >= side.start) & (place < side.stop)
    return np.asarray(flat[~inside])


def _other_side(tumour: np.ndarray, *, axis: int, part: float, reverse: bool) -> np.ndarray:
    """Returns the side of a plane that is given away, bool, of the shape of the tumour's box."""
    slices = tumour.sum(axis=tuple(a for a in range(3) if a != axis))
    slices = slices[::-1] if reverse else slices
    # The plane may lie before every slice but the first, so that neither side is empty.
    kept = np.cumsum(slices)[:-1] / slices.sum()
    plane = int(np.argmin(np.abs(kept - part))) + 1
    given = np.zeros(tumour.shape, bool)
    side = slice(None, len(slices) - plane) if reverse else slice(plane, None)
    given[tuple(side if a == axis else slice(None) for a in range(3))] = True
    return given


def _nearest(label: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resamples a label to a shape of the same extent."""
    places = [
        ((np.arange(new) + 0.5) * old / new).astype(np.int64)
        for old, new in zip(label.shape, shape, strict=True)
    ]
    return label[np.ix_(*places)]


def _feathered(mask: np.ndarray, voxels: int) -> np.ndarray:
    """Returns weights, float32: 1 inside, falling to 1 / (voxels + 1) in the mask's outermost."""
    weight = mask.astype(np.float32)
    for _ in range(voxels):
        mask = ndimage.binary_erosion(mask)
        weight += mask
    return weight / (voxels + 1)


def _sequence_bits(case: PreparedCase) -> int:
    return sum(1 << SEQUENCES.index(name) for name in case.sequences)
