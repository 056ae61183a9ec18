"""What skull-stripping left on the brain: bone, muscle, fat; neither brain nor tumour."""

import jax
import jax.numpy as jnp

from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.synthesis.anatomy import DEEP_MM
from gmmas_jax.synthesis.effects import Effects
from gmmas_jax.synthesis.fields import noise
from gmmas_jax.synthesis.frame import Frame

_DARKEST, _BRIGHTEST = 0.05, 2.2
"""Signal of bone and of fat, as a share of the brain's."""


def draw_remains(
    key: jax.Array, depth: jax.Array, frame: Frame, effects: Effects
) -> tuple[jax.Array, list[jax.Array]]:
    """Draws in which patches of the surface something else is left, and how it looks.

    The brain lies that much deeper there; the mask stays as it is.

    Args:
        key: Typed PRNG key.
        depth: [d h w] float32 in 0..1, from the surface on.
        frame: Of the map.
        effects: Of which `remains` counts.

    Returns:
        Its share [d h w] float32 in 0..1 of each voxel, and for each of `SEQUENCES` its signal
        [d h w] float32, of the same scale as the brain's, 1; of no axes where there can be none.
    """
    if effects.remains.known_off:
        return jnp.zeros(()), [jnp.zeros(())] * len(SEQUENCES)
    k_draw, k_patch, k_kind, k_grain, k_signal = jax.random.split(key, 5)
    happens, strength = jax.random.uniform(k_draw, (2,))
    thick_mm = effects.remains.magnitude * strength
    patch = noise(k_patch, frame, scale_mm=22.0) - 0.7
    # Thickest in the middle of a patch, and nothing beyond it.
    reach_mm = thick_mm * jnp.tanh(2.0 * patch.clip(0.0))
    share = jax.nn.sigmoid((reach_mm - 0.5 - DEEP_MM * depth) / 0.4)
    share = jnp.where((happens < effects.remains.probability) & (patch > 0), share, 0.0)
    # Two kinds in one head, as bone and muscle, each of any signal in each sequence; they do not
    # enhance, or a little.
    level = jax.random.uniform(k_signal, (2, len(SEQUENCES)))
    level = level.at[:, 1].set(level[:, 0] + 0.1 * level[:, 1])
    kinds = _DARKEST * (_BRIGHTEST / _DARKEST) ** level
    second = jax.nn.sigmoid(noise(k_kind, frame, scale_mm=8.0) / 0.2)
    grain = 1.0 + 0.15 * noise(k_grain, frame, scale_mm=4.0).clip(-2.0, 2.0)
    return share, [(one + second * (other - one)) * grain for one, other in kinds.T]
