"""Whether the contrasts of a case fit the names of its sequences.

Three facts hold whatever the scanner: fluid is bright on T2 and dark on FLAIR; T2 is nearer to
FLAIR than to T1 in the order of its grey values, and skewed to the bright side where T1 is skewed
to the dark one; what differs locally between T1 with and without contrast agent is bright with it.
Each is measured so that exchanging two images changes its sign, and the names under which the sum
is largest are compared with the given ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from scipy import ndimage

from data_pipelines.check.volume import brain_of, depth_mm
from gmmas_jax.cases.sequences import SEQUENCES

MARGIN = 1.0
"""How much better other names must fit. Over nine real and 282 generated patients, four sequences
or any subset with t2w, the given names of a clean case fit worse than others by 0.29 at most; the
names of a real case with two of its files exchanged (not t1n with t1c) by 1.5 at least."""

ENHANCEMENT = -1.2
"""Skewness of t1c - t1n below which the two count as exchanged: real cases reach 1.43 and more,
also without enhancing tumour (vessels enhance); generated ones -1.02 at least."""

_RIM_MM = 4.1
_SHELL_MM, _CORE_MM = 12.0, 22.0
_LOCAL_MM = 16.0
_FEWEST = 500


@dataclass(frozen=True)
class _Facts:
    fluid: dict[tuple[str, str], float]
    order: dict[tuple[str, str], float]
    bright: dict[str, float]


def suspected_names(
    coarse: Mapping[str, np.ndarray], spacing: tuple[float, float, float]
) -> dict[str, str]:
    """Returns the names that fit the images clearly better than the given ones.

    Args:
        coarse: Given name to float32 [d h w], stripped, on one grid.
        spacing: In mm.

    Returns:
        Given name to the name that fits, for the images whose name does not; empty where nothing
        speaks against the given names, or where the images do not allow to tell (no t2w beside
        another sequence, unless both T1 images are there).
    """
    given = [name for name in SEQUENCES if name in coarse]
    if len(given) < 2:
        return {}
    brain = np.logical_and.reduce([brain_of(coarse[name]) for name in given])
    depth = depth_mm(brain, spacing)
    mask = depth > _RIM_MM
    if np.count_nonzero(mask) < _FEWEST or not (depth > _CORE_MM).any():
        return {}
    names = {name: name for name in given}
    if "t2w" in given:
        facts = _facts({name: coarse[name][mask] for name in given}, depth[mask])
        names = _best_names(given, facts)
    # The image of each T1 name, as far as it is known by now.
    image = {fits: name for name, fits in names.items()}
    if "t1n" in image and "t1c" in image:
        plain, contrast = coarse[image["t1n"]], coarse[image["t1c"]]
        if enhancement(plain, contrast, mask, spacing) < ENHANCEMENT:
            names[image["t1n"]], names[image["t1c"]] = "t1c", "t1n"
    return {name: fits for name, fits in names.items() if name != fits}


def enhancement(
    plain: np.ndarray,
    contrast: np.ndarray,
    mask: np.ndarray,
    spacing: tuple[float, float, float],
) -> float:
    """Returns the skewness of what differs locally between two T1 images.

    Args:
        plain: float32 [d h w], without contrast agent.
        contrast: float32 [d h w], with it.
        mask: bool [d h w], the brain.
        spacing: In mm.

    Returns:
        Positive where some places are brighter with contrast agent; about 0 where none is.
    """
    difference = np.where(mask, _scaled(contrast, mask) - _scaled(plain, mask), 0.0)
    sigma = [_LOCAL_MM / mm for mm in spacing]
    share = ndimage.gaussian_filter(mask.astype(np.float64), sigma)
    # Bias fields of the two images differ slowly in space.
    slow = ndimage.gaussian_filter(difference, sigma) / np.maximum(share, 1e-3)
    local = (difference - slow)[mask]
    local -= np.median(local)
    spread = float(np.median(np.abs(local)))
    if spread == 0.0:
        return 0.0
    clipped = np.clip(local / spread, -15.0, 15.0)
    return float((clipped**3).mean() / (clipped**2).mean() ** 1.5)


def _best_names(given: list[str], facts: _Facts) -> dict[str, str]:
    """Returns image name to fitting name; t1n and t1c are not told apart here."""
    same = {name: name for name in given}
    best, best_score = same, _score(same, facts) + MARGIN
    for order in permutations(given):
        image_of = dict(zip(given, order, strict=True))
        score = _score(image_of, facts)
        if score > best_score:
            best, best_score = image_of, score
    return {image: name for name, image in best.items()}


def _score(image_of: Mapping[str, str], facts: _Facts) -> float:
    """Returns how well images fit names; larger is better."""
    t2w, t2f = image_of["t2w"], image_of.get("t2f")
    t1 = [image_of[name] for name in ("t1n", "t1c") if name in image_of]
    score = 0.0 if t2f is None else facts.fluid[t2w, t2f] / 2
    for image in t1:
        score += facts.bright[t2w] - facts.bright[image]
        if t2f is not None:
            score += facts.order[t2w, t2f] - facts.order[t2w, image]
    if len(t1) == 2:
        for other in (t2w, t2f):
            if other is not None:
                nearest = max(facts.order[t1[0], other], facts.order[t1[1], other])
                score += facts.order[t1[0], t1[1]] - nearest
    return score


def _facts(values: Mapping[str, np.ndarray], depth: np.ndarray) -> _Facts:
    """Measures images pair by pair, in the order of their grey values alone.

    Args:
        values: Name to float32 [voxels] within the brain.
        depth: float [voxels], mm from the brain's surface.
    """
    ranks = {name: _ranks(image) for name, image in values.items()}
    shell, core = depth < _SHELL_MM, depth > _CORE_MM
    bright = {}
    for name, image in values.items():
        low, middle, high = np.percentile(image, [2, 50, 98])
        skewness = (high + low - 2 * middle) / max(high - low, 1e-12)
        # Cortex and fluid outside, white matter inside: brighter outside on T2, darker on T1.
        bright[name] = float(skewness + 2 * (ranks[name][shell].mean() - ranks[name][core].mean()))
    fluid, order = {}, {}
    for first in values:
        for second in values:
            if first != second:
                forth = _bright_and_dark(ranks[first], ranks[second])
                back = _bright_and_dark(ranks[second], ranks[first])
                fluid[first, second] = float(np.log((forth + 0.1) / (back + 0.1)))
                order[first, second] = float(np.corrcoef(ranks[first], ranks[second])[0, 1])
    return _Facts(fluid, order, bright)


def _bright_and_dark(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the percentage of voxels that are bright on one image and dark on the other."""
    return 100.0 * float(((first > 0.9) & (second < 0.25)).mean())


def _ranks(values: np.ndarray) -> np.ndarray:
    ranks = np.empty(values.size, np.float32)
    ranks[np.argsort(values, kind="stable")] = np.linspace(0, 1, values.size, dtype=np.float32)
    return ranks


def _scaled(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    low, middle, high = np.percentile(image[mask], [25, 50, 75])
    return np.asarray((image - middle) / max(high - low, 1e-12))
