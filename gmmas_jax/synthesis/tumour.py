"""The tumour: where it lies, its shape, and the tissues that it is made of."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gmmas_jax.synthesis.anatomy import PRIOR_MM, PRIORS
from gmmas_jax.synthesis.effects import Effects, draw_by_name
from gmmas_jax.synthesis.fields import blur_matrix, mix_along, noise, octave_noise
from gmmas_jax.synthesis.frame import BOX_MM, Frame
from gmmas_jax.synthesis.genotype import Genotype

LOBES = 3

_OUTLINE = 0.3
"""Level of the blurred enhancement that a generous outline follows; 0.5 would be a plane edge."""

_FADED = 1 / 3
"""Fraction of oedema at which oedema that fades is outlined: so that FLAIR falls across the outline
as it does on real cases (`benchmarks/appearance.py`)."""


_EVEN_REACH = 0.8
"""Reach of oedema that does not mind the tissue, as a share of its reach in white matter or so."""


class Tumour(NamedTuple):
    """Fractions of a voxel's volume taken by each tumour tissue, [d h w] float32 in 0..1 each."""

    necrosis: jax.Array
    solid: jax.Array
    mucinous: jax.Array
    enhancing: jax.Array
    oedema: jax.Array
    calcium: jax.Array
    blood: jax.Array
    cavity: jax.Array

    def label(
        self,
        frame: Frame,
        outline_mm: jax.Array | float = 0.0,
        margin: jax.Array | float = 0.5,
    ) -> jax.Array:
        """Returns the label map [d h w] int32: per voxel the class of the largest fraction.

        Classes are 0 background, 1 core that does not enhance (necrotic, solid, mucinous,
        calcified, bled: one class in BraTS since 2017), 2 oedema, 3 enhancing, 4 resection cavity.

        Args:
            frame: Of the fractions.
            outline_mm: Of `Habit`.
            margin: Of `Habit`; above it oedema is drawn where else most is healthy.
        """
        core = self.necrosis + self.solid + self.mucinous + self.calcium + self.blood
        rest = 1.0 - core - self.oedema - self.enhancing - self.cavity
        label, most = jnp.zeros(rest.shape, jnp.int32), rest
        for code, part in enumerate((core, self.oedema, self.enhancing, self.cavity), 1):
            label, most = jnp.where(part > most, code, label), jnp.maximum(part, most)
        label = jnp.where((label == 0) & (self.oedema > margin), 2, label)
        near = self.enhancing
        for axis, size in enumerate(near.shape):
            blur = blur_matrix(size, outline_mm / frame.step[axis])
            near = mix_along(near, blur, axis=axis)
        drawn = (outline_mm > 0) & (near > _OUTLINE) & ((label == 1) | (label == 2))
        return jnp.where(drawn, 3, label)


class Habit(NamedTuple):
    """What a tumour does beyond its genotype's ranges: the effects that were drawn, scalars.

    Attributes:
        push: Factor on the mass effect.
        uptake: Factor on the concentration of contrast agent.
        size: Factor on the radius of a ring that enhances; oedema reaches the less, the larger.
        ring_mm: Thickness of the enhancing ring.
        fill: Share of a ring's core that enhances throughout.
        specks: Share of the core taken by scattered enhancement.
        blood: Share of the core that bled.
        cyst: How much of the core is fluid.
        focus: Distance of a second focus in radii; 0 without.
        mirror: Strength of the part beyond the midline; 0 without.
        softness: Added to the border's, in radii.
        mimicry: How like core that does not enhance oedema is in places.
        dimming: Share of the uptake that enhancement loses in places.
        outline_mm: Blur of the enhancement whose level is its outline; 0 for its true border.
        cavity: Size of the resection cavity in radii; 0 without.
        superficial: How far the prior gives way to that of tumours of the cortex.
        evenness: How evenly oedema spreads.
        fading: Added to the softness of the oedema's border, in radii.
        margin: Fraction of oedema from which it is labelled.
        effacement: Share of the fluid around that is lost.
        bend: Factor on how the head is bent.
    """

    push: jax.Array
    uptake: jax.Array
    size: jax.Array
    ring_mm: jax.Array
    fill: jax.Array
    specks: jax.Array
    blood: jax.Array
    cyst: jax.Array
    focus: jax.Array
    mirror: jax.Array
    softness: jax.Array
    mimicry: jax.Array
    dimming: jax.Array
    outline_mm: jax.Array
    cavity: jax.Array
    superficial: jax.Array
    evenness: jax.Array
    fading: jax.Array
    margin: jax.Array
    effacement: jax.Array
    bend: jax.Array


