"""Classification scores of one task: AUC with its interval, accuracy beside the majority's.

A score that is not defined for the cases at hand (one class only, no case) is None, never 0 or 0.5.
Cases without a label of the task are left out of everything, n included.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

from gmmas_jax.metrics.bootstrap import REPEATS, Interval, auc_interval


@dataclass(frozen=True)
class ClassificationScore:
    """Scores of one task over n labelled cases; the predicted class is the most probable one.

    Attributes:
        n: labelled cases.
        n_per_class: labelled cases of each class.
        auc: area under the ROC curve of the last class; with more than two classes the mean of the
            one-vs-rest areas over the classes that occur.
        auc_ci95: stratified bootstrap interval of `auc`.
        accuracy: share of right predictions.
        majority_accuracy: what always naming the most frequent class of these cases would reach.
        balanced_accuracy: mean recall of the classes that occur.
        sensitivity: recall of the last class; macro mean with more than two classes.
        specificity: recall of the other class; with more than two classes the macro mean of the
            one-vs-rest specificities.
        per_class: {"sensitivity", "specificity"} of each class against the rest.
    """

    n: int
    n_per_class: dict[str, int]
    auc: float | None
    auc_ci95: Interval | None
    accuracy: float | None
    majority_accuracy: float | None
    balanced_accuracy: float | None
    sensitivity: float | None
    specificity: float | None
    per_class: dict[str, dict[str, float | None]]


def labelled(
    probabilities: Sequence[np.ndarray], truth: Sequence[int | None], *, classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Keeps the cases that have a label.

    Args:
        probabilities: per case [k] float.
        truth: per case the class index, None where unknown.
        classes: names of the k classes.

    Returns:
        Probabilities [n k] float64 and classes [n] int64 of the labelled cases.

    Raises:
        ValueError: a case's probabilities are not k finite numbers in [0, 1] that sum to 1, or a
            class index is out of range.
    """
    kept = [
        (np.asarray(p, np.float64), t)
        for p, t in zip(probabilities, truth, strict=True)
        if t is not None
    ]
    for row, target in kept:
        proper = row.shape == (len(classes),) and np.isfinite(row).all() and (row >= -1e-6).all()
        if not proper or abs(row.sum() - 1) > 1e-3:
            raise ValueError(f"expected {len(classes)} probabilities that sum to 1, got {row}")
        if not 0 <= target < len(classes):
            raise ValueError(f"class index {target} is not one of {tuple(classes)}")
    if not kept:
        return np.zeros((0, len(classes))), np.zeros(0, np.int64)
    return np.stack([row for row, _ in kept]), np.array([target for _, target in kept], np.int64)


def score_classification(
    probabilities: np.ndarray,
    truth: np.ndarray,
    *,
    classes: Sequence[str],
    rng: np.random.Generator,
    repeats: int = REPEATS,
) -> ClassificationScore:
    """Scores one task.

    Args:
        probabilities: [n k] float, as `labelled` returns them.
        truth: [n] int.
        classes: names of the k classes; the last one of two is the positive class.
        rng: random stream of the bootstrap.
        repeats: bootstrap replicates.

    Returns:
        The scores.
    """
    n = truth.size
    counts = np.bincount(truth, minlength=len(classes))
    n_per_class = {name: int(c) for name, c in zip(classes, counts, strict=True)}
    per_class = _one_versus_rest(probabilities, truth, classes)
    # With one class only, recall alone would look like an accuracy: not defined.
    defined = np.count_nonzero(counts) >= 2
    recalls = [r for s in per_class.values() if (r := s["sensitivity"]) is not None]
    if len(classes) == 2:
        sensitivity = per_class[classes[1]]["sensitivity"]
        specificity = per_class[classes[1]]["specificity"]
    else:
        specificities = [r for s in per_class.values() if (r := s["specificity"]) is not None]
        sensitivity = float(np.mean(recalls)) if defined else None
        specificity = float(np.mean(specificities)) if defined else None
    scores = probabilities[:, 1:] if len(classes) == 2 else probabilities
    return ClassificationScore(
        n=n,
        n_per_class=n_per_class,
        auc=_auc(scores, truth) if defined else None,
        auc_ci95=auc_interval(scores, truth, rng=rng, repeats=repeats) if defined else None,
        accuracy=float(np.mean(probabilities.argmax(axis=1) == truth)) if n else None,
        majority_accuracy=float(counts.max() / n) if n else None,
        balanced_accuracy=float(np.mean(recalls)) if defined else None,
        sensitivity=sensitivity,
        specificity=specificity,
        per_class=per_class,
    )


def roc_points(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the ROC curve for a figure.

    Args:
        scores: [n] float, probability of the positive class.
        positive: [n] bool.

    Returns:
        False-positive and true-positive rates [m], or None unless both kinds of case occur.
    """
    if positive.all() or not positive.any():
        return None
    false_positive, true_positive, _ = roc_curve(positive, scores)
    return false_positive, true_positive


def _auc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Returns the AUC of scores [n 1] (class 1), or the macro mean over columns [n k]."""
    if scores.shape[1] == 1:
        return float(roc_auc_score(truth == 1, scores[:, 0]))
    return float(np.mean([roc_auc_score(truth == c, scores[:, c]) for c in np.unique(truth)]))


def _one_versus_rest(
    probabilities: np.ndarray, truth: np.ndarray, classes: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    """Returns sensitivity and specificity of each class; None where no case can tell."""
    predicted = probabilities.argmax(axis=1)
    return {
        name: {
            "sensitivity": _share(predicted == c, truth == c),
            "specificity": _share(predicted != c, truth != c),
        }
        for c, name in enumerate(classes)
    }


def _share(hit: np.ndarray, among: np.ndarray) -> float | None:
    """Returns the share of `hit` [n] bool within `among` [n] bool, None when that is empty."""
    return float(hit[among].mean()) if among.any() else None
