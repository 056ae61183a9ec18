"""Healthy tissue of one head, from the maps of an average one: fractions of each voxel."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from gmmas_jax.synthesis.anatomy import DEEP_MM
from gmmas_jax.synthesis.effects import Effects, draw_by_name
from gmmas_jax.synthesis.fields import noise
from gmmas_jax.synthesis.frame import Frame

_EFFACED = 1.6
"""How far from a tumour's centre sulci are pressed shut, in its radii."""

_TUBES_MM = 5.0
"""Lattice of the noise whose zeros the middles of tubular vessels are."""

_SLOPE = 1.18
"""Standard deviation of that noise's slope along an axis, per lattice spacing: of cubic B-splines,
the root of 2/3 (the slope's weights squared, summed on average) over 0.479 (the weights')."""

_AROUND_MM = 3.5
"""How deep the fluid between brain and skull reaches that a full head has not."""


def split_tissue(
    key: jax.Array,
    inside: jax.Array,
    maps: Mapping[str, jax.Array],
    frame: Frame,
    effects: Effects,
) -> tuple[jax.Array, ...]:
    """Turns the blurred average maps into one head's tissue: sharper borders, folds and vessels.

    An average of 152 heads has no individual sulci: noise between grey matter and fluid puts some
    back. Vessels, sinuses and choroid plexus enhance, and on t1c must not pass for tumour.

    Returns:
        Fractions (white, grey, fluid, vessel), each [d h w] float32, summing to `inside`.
    """
    k_fold, k_share, k_vessel, k_plexus, k_draw = jax.random.split(key, 5)
    draw = jax.random.uniform(k_draw, (9,))

    def strength(place: int, name: str) -> jax.Array:
        effect = getattr(effects, name)
        return jnp.where(draw[place] < effect.probability, effect.magnitude * draw[place + 1], 0.0)

    brain, grey, white = maps["brain"], maps["grey"], maps["white"]
    lost = strength(0, "atrophy")
    # Ventricles widen at the cost of what lies around them.
    wide = jax.nn.sigmoid((maps["halo"] - 0.5 + lost) / 0.03) * (lost > 0)
    grey, white = grey * (1.0 - wide), white * (1.0 - wide)
    fluid = (1.0 - grey - white).clip(0.0)
    fold = noise(k_fold, frame, scale_mm=4.0)
    folded = grey * (0.35 * fold - 0.05 + 0.08 * jax.random.normal(k_share)).clip(0.0)
    fluid = fluid + folded + lost * grey * (1.0 - white) * (brain > 0.5)
    parts = jnp.stack([white, grey, fluid]) + 1e-3
    sharp = parts**1.6
    white, grey, fluid = sharp / sharp.sum(0)
    threads = jnp.abs(noise(k_vessel, frame, scale_mm=9.0))
    density = strength(2, "vessels")
    vessel = jax.nn.sigmoid((density - threads) / 0.02) * (fluid + 0.1 * grey)
    vessel = jnp.where(density > 0, vessel, 0.0)
    k_tubes = jax.random.fold_in(jax.random.clone(k_vessel), 1)
    vessel = with_tubes(k_tubes, vessel, grey, fluid, frame, effects)
    # Dura and sinuses lie at the border and beyond it.
    margin = (1.0 - brain) * (brain < 0.62)
    sinuses = strength(4, "sinuses") * (maps["veins"] + margin * (threads < 0.6)).clip(0.0, 1.0)
    clumps = jax.nn.sigmoid((noise(k_plexus, frame, scale_mm=4.0) - 0.8) / 0.2)
    plexus = strength(6, "choroid_plexus") * maps["ventricles"] * clumps
    vessel = jnp.maximum(vessel, jnp.maximum(sinuses, plexus)).clip(0.0, 1.0)
    keep = (1.0 - vessel) * inside
    return white * keep, grey * keep, fluid * keep, vessel * inside


