"""Bootstrap confidence intervals over cases, seeded and vectorised.

The percentile bootstrap of Efron & Tibshirani (1993, ch. 13). With few cases, or with classes
that are perfectly separated, it is too narrow (a perfect AUC gives the interval [1, 1]): read it
beside n.
"""

import zlib

import numpy as np
from scipy import stats

LEVEL = 0.95
REPEATS = 1000

Interval = tuple[float, float]


def stream(seed: int, *names: str) -> np.random.Generator:
    """Returns a generator of its own for a named number.

    Adding a task or a region then leaves the intervals of all others unchanged.

    Args:
        seed: the evaluation's seed.
        *names: what the stream is for, e.g. ("region", "WT", "dice").
    """
    return np.random.default_rng([seed, zlib.crc32("/".join(names).encode())])


def mean_interval(
    values: np.ndarray, *, rng: np.random.Generator, repeats: int = REPEATS
) -> Interval | None:
    """Returns the 95 % interval of the mean of `values` [n], or None with fewer than two cases."""
    values = np.asarray(values, np.float64)
    if values.size < 2:
        return None
    picks = rng.integers(0, values.size, size=(repeats, values.size))
    return _percentiles(values[picks].mean(axis=1))


def auc_interval(
    scores: np.ndarray, truth: np.ndarray, *, rng: np.random.Generator, repeats: int = REPEATS
) -> Interval | None:
    """Returns the 95 % interval of the (macro one-vs-rest) AUC, resampling within each class.

    Resampling within classes keeps every class present in every replicate; the AUC of a replicate
    is computed from mid-ranks (Mann–Whitney), which equals the trapezoidal area, ties included.

    Args:
        scores: [n k] float, one column per class; or [n 1], the positive class of two.
        truth: [n] int, the class of each case.
        rng: random stream.
        repeats: number of replicates.

    Returns:
        Lower and upper bound, or None when fewer than two classes occur.
    """
    classes = np.unique(truth)
    if classes.size < 2:
        return None
    picks = np.concatenate(
        [
            rng.choice(np.flatnonzero(truth == c), size=(repeats, np.count_nonzero(truth == c)))
            for c in classes
        ],
        axis=1,
    )
    # Every replicate holds the classes in the same order and numbers.
    ordered = np.sort(truth)
    columns = {1: scores[:, 0]} if scores.shape[1] == 1 else {c: scores[:, c] for c in classes}
    areas = [_rank_auc(column[picks], ordered == c) for c, column in columns.items()]
    return _percentiles(np.mean(areas, axis=0))


def _rank_auc(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Returns the AUC [r] of scores [r n] float for the columns marked in `positive` [n] bool."""
    ranks = stats.rankdata(scores, axis=1)
    n_positive = int(positive.sum())
    n_negative = positive.size - n_positive
    excess = ranks[:, positive].sum(axis=1) - n_positive * (n_positive + 1) / 2
    return excess / (n_positive * n_negative)


def _percentiles(replicates: np.ndarray) -> Interval:
    """Returns the central 95 % of replicates [r]."""
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(replicates, [tail, 100 - tail])
    return float(low), float(high)
