"""Weighting of tasks by a learned uncertainty.

L = Σ_t [ ½·exp(−s_t)·L_t + s_t ], in the form of MTTU-Net (Cheng et al., TMI 2022), which GMMAS
follows: the penalty is s, not the ½·s of Kendall et al. (CVPR 2018). For a fixed L_t the sum is
least at exp(s_t) = ½·L_t.
"""

from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array


def weighted_sum(
    losses: Mapping[str, Array],
    log_variance: Mapping[str, Array],
    labelled: Mapping[str, Array],
    *,
    share: Array | float = 1.0,
) -> Array:
    """Adds up the losses under their learned weights.

    A task of which the batch holds no label is left out whole: its loss, its penalty s, and
    therefore also the gradient of its s are exactly 0. Were the penalty kept, every such batch
    would push s down and the task's weight up without any evidence.

    Args:
        losses: Name to scalar float32.
        log_variance: Name to s, scalar float32.
        labelled: Name to scalar float32: how many examples of the batch have a label of the task.
        share: The part of the batch that `losses` were summed over, when gradients are accumulated
            over microbatches; the penalties of all parts then add up to one.

    Returns:
        Scalar float32.
    """
    total = jnp.zeros((), jnp.float32)
    for name, loss in losses.items():
        s = log_variance[name].astype(jnp.float32)
        term = 0.5 * jnp.exp(-s) * loss + share * s
        total = total + jnp.where(labelled[name] > 0, term, 0.0)
    return total
