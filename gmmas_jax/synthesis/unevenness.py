"""How signal differs from place to place within a tissue: coils, air nearby, the tissue itself."""

import jax
import jax.numpy as jnp

from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.synthesis.effects import Effects
from gmmas_jax.synthesis.fields import noise, octave_noise
from gmmas_jax.synthesis.frame import Frame, to_one_end

_TEXTURED = (0.2, 0.2, 1.0, 1.0)
"""How uneven tumours are in each of `SEQUENCES`, as a share of the most uneven: T1 varies less."""

_PLACES = ("regional", "surface", "falloff", "border")
"""The effects of `place_factors`."""

_FALLOFF_MM = (40.0, 100.0)
"""How far from the end of the box signal begins to be lost."""


def place_factors(
    key: jax.Array, taken: jax.Array, depth: jax.Array, frame: Frame, effects: Effects
) -> list[jax.Array]:
    """Draws how signal differs from place to place of a brain, beyond the tissues' fractions.

    Args:
        key: Typed PRNG key.
        taken: [d h w] float32, fraction of tumour, which `regional` leaves alone.
        depth: [d h w] float32 in 0..1, from the surface on.
        frame: Of the maps.
        effects: Those of `_PLACES`.

    Returns:
        For each of `SEQUENCES` float32 factors [d h w], or [] where nothing of the kind can happen.
    """
    if all(getattr(effects, name).known_off for name in _PLACES):
        return [jnp.ones(())] * len(SEQUENCES)
    k_patches = jax.random.fold_in(jax.random.clone(key), 1)
    patches = jax.nn.sigmoid((noise(k_patches, frame, scale_mm=25.0) - 0.7) / 0.2)
    border = (1.0 - depth) ** 2
    factors = []
    for own in jax.random.split(key, len(SEQUENCES)):
        k_draw, k_field = jax.random.split(own)
        draw = jax.random.uniform(k_draw, (10,))

        def strength(place: int, name: str, draw: jax.Array = draw) -> jax.Array:
            effect = getattr(effects, name)
            happens = draw[place] < effect.probability
            return jnp.where(happens, effect.magnitude * draw[place + 1], 0.0)

        field = strength(0, "regional") * noise(k_field, frame, scale_mm=25.0) * (1.0 - taken)
        rise = strength(2, "surface") * border
        lost = strength(4, "falloff") * _toward_end(frame, draw[6], draw[7])
        happens = draw[8] < effects.border.probability
        size = effects.border.magnitude * jax.scipy.special.ndtri(draw[9].clip(0.02, 0.98))
        patch = jnp.where(happens, size, 0.0) * patches * border
        factors.append(jnp.exp(field + rise - lost + patch))
    return factors


def _toward_end(frame: Frame, end: jax.Array, begin: jax.Array) -> jax.Array:
    """Returns what rises from 0 to 1 at the vertex or the skull base, [1 1 w].

    Args:
        frame: Of the result.
        end: [] float32 in 0..1, at which end.
        begin: [] float32 in 0..1, how far from it.
    """
    length = _FALLOFF_MM[0] + (_FALLOFF_MM[1] - _FALLOFF_MM[0]) * begin
    return (1.0 - to_one_end(frame, end) / length).clip(0.0, 1.0) ** 2


def tumour_factors(
    key: jax.Array, taken: jax.Array, frame: Frame, effects: Effects
) -> list[jax.Array]:
    """Draws how signal differs from place to place of a tumour, in each sequence otherwise.

    Returns:
        For each of `SEQUENCES` float32 factors [d h w], or [] where nothing of the kind can happen.
    """
    if effects.texture.known_off:
        return [jnp.ones(())] * len(SEQUENCES)
    factors = []
    for own, share in zip(jax.random.split(key, len(SEQUENCES)), _TEXTURED, strict=True):
        k_draw, k_field = jax.random.split(own)
        happens, strength = jax.random.uniform(k_draw, (2,))
        spread = effects.texture.magnitude * share * strength
        spread = jnp.where(happens < effects.texture.probability, spread, 0.0)
        factors.append(
            jnp.exp(spread * taken * octave_noise(k_field, frame, scales_mm=(12.0, 6.0)))
        )
    return factors