def draw_habit(key: jax.Array, genotype: Genotype, effects: Effects) -> Habit:
    """Draws which of the effects on a tumour a patient has, and how strongly."""
    groups = (
        (
            *("midline_shift", "faint", "thin_ring", "solid_enhancement", "specks", "haemorrhage"),
            *("cyst", "multifocal", "butterfly", "infiltration", "uneven_uptake"),
            *("generous_outline", "resection"),
        ),
        ("superficial", "even_spread", "fading", "effacement", "head_shape", "small_core"),
        ("large_core", "uneven_oedema"),
    )
    drawn = draw_by_name(key, groups, 2)

    def happens(name: str) -> jax.Array:
        return drawn[name][0] < getattr(effects, name).probability

    def between(name: str, low: float, usual: jax.Array | float) -> jax.Array:
        """From `low` to the magnitude where it was drawn, else the usual."""
        magnitude, share = getattr(effects, name).magnitude, drawn[name][1]
        return jnp.where(happens(name), low + (magnitude - low) * share, usual)

    ring, rings = genotype.ranges["ring"], genotype.features["ring_enhancement"]
    cavity = between("resection", 0.5, 0.0)
    return Habit(
        # A core that was taken out no longer pushes.
        push=jnp.where(cavity > 0, 0.2, between("midline_shift", 1.0, 1.0)),
        uptake=between("faint", 0.6, 1.0),
        size=jnp.where(
            rings, between("small_core", 0.8, 1.0) * between("large_core", 1.0, 1.0), 1.0
        ),
        ring_mm=between("thin_ring", 2.5, ring),
        fill=between("solid_enhancement", 0.3, 0.0),
        specks=between("specks", 0.02, 0.0),
        blood=between("haemorrhage", 0.1, 0.0),
        cyst=between("cyst", 0.4, 0.0),
        focus=between("multifocal", 1.4, 0.0),
        mirror=between("butterfly", 0.5, 0.0),
        softness=between("infiltration", 0.02, 0.0),
        mimicry=jnp.where(rings, between("uneven_oedema", 0.3, 0.0), 0.0),
        dimming=between("uneven_uptake", 0.2, 0.0),
        outline_mm=between("generous_outline", 0.8, 0.0),
        cavity=cavity,
        superficial=between("superficial", 0.2, 0.0),
        evenness=between("even_spread", 0.1, 0.0),
        fading=between("fading", 0.02, 0.0),
        margin=jnp.where(happens("fading"), _FADED, 0.5),
        effacement=between("effacement", 0.1, 0.0),
        bend=between("head_shape", 1.0, 1.0),
    )


def around_prior(priors: jax.Array, histology: jax.Array, superficial: jax.Array) -> jax.Array:
    """Returns a type's prior for where tumours start, drawn toward the cortex.

    Args:
        priors: [3 d h w] float32, of each type of `anatomy.PRIORS`.
        histology: [] int32.
        superficial: [] float32 in 0..1; at 1 it is that of oligodendroglioma, a tumour of the
            cortex. Between them it is the weighted geometric mean.

    Returns:
        [d h w] float32.
    """
    own, cortex = priors[histology], priors[PRIORS.index("oligodendroglioma")]
    mixed = own.clip(1e-6) ** (1.0 - superficial) * cortex.clip(1e-6) ** superficial
    return jnp.where(superficial > 0, mixed, own)


def draw_centre(key: jax.Array, prior: jax.Array) -> jax.Array:
    """Draws a place in the atlas with probability proportional to a prior.

    Args:
        key: Typed PRNG key.
        prior: [d h w] float32, not negative, one value every `PRIOR_MM`.

    Returns:
        [3] float32, RAS in mm.
    """
    k_cell, k_within = jax.random.split(key)
    flat = jax.random.categorical(k_cell, jnp.log(prior.reshape(-1) + 1e-12))
    cell = jnp.stack(jnp.unravel_index(flat, prior.shape)).astype(jnp.float32)
    corner = jnp.array([low for low, _ in BOX_MM])
    return corner + PRIOR_MM * (cell + jax.random.uniform(k_within, (3,)))


