"""Repairs of an outline by what is known of gliomas: small pieces, stray enhancement, holes.

Every rule is off by default. Which help, and how strong, is chosen on generated validation patients
alone (`benchmarks/postprocessing.py`) and stands in the weights' config.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from scipy import ndimage

from gmmas_jax.cases.labels import LABELS
from gmmas_jax.errors import UserError

_NCR, _ED, _ET, _RC = (LABELS.index(name) for name in ("NCR", "ED", "ET", "RC"))

_TOUCHING = np.ones((3, 3, 3), bool)
"""Voxels that touch by a face, an edge or a corner belong to one piece."""

CERTAIN = 0.95
"""Probability of tumour, of whatever label, from which a voxel counts as certain."""


@dataclass(frozen=True, kw_only=True)
class Cleaning:
    """Which repairs are made, in the order in which they are made.

    Attributes:
        fill_core: What tumour core, with a resection cavity, encloses on all sides becomes core:
            background and oedema there become NCR. A thin enhancing ring is thus filled.
        fill_tumour: Background that tumour encloses on all sides becomes ED.
        min_enhancing_ml: With less enhancing tumour than this in all, there is none: it becomes
            NCR.
        min_enhancing_island_ml: Separate pieces of ET below this become what they lie in.
        enhancing_touches_core: A piece of ET that touches no NCR becomes what it lies in: vessels
            and choroid plexus enhance, but have no necrosis beside them.
        min_core_island_ml: Separate pieces of core (NCR and ET) below this become ED.
        min_certain_ml: Separate pieces of anything with less than this volume of voxels that are
            tumour with a probability of `CERTAIN` become background, the largest too: what looks
            like a tumour in a healthy brain is doubtful all through.
        min_island_ml: Separate pieces of anything below this become background.

    What a piece of ET lies in is NCR if it touches NCR, else ED if it touches ED, else background.
    The largest piece always stays where pieces are dropped for their size: to find something small
    is no reason to find nothing.
    """

    fill_core: bool = False
    fill_tumour: bool = False
    min_enhancing_ml: float = 0.0
    min_enhancing_island_ml: float = 0.0
    enhancing_touches_core: bool = False
    min_core_island_ml: float = 0.0
    min_certain_ml: float = 0.0
    min_island_ml: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, bool):
                if not isinstance(value, bool):
                    raise UserError(f"inference.{field.name} is {value}; expected true or false.")
            elif not value >= 0:
                raise UserError(f"inference.{field.name} is {value}; expected 0 or more.")

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Returns the names of the settings, which are fields of the config's `inference`."""
        return tuple(field.name for field in fields(cls))

    def check_undivided(self) -> None:
        """Refuses what a network that does not tell a tumour's parts apart has no labels for.

        Raises:
            UserError: If anything but the least piece is set.
        """
        for field in fields(self):
            if field.name != "min_island_ml" and getattr(self, field.name) != field.default:
                raise UserError(
                    f"inference.{field.name} is {getattr(self, field.name)}; expected "
                    f"{field.default} of a network that outlines the tumour as a whole."
                )

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> "Cleaning":
        """Builds the settings from those fields of a section that belong to them."""
        return cls(**{name: section[name] for name in cls.names() if name in section})


def clean(
    probabilities: np.ndarray, label: np.ndarray, cleaning: Cleaning, *, voxel_ml: float
) -> None:
    """Makes the repairs in place; a voxel that gets another label is certain of it.

    Args:
        probabilities: float32 [d h w k].
        label: uint8 [d h w], its most probable label.
        cleaning: Which repairs.
        voxel_ml: Volume of a voxel.
    """
    certain = probabilities[..., 0] <= 1.0 - CERTAIN
    repaired = clean_label(label, cleaning, certain=certain, voxel_ml=voxel_ml)
    changed = repaired != label
    if changed.any():
        probabilities[changed] = np.eye(probabilities.shape[-1], dtype=np.float32)[
            repaired[changed]
        ]
        label[changed] = repaired[changed]


def clean_label(
    label: np.ndarray, cleaning: Cleaning, *, certain: np.ndarray, voxel_ml: float
) -> np.ndarray:
    """Returns a repaired copy of a label map.

    Args:
        label: uint8 [d h w].
        cleaning: Which repairs.
        certain: bool [d h w], where tumour is `CERTAIN`.
        voxel_ml: Volume of a voxel.
    """
    result = label.copy()
    extents = ndimage.find_objects((label > 0).astype(np.uint8))
    if not extents or cleaning == Cleaning():
        return result
    # The tumour's box alone, with a border for what touches it; a view, so that writing reaches.
    box = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in extents[0])
    part = result[box]
    if cleaning.fill_core:
        core = _one_of(part, _NCR, _ET, _RC)
        part[ndimage.binary_fill_holes(core) & ~core] = _NCR
    if cleaning.fill_tumour:
        part[ndimage.binary_fill_holes(part > 0) & (part == 0)] = _ED
    _repair_enhancing(part, cleaning, voxel_ml)
    if cleaning.min_core_island_ml:
        core = _one_of(part, _NCR, _ET)
        part[_small(core, cleaning.min_core_island_ml / voxel_ml)] = _ED
    if cleaning.min_certain_ml:
        part[_doubtful(part > 0, certain[box], cleaning.min_certain_ml / voxel_ml)] = 0
    if cleaning.min_island_ml:
        part[_small(part > 0, cleaning.min_island_ml / voxel_ml)] = 0
    return result


def _repair_enhancing(part: np.ndarray, cleaning: Cleaning, voxel_ml: float) -> None:
    """Applies the three rules of enhancing tumour to a label map in place."""
    if np.count_nonzero(part == _ET) * voxel_ml < cleaning.min_enhancing_ml:
        part[part == _ET] = _NCR
    least = cleaning.min_enhancing_island_ml / voxel_ml
    if not least and not cleaning.enhancing_touches_core:
        return
    pieces, count = ndimage.label(part == _ET, structure=_TOUCHING)
    if count < 2:
        return
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    largest = sizes.argmax()
    before = part.copy()
    for number, box in enumerate(ndimage.find_objects(pieces), 1):
        if number == largest:
            continue
        near = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
        piece = pieces[near] == number
        around = before[near][ndimage.binary_dilation(piece, _TOUCHING) & ~piece]
        alone = cleaning.enhancing_touches_core and not (around == _NCR).any()
        if sizes[number] < least or alone:
            part[near][piece] = next((code for code in (_NCR, _ED) if (around == code).any()), 0)


def _one_of(label: np.ndarray, *codes: int) -> np.ndarray:
    return np.isin(label, codes)


def _small(mask: np.ndarray, least: float) -> np.ndarray:
    """Returns the voxels of pieces with fewer than `least` voxels, the largest piece left out."""
    pieces, count = ndimage.label(mask, structure=_TOUCHING)
    if count < 2:
        return np.zeros_like(mask)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    small = (sizes < least) & (sizes < sizes.max())
    small[0] = False
    return small[pieces]


def _doubtful(mask: np.ndarray, certain: np.ndarray, least: float) -> np.ndarray:
    """Returns the voxels of pieces with fewer than `least` certain ones."""
    pieces, count = ndimage.label(mask, structure=_TOUCHING)
    doubtful = np.bincount(pieces[certain], minlength=count + 1) < least
    doubtful[0] = False
    return doubtful[pieces]