def with_tubes(
    key: jax.Array,
    vessel: jax.Array,
    grey: jax.Array,
    fluid: jax.Array,
    frame: Frame,
    effects: Effects,
) -> jax.Array:
    """Draws tubes in the fluid in place of the vessels that there are, where a head has them.

    Where one noise is zero is a sheet, whose sections pass for thin rings of enhancement; where two
    are, a tube.

    Args:
        key: Typed PRNG key.
        vessel: [d h w] float32, the fraction of vessels.
        grey: [d h w] float32, of grey matter.
        fluid: [d h w] float32, of fluid.
        frame: Of the fractions.
        effects: Of which `tubular_vessels` counts.

    Returns:
        [d h w] float32, the fraction of vessels.
    """
    if effects.tubular_vessels.known_off:
        return vessel
    k_draw, *k_noise = jax.random.split(key, 3)
    happens, amount = jax.random.uniform(k_draw, (2,))
    one, other = (noise(k, frame, scale_mm=_TUBES_MM) for k in k_noise)
    away_mm = jnp.hypot(one, other) * _TUBES_MM / _SLOPE
    radius_mm = effects.tubular_vessels.magnitude * amount
    tubes = jax.nn.sigmoid((radius_mm - away_mm) / 0.25) * (2.0 * fluid + 0.1 * grey).clip(0.0, 1.0)
    return jnp.where(happens < effects.tubular_vessels.probability, tubes, vessel)


def with_lesions(
    key: jax.Array,
    parts: tuple[jax.Array, ...],
    wetness: jax.Array,
    frame: Frame,
    effects: Effects,
) -> tuple[jax.Array, ...]:
    """Adds hyperintensities of white matter, which are no tumour: beside ventricles and as spots.

    Returns:
        Fractions (white, grey, fluid, vessel, gliosis).
    """
    white, grey, fluid, vessel = parts
    k_draw, k_spots, k_caps = jax.random.split(key, 3)
    happens, amount = jax.random.uniform(k_draw, (2,))
    amount = effects.hyperintensities.magnitude * amount
    spots = jax.nn.sigmoid((noise(k_spots, frame, scale_mm=5.0) - 3.2 + 1.2 * amount) / 0.15)
    caps = jax.nn.sigmoid(
        (wetness + 0.1 * noise(k_caps, frame, scale_mm=8.0) - 0.6 + amount) / 0.05
    )
    ill = jnp.where(
        happens < effects.hyperintensities.probability,
        jnp.maximum(spots, caps * (white > 0.5)),
        0.0,
    )
    return white * (1.0 - ill), grey, fluid, vessel, white * ill


def effaced(
    parts: tuple[jax.Array, ...],
    radial: jax.Array,
    ventricles: jax.Array,
    strength: jax.Array,
) -> tuple[jax.Array, ...]:
    """Presses sulci around a tumour shut: their fluid gives way to grey matter.

    Args:
        parts: (white, grey, fluid, …) fractions, [d h w] float32 each.
        radial: [d h w] float32 from `radial_field`.
        ventricles: [d h w] float32, their share, which stays.
        strength: [] float32, share of the fluid that is lost.

    Returns:
        The fractions, of the same sum.
    """
    white, grey, fluid, *rest = parts
    near = jax.nn.sigmoid((_EFFACED - radial) / 0.2)
    lost = strength * near * (1.0 - ventricles) * fluid
    return white, grey + lost, fluid - lost, *rest


def with_own_sulci(
    key: jax.Array, parts: tuple[jax.Array, ...], depth: jax.Array, effects: Effects
) -> tuple[jax.Array, ...]:
    """Tells sulci from cortex as one head does, not an average, and fills the room to the skull.

    What is lost of the fluid, cortex gains, and the other way round.

    Args:
        key: Typed PRNG key.
        parts: (white, grey, fluid, …) fractions, [d h w] float32 each.
        depth: [d h w] float32 in 0..1, from the surface on.
        effects: Of which `sharp_sulci` and `full_head` count.

    Returns:
        The fractions, of the same sum.
    """
    if effects.sharp_sulci.known_off and effects.full_head.known_off:
        return parts
    white, grey, fluid, *rest = parts
    drawn = draw_by_name(key, (("sharp_sulci",), ("full_head",)), 2)
    happens, amount = drawn["sharp_sulci"]
    power = effects.sharp_sulci.magnitude * amount
    power = 1.0 + jnp.where(happens < effects.sharp_sulci.probability, power, 0.0)
    both = grey + fluid
    one, other = fluid**power, grey**power
    fluid = jnp.where(power > 1.0, both * one / (one + other).clip(1e-12), fluid)
    happens, amount = drawn["full_head"]
    lost = jnp.where(happens < effects.full_head.probability, effects.full_head.magnitude, 0.0)
    kept = 1.0 - lost * (0.5 + 0.5 * amount) * jax.nn.sigmoid((_AROUND_MM - DEEP_MM * depth) / 0.8)
    fluid = fluid * kept
    return white, both - fluid, fluid, *rest