def radial_field(
    key: jax.Array, centre: jax.Array, genotype: Genotype, habit: Habit, frame: Frame
) -> jax.Array:
    """Distance from the tumour's centre in units of its radius, with lobes and a rough surface.

    Args:
        key: Typed PRNG key.
        centre: [3] float32, RAS in mm.
        genotype: Gives the radius in mm, the roughness and whether a satellite stands apart.
        habit: Gives a second focus and a part beyond the midline.
        frame: Where it is wanted.

    Returns:
        [d h w] float32; below 1 is inside the core.
    """
    k_axes, k_turn, k_offset, k_size, k_focus, k_noise = jax.random.split(key, 6)
    radius, points = genotype.ranges["radius"], frame.points()
    turn, _ = jnp.linalg.qr(jax.random.normal(k_turn, (3, 3)))
    stretch = jnp.exp(0.22 * jax.random.normal(k_axes, (3, 1)))
    shape = turn * (stretch / jnp.prod(stretch) ** (1 / 3))
    local = jnp.einsum("ij,jdhw->idhw", shape, points - centre.reshape(3, 1, 1, 1))

    # The first lobe stays at the centre; the third is a satellite, further out and smaller; the
    # fourth a focus of its own, somewhere in white matter or not.
    reach = jnp.array([0.0, 0.55, 1.0]) * radius
    away = jax.random.normal(k_offset, (LOBES, 3)) * reach.reshape(-1, 1)
    share = jax.random.uniform(k_size, (LOBES + 1,), minval=0.4, maxval=0.85)
    size = radius * share[:LOBES].at[0].set(1.0) * jnp.array([1.0, 1.0, 0.5])
    distance = [
        jnp.linalg.norm(local - away[i].reshape(3, 1, 1, 1), axis=0) / size[i] for i in range(LOBES)
    ]
    nearest = jnp.minimum(distance[0], distance[1])
    nearest = jnp.where(genotype.features["satellite"], jnp.minimum(nearest, distance[2]), nearest)
    direction = jax.random.normal(k_focus, (3,))
    direction = direction / jnp.linalg.norm(direction) * habit.focus * radius
    second = jnp.linalg.norm(local - direction.reshape(3, 1, 1, 1), axis=0)
    second = second / (0.6 * radius * share[LOBES])
    nearest = jnp.where(habit.focus > 0, jnp.minimum(nearest, second), nearest)
    mirrored = jnp.stack([-points[0], points[1], points[2]]) - centre.reshape(3, 1, 1, 1)
    beyond = jnp.linalg.norm(mirrored, axis=0) / (radius * habit.mirror.clip(0.1))
    # Through the corpus callosum, so only from near the midline.
    crosses = (habit.mirror > 0) & (jnp.abs(centre[0]) < 1.1 * radius)
    nearest = jnp.where(crosses, jnp.minimum(nearest, beyond), nearest)
    # Roughness fades away from the tumour, or it would tear islands off the oedema.
    rough = octave_noise(k_noise, frame, scales_mm=(24.0, 11.0, 6.0))
    return nearest + genotype.ranges["roughness"] * rough / jnp.maximum(nearest, 1.0)


