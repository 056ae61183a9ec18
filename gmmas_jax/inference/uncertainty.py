"""How sure: the spread of Monte-Carlo dropout passes."""

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns probabilities along the last axis, float32 as the logits."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def mutual_information(probabilities: np.ndarray) -> float:
    """Returns the epistemic uncertainty: what the passes disagree about.

    Entropy of the mean minus mean of the entropies (Houlsby et al., 2011): 0 where all passes say
    the same, however unsure each of them is.

    Args:
        probabilities: Real [s k], a row per pass.

    Returns:
        Nats, from 0 to log k.
    """
    rows = np.asarray(probabilities, np.float64)
    information = _entropy(rows.mean(axis=0)) - _entropy(rows).mean()
    return max(0.0, float(information))


def _entropy(rows: np.ndarray) -> np.ndarray:
    return -(rows * np.log(np.maximum(rows, 1e-300))).sum(axis=-1)
