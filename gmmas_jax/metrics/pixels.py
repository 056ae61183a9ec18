"""Scores over all pixels of a set at once, as papers on slices report them.

Overall accuracy, mean accuracy and mean IoU come of one confusion matrix, to which every slice
adds its pixels: a large lesion counts more than a small one, and background most of all. Beside
them a volume's own Dice belongs (`metrics.segmentation`).
"""

import numpy as np


def confusion(prediction: np.ndarray, reference: np.ndarray, *, classes: int) -> np.ndarray:
    """Counts pixels by class.

    Args:
        prediction: int [...], classes from 0 on.
        reference: int [...], likewise; -1 is left out.
        classes: How many there are.

    Returns:
        int64 [classes classes]; rows are the reference's.
    """
    known = reference >= 0
    places = classes * reference[known].astype(np.int64) + prediction[known]
    return np.bincount(places, minlength=classes**2).reshape(classes, classes)


def scores(matrix: np.ndarray) -> dict[str, float]:
    """Returns what a confusion matrix [k k] comes to.

    Returns:
        overall_accuracy: Share of the pixels that are right.
        mean_accuracy: That share of each class of the reference, averaged over the classes that
            occur.
        mean_iou: Intersection over union, averaged over the classes that occur in either.

    Raises:
        ValueError: Without any pixel.
    """
    right, truth, found = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    if not truth.sum():
        raise ValueError("there is no pixel")
    union = truth + found - right
    return {
        "overall_accuracy": float(right.sum() / truth.sum()),
        "mean_accuracy": float(np.mean(right[truth > 0] / truth[truth > 0])),
        "mean_iou": float(np.mean(right[union > 0] / union[union > 0])),
    }
