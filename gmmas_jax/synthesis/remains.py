"""What skull-stripping left on the brain: dura, bone, muscle, fat; neither brain nor tumour."""

import jax
import jax.numpy as jnp

from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.synthesis.anatomy import DEEP_MM
from gmmas_jax.synthesis.effects import Effects
from gmmas_jax.synthesis.fields import noise
from gmmas_jax.synthesis.frame import Frame

_DARKEST, _BRIGHTEST = 0.05, 2.2
"""Signal of bone and of fat, as a share of the brain's."""

_DURA = (0.2, 0.8)
"""Signal of a thin dark border, as a share of the brain's."""

_DURA_SEEN = (1.0, 1.0, 0.6, 1.0)
"""How bright it is in each of `SEQUENCES`, as a share of that: its T2 is short."""


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
    share = _layer(reach_mm, depth)
    share = jnp.where((happens < effects.remains.probability) & (patch > 0), share, 0.0)
    # Two kinds in one head, as bone and muscle, each of any signal in each sequence; they do not
    # enhance, or a little.
    level = jax.random.uniform(k_signal, (2, len(SEQUENCES)))
    level = level.at[:, 1].set(level[:, 0] + 0.1 * level[:, 1])
    kinds = _DARKEST * (_BRIGHTEST / _DARKEST) ** level
    second = jax.nn.sigmoid(noise(k_kind, frame, scale_mm=8.0) / 0.2)
    grain = 1.0 + 0.15 * noise(k_grain, frame, scale_mm=4.0).clip(-2.0, 2.0)
    return share, [(one + second * (other - one)) * grain for one, other in kinds.T]


def draw_dura(
    key: jax.Array, depth: jax.Array, frame: Frame, effects: Effects
) -> tuple[jax.Array, jax.Array]:
    """Draws a thin layer all around the brain that is dark in every sequence, uneven in thickness.

    Dura, bone, and the zero beyond the mask through interpolation: of six of seven real cases the
    outermost 2 mm hold little of the fluid that an atlas has there.

    Args:
        key: Typed PRNG key.
        depth: [d h w] float32 in 0..1, from the surface on.
        frame: Of the map.
        effects: Of which `dura` counts.

    Returns:
        Its share [d h w] float32 in 0..1 of each voxel, [] where there can be none, and its signal
        in each of `SEQUENCES` [4] float32, of the same scale as the brain's, 1.
    """
    if effects.dura.known_off:
        return jnp.zeros(()), jnp.zeros(len(SEQUENCES))
    k_draw, k_level, k_field = jax.random.split(key, 3)
    happens, strength, common = jax.random.uniform(k_draw, (3,))
    thick_mm = effects.dura.magnitude * strength
    uneven = (1.0 + 0.6 * noise(k_field, frame, scale_mm=10.0)).clip(0.0, 2.0)
    share = _layer(thick_mm * uneven, depth)
    share = jnp.where(happens < effects.dura.probability, share, 0.0)
    darkest, brightest = _DURA
    level = darkest + (brightest - darkest) * common
    spread = jnp.exp(0.3 * jax.random.normal(k_level, (len(SEQUENCES),)).clip(-2, 2))
    return share, level * spread * jnp.asarray(_DURA_SEEN)


def _layer(reach_mm: jax.Array, depth: jax.Array) -> jax.Array:
    """Returns the share [d h w] of each voxel that lies above `reach_mm` below the surface."""
    return jax.nn.sigmoid((reach_mm - 0.5 - DEEP_MM * depth) / 0.4)