def grow_tumour(
    key: jax.Array,
    radial: jax.Array,
    genotype: Genotype,
    habit: Habit,
    frame: Frame,
    *,
    brain: jax.Array,
    tracts: jax.Array,
    wetness: jax.Array,
    fluid: jax.Array,
) -> Tumour:
    """Fills the radial field with tissue.

    Oedema follows white matter, where water and tumour cells move several times faster than in grey
    matter (Swanson et al. 2000, Cell Prolif 33:317), and stops at fluid.

    Args:
        key: Typed PRNG key.
        radial: [d h w] float32 from `radial_field`.
        genotype: Gives the ranges and features.
        habit: What this tumour does besides.
        frame: Of the radial field.
        brain: [d h w] float32 mask.
        tracts: [d h w] float32, white matter around.
        wetness: [d h w] float32, fluid around.
        fluid: [d h w] float32, fraction of cerebrospinal fluid.

    Returns:
        The tumour; its fractions sum to at most 1 in every voxel.
    """
    keys = iter(jax.random.split(key, 10))
    ranges, features = genotype.ranges, genotype.features

    def draw(scale_mm: float) -> jax.Array:
        return noise(next(keys), frame, scale_mm=scale_mm)

    def inside(level: jax.Array, softness: jax.Array | float) -> jax.Array:
        return jax.nn.sigmoid(level / softness)

    def share(field: jax.Array, wanted: jax.Array) -> jax.Array:
        """Where noise is above the level that a share of it exceeds; nowhere for a share of 0."""
        level = jnp.where(wanted > 0, -jax.scipy.special.ndtri(wanted.clip(1e-4, 0.999)), 9.0)
        return inside(field - level, 0.12)

    soft = ranges["softness"] + habit.softness
    core = brain * inside(1.0 - radial, soft) * (1.0 - 0.7 * wetness)
    thickness = habit.ring_mm / ranges["radius"] * (1.0 + 0.45 * draw(9.0).clip(-1.8, 1.8))
    inner = core * inside(1.0 - thickness - radial, jnp.minimum(soft, 0.06))
    inner = inner * (1.0 - share(draw(14.0), habit.fill))

    ring = jnp.where(features["ring_enhancement"], 1.0, 0.0)
    gaps = inside(draw(12.0) + 1.3, 0.15)  # a ring is seldom closed
    enhancing, necrosis = ring * (core - inner) * gaps, ring * inner
    solid = core - enhancing - necrosis

    patchy = jnp.where(features["patchy_enhancement"], 1.0, 0.0)
    patch = jnp.maximum(patchy * inside(draw(8.0) - 1.0, 0.12), share(draw(4.0), habit.specks))
    enhancing, solid = enhancing + patch * solid, solid * (1.0 - patch)

    mixed = 0.6 * inside(draw(7.0) - 0.7, 0.2) * (1.0 - ring)
    deep = inner / (core + 1e-6)
    fluid_like = jnp.where(features["mismatch"], deep, mixed)
    fluid_like = jnp.maximum(fluid_like, habit.cyst * deep)
    mucinous = fluid_like * solid + habit.cyst * necrosis
    solid, necrosis = solid * (1.0 - fluid_like), necrosis * (1.0 - habit.cyst)

    speckle = inside(draw(5.0) - 1.5, 0.1)
    calcium = jnp.where(features["calcification"], 1.0, 0.0) * speckle * solid
    solid = solid - calcium
    bled = share(draw(10.0), habit.blood)
    blood = bled * (necrosis + solid)
    necrosis, solid = necrosis * (1.0 - bled), solid * (1.0 - bled)

    along = 0.15 + 1.25 * tracts
    along = along + habit.evenness * (_EVEN_REACH - along)
    reach = ranges["oedema_reach"] / ranges["radius"] * along
    reach = reach * (1.0 + 0.5 * draw(18.0).clip(-1.8, 1.8))
    around = inside(1.0 + reach - radial, jnp.maximum(soft, 0.06) + habit.fading)
    oedema = (brain * around * (1.0 - fluid) - core).clip(0.0) * (1.0 - core)

    level = habit.cavity - radial + 0.12 * draw(16.0).clip(-1.8, 1.8)
    cavity = brain * inside(level, 0.04) * (habit.cavity > 0)
    grown = Tumour(
        necrosis, solid, mucinous, enhancing, oedema, calcium, blood, jnp.zeros_like(cavity)
    )
    left = jax.tree.map(lambda part: part * (1.0 - cavity), grown)
    return left._replace(cavity=cavity)


def displace(
    points: jax.Array, centre: jax.Array, genotype: Genotype, push: jax.Array
) -> jax.Array:
    """Pushes the anatomy away from the tumour (mass effect).

    Works on the places that are sampled: what is seen at a point came from nearer to the centre.
    The push fades with distance over twice the radius.

    Args:
        points: [3 ...] float32, places in the patient, RAS in mm.
        centre: [3] float32, the tumour's.
        genotype: Gives radius and strength.
        push: [] float32, a factor on the strength.

    Returns:
        [3 ...] float32, where each place was before the tumour grew.
    """
    offset = points - centre.reshape(3, *[1] * (points.ndim - 1))
    relative = jnp.linalg.norm(offset, axis=0) / (2.0 * genotype.ranges["radius"])
    strength = jnp.minimum(genotype.ranges["mass_effect"] * push, 0.45)
    return points - strength * jnp.exp(-(relative**2)) * offset
