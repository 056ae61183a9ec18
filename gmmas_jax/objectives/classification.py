"""Class-weighted cross-entropy with soft targets and missing labels, one value per example."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array


def cross_entropy(
    logits: Array,
    targets: Array,
    valid: Array,
    class_weights: Sequence[float] | None = None,
) -> Array:
    """Computes −Σ_k w_k q_k log p_k for each example.

    The weights are relative: they are divided by their mean, so that their scale does not change
    the loss's. The published code instead divides a batch's sum by the sum of its weights, which
    with one example per device, as it was trained, cancels them altogether.

    Args:
        logits: [b k] of any float dtype.
        targets: [b k] float32, probabilities of the classes: one-hot, or soft for a mixed example
            or a pseudo-label. Anything where `valid` is 0.
        valid: [b] float32, 1 where the example has this label.
        class_weights: k positive numbers, for example the count of the other class.

    Returns:
        [b] float32, in nats, 0 where `valid` is 0, and the gradient there exactly 0.
    """
    has_label = valid > 0
    targets = jnp.where(has_label[:, None], targets.astype(jnp.float32), 0.0)
    log_probability = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    if class_weights is not None:
        weights = jnp.asarray(class_weights, jnp.float32)
        targets = targets * (weights / weights.mean())[None, :]
    return jnp.where(has_label, -jnp.sum(targets * log_probability, axis=-1), 0.0)


def hits(logits: Array, targets: Array, valid: Array) -> Array:
    """Returns [b] float32, 1 where the likeliest class is the target's and the label is valid.

    Args:
        logits: [b k].
        targets: [b k] float32.
        valid: [b] float32.
    """
    same = logits.argmax(axis=-1) == targets.argmax(axis=-1)
    return jnp.where((valid > 0) & same, 1.0, 0.0)
