"""One synthetic patient from one key: the composition of anatomy, genotype, tumour and scanner."""

from typing import NamedTuple, TypedDict

import jax
import jax.numpy as jnp

from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.synthesis.acquisition import acquire
from gmmas_jax.synthesis.anatomy import CHANNELS, Anatomy, sample_anatomy
from gmmas_jax.synthesis.contrast import TISSUES, draw_signals, draw_weighting
from gmmas_jax.synthesis.effects import PLAIN, Effects
from gmmas_jax.synthesis.fields import as_channels, noise
from gmmas_jax.synthesis.frame import Frame, frame_at, whole_frame
from gmmas_jax.synthesis.genotype import Genotype, draw_genotype, resized
from gmmas_jax.synthesis.remains import draw_dura, draw_remains
from gmmas_jax.synthesis.tissue import effaced, split_tissue, with_lesions, with_own_sulci
from gmmas_jax.synthesis.tumour import (
    Habit,
    Tumour,
    around_prior,
    displace,
    draw_centre,
    draw_habit,
    grow_tumour,
    radial_field,
)
from gmmas_jax.synthesis.unevenness import place_factors, tumour_factors

_FOLLOW = 24
"""Rounds of the fixed point that inverts a deformation at a point: it is smooth and small."""


LEAST_SEEN = 0.09
"""Concentration of contrast agent, in mmol/l, that brings enhancing tumour to white matter."""


class Patient(TypedDict):
    """What `generate` returns.

    Attributes:
        image: [d h w 4] float32: t1n, t1c, t2w, t2f; skull-stripped, zero outside the brain.
        label: [d h w] int32: 0 background, 1 NCR, 2 ED, 3 ET, 4 RC.
        tasks: {task: [] int32 class index}.
    """

    image: jax.Array
    label: jax.Array
    tasks: dict[str, jax.Array]


class Traits(NamedTuple):
    """All that is drawn of a patient before any voxel.

    Attributes:
        genotype: Type, and the numbers that shape the tumour.
        habit: What the tumour does besides.
        centre: [3] float32, the tumour's, RAS in mm; in the patient.
        mirror: [3] float32, -1 for left and right exchanged, else 1, then 1, 1.
        keys: {what is drawn per place: key}.
        healthy: [] bool, no tumour at all.
    """

    genotype: Genotype
    habit: Habit
    centre: jax.Array
    mirror: jax.Array
    keys: dict[str, jax.Array]
    healthy: jax.Array


def generate(
    key: jax.Array,
    anatomy: Anatomy,
    *,
    effects: Effects = PLAIN,
    healthy: jax.Array | bool = False,
    spacing_mm: float | None = None,
) -> Patient:
    """Generates a whole patient. Pure, with static shapes: works under `jit` and `vmap`.

    Random intensities over real tissue maps follow SynthSeg (Billot et al. 2023, Med Image Anal
    86:102789); here they pass through the MR signal equations, so that contrasts keep their order.

    Args:
        key: Typed PRNG key; the patient is a function of it alone.
        anatomy: Tissue maps.
        effects: What makes scans hard.
        healthy: Whether there is no tumour; the tasks then say nothing.
        spacing_mm: Edge of the voxels; None for the anatomy's.
    """
    traits = draw_traits(key, anatomy, effects, healthy=healthy)
    frame = whole_frame(spacing_mm or anatomy.spacing_mm)
    image, label = show(traits, anatomy, frame, effects)
    return {"image": image, "label": label, "tasks": traits.genotype.tasks()}


def draw_traits(
    key: jax.Array, anatomy: Anatomy, effects: Effects, *, healthy: jax.Array | bool = False
) -> Traits:
    """Draws what a patient is, before any voxel is looked at."""
    names = ("deform", "radial", "grow", "tissue", "lesions", "signal", "texture", "mask", "scan")
    k_type, k_habit, k_centre, k_mirror, *rest = jax.random.split(key, 4 + len(names))
    keys = dict(zip(names, rest, strict=True))
    genotype = draw_genotype(k_type)
    habit = draw_habit(k_habit, genotype, effects)
    genotype = resized(genotype, habit.size)
    # The centre is drawn in the atlas and followed to where the deformation puts it.
    side = jnp.where(jax.random.bernoulli(k_mirror), -1.0, 1.0)
    mirror = jnp.ones(3).at[0].set(side)
    prior = around_prior(anatomy.priors, genotype.histology, habit.superficial)
    place = mirror * draw_centre(k_centre, prior)

    def closer(_: int, centre: jax.Array) -> jax.Array:
        # The same field each time, as in every frame that the patient is shown in.
        head = jax.random.clone(keys["deform"])
        return centre + place - deform(head, frame_at(centre), habit.bend).reshape(3)

    # A loop, not its rounds one after the other: they would be most of the program.
    centre = jax.lax.fori_loop(0, _FOLLOW, closer, place)
    return Traits(genotype, habit, centre, mirror, keys, jnp.asarray(healthy))


def show(
    traits: Traits, anatomy: Anatomy, frame: Frame, effects: Effects
) -> tuple[jax.Array, jax.Array]:
    """Shows a patient in a frame: all of the head, or a patch of it.

    Returns:
        image [d h w 4] float32 and label [d h w] int32, as in `Patient`.
    """
    keys = {name: jax.random.clone(key) for name, key in traits.keys.items()}
    genotype, habit = traits.genotype, traits.habit
    maps = sample_anatomy(anatomy, _in_atlas(traits, anatomy, frame))
    part = dict(zip(CHANNELS, jnp.moveaxis(maps, -1, 0), strict=True))
    inside = brain_mask(keys["mask"], part["brain"], frame, effects)
    k_remains, k_dura = (
        jax.random.fold_in(jax.random.clone(traits.keys["mask"]), number) for number in (1, 2)
    )
    remains, other = draw_remains(k_remains, part["depth"], frame, effects)
    dura, dark = draw_dura(k_dura, part["depth"], frame, effects)
    dura = dura * (1.0 - remains)
    head = inside * (1.0 - remains - dura)
    parts = split_tissue(keys["tissue"], head, part, frame, effects)
    parts = with_lesions(keys["lesions"], parts, part["wetness"], frame, effects)
    radial = radial_field(keys["radial"], traits.centre, genotype, habit, frame)
    radial = radial + jnp.where(traits.healthy, 1e3, 0.0)
    parts = effaced(parts, radial, part["ventricles"], habit.effacement)
    k_sulci = jax.random.fold_in(jax.random.clone(traits.keys["tissue"]), 1)
    parts = with_own_sulci(k_sulci, parts, part["depth"], effects)
    tumour = grow_tumour(
        keys["grow"],
        radial,
        genotype,
        habit,
        frame,
        brain=head * (part["brain"] > 0.45),
        tracts=part["tracts"],
        wetness=part["wetness"],
        # Oedema stops at vessels as at the fluid that they run in.
        fluid=parts[2] + parts[3],
    )
    planes = render(keys["signal"], keys["texture"], tumour, traits, parts, frame, effects)
    taken = sum(tumour[1:], tumour[0])
    k_place, k_uneven = (
        jax.random.fold_in(jax.random.clone(traits.keys["texture"]), number) for number in (1, 2)
    )
    places = place_factors(k_place, taken, part["depth"], frame, effects)
    patches = tumour_factors(k_uneven, taken, frame, effects)
    planes = [
        (plane + inside * (remains * rest + dura * level)) * place * patch
        for plane, rest, level, place, patch in zip(
            planes, other, dark, places, patches, strict=True
        )
    ]
    keys_scan = jax.random.split(keys["scan"], len(planes))
    scans = [
        acquire(k, plane, inside, frame, effects)
        for k, plane in zip(keys_scan, planes, strict=True)
    ]
    return as_channels(scans), tumour.label(frame, habit.outline_mm, habit.margin)


def head_extent(
    traits: Traits, anatomy: Anatomy, effects: Effects, *, spacing_mm: float
) -> tuple[jax.Array, jax.Array]:
    """Finds the box of a patient's brain.

    Args:
        traits: Of the patient.
        anatomy: Tissue maps.
        effects: How wrong the mask may be.
        spacing_mm: Of the grid that is searched.

    Returns:
        Lower and upper corner, [3] float32 each, RAS in mm.
    """
    frame = whole_frame(spacing_mm)
    brain = sample_anatomy(anatomy, _in_atlas(traits, anatomy, frame), ("brain",))[..., 0]
    inside = brain_mask(jax.random.clone(traits.keys["mask"]), brain, frame, effects) > 0.5
    lows, highs = [], []
    for axis in range(3):
        any_there = inside.any(axis=tuple(other for other in range(3) if other != axis))
        place = frame.along(axis)
        lows.append(jnp.where(any_there, place, jnp.inf).min() - spacing_mm / 2)
        highs.append(jnp.where(any_there, place, -jnp.inf).max() + spacing_mm / 2)
    return jnp.stack(lows), jnp.stack(highs)


def _in_atlas(traits: Traits, anatomy: Anatomy, frame: Frame) -> jax.Array:
    """Returns the places in the atlas, [3 d h w] mm, that a patient's voxels show."""
    mirror = traits.mirror.reshape(3, 1, 1, 1)
    points = frame.points()
    push = displace(points, traits.centre, traits.genotype, traits.habit.push) - points
    places = deform(jax.random.clone(traits.keys["deform"]), frame, traits.habit.bend)
    # The skull does not give way: nothing is pushed at the border.
    room = sample_anatomy(anatomy, mirror * places, ("depth",))[..., 0]
    # The head's own deformation is smooth: it moves a place and where it was pushed from alike.
    return mirror * (places + jnp.where(traits.healthy, 0.0, room) * push)


def deform(key: jax.Array, frame: Frame, bend: jax.Array | float = 1.0) -> jax.Array:
    """Draws a head: affine and smooth elastic deformation of the atlas.

    Args:
        key: Typed PRNG key.
        frame: Where it is wanted.
        bend: [] float32, a factor on the elastic part.

    Returns:
        [3 d h w] float32: the places in the atlas, RAS in mm, that the voxels show.
    """
    k_angle, k_scale, k_shear, k_shift, k_coarse, k_fine = jax.random.split(key, 6)
    middle = jnp.array([0.0, -18.0, 6.0]).reshape(3, 1, 1, 1)
    angles = (jax.random.normal(k_angle, (3,)) * jnp.deg2rad(6.0)).clip(-0.25, 0.25)
    # MNI152 is larger than most heads, by a quarter in volume.
    sizes = jnp.exp(0.10 + 0.05 * jax.random.normal(k_scale, (3,)).clip(-1.0, 2.0))
    # The box must hold what bends outwards.
    sizes = sizes * (1.0 + 0.05 * (bend - 1.0))
    matrix = rotation(angles) * sizes + 0.03 * jax.random.normal(k_shear, (3, 3)).clip(-1.5, 1.5)
    shift = 2.0 * jax.random.normal(k_shift, (3, 1, 1, 1)).clip(-1.5, 1.5)
    points = jnp.einsum("ij,jdhw->idhw", matrix, frame.points() - middle) + middle + shift
    for k, scale_mm, size_mm in ((k_coarse, 40.0, 3.0), (k_fine, 16.0, 1.2)):
        push = [noise(own, frame, scale_mm=scale_mm) for own in jax.random.split(k, 3)]
        points = points + bend * size_mm * jnp.stack(push).clip(-2.0, 2.0)
    return points


def rotation(angles: jax.Array) -> jax.Array:
    """Returns the matrix [3 3] of rotations about the three axes, angles [3] in radians."""
    (cx, cy, cz), (sx, sy, sz) = jnp.cos(angles), jnp.sin(angles)
    about_x = jnp.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = jnp.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = jnp.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def brain_mask(key: jax.Array, brain: jax.Array, frame: Frame, effects: Effects) -> jax.Array:
    """Draws what skull-stripping left: the brain, here and there too much or too little.

    Args:
        key: Typed PRNG key.
        brain: [d h w] float32, 0.5 at the brain's border, falling by about 0.2 a mm.
        frame: Of the map.
        effects: How wrong it may be.

    Returns:
        [d h w] float32, 0 or 1.
    """
    k_happens, k_level, k_field = jax.random.split(key, 3)
    happens = jax.random.bernoulli(k_happens, effects.mask.probability)
    error_mm = effects.mask.magnitude * jax.random.uniform(k_level, minval=-1.0)
    uneven = 1.0 + noise(k_field, frame, scale_mm=20.0).clip(-1.5, 1.5)
    level = (0.5 + jnp.where(happens, 0.2 * error_mm * uneven, 0.0)).clip(0.08, 0.92)
    return (brain > level).astype(jnp.float32)


def render(
    k_signal: jax.Array,
    k_texture: jax.Array,
    tumour: Tumour,
    traits: Traits,
    healthy: tuple[jax.Array, ...],
    frame: Frame,
    effects: Effects,
) -> list[jax.Array]:
    """Mixes the tissues' signals by volume and adds texture.

    Args:
        k_signal: Key of relaxation times and protocol.
        k_texture: Key of the texture.
        tumour: Tumour tissue fractions.
        traits: Give the concentration of contrast agent.
        healthy: (white, grey, fluid, vessel, gliosis) fractions, [d h w] float32 each.
        frame: Of the fractions.
        effects: How far contrast may depart from physics.

    Returns:
        For each of `SEQUENCES` the ideal signal, [d h w] float32, about 1 in the brain's mean.
    """
    taken = sum(tumour[1:], tumour[0])
    k_draw, k_departs, k_amount = jax.random.split(k_signal, 3)
    departs = jax.random.bernoulli(k_departs, effects.contrast.probability)
    departure = effects.contrast.magnitude * jax.random.uniform(k_amount)
    signals = draw_signals(
        k_draw,
        # Less could not be seen, and nobody would draw it.
        jnp.maximum(traits.genotype.ranges["gadolinium"] * traits.habit.uptake, LEAST_SEEN),
        jnp.where(departs, departure, 0.0),
        draw_weighting(jax.random.fold_in(jax.random.clone(k_signal), 1), effects),
    )
    # The same scale for a patch and for the whole: that of the healthy brain.
    signals = signals / (jnp.array([0.38, 0.50, 0.12]) @ signals[:3])
    k_oedema = jax.random.fold_in(jax.random.clone(k_texture), 3)
    k_tumour, k_uptake, k_brain, k_strength, k_dim = jax.random.split(k_texture, 5)
    # Tumour tissue is less even than brain, and takes up contrast unevenly.
    uneven = jax.random.uniform(k_strength, minval=0.02, maxval=0.15)
    texture = 1.0 + uneven * taken * noise(k_tumour, frame, scale_mm=5.0)
    texture = texture + 0.03 * noise(k_brain, frame, scale_mm=3.5)
    enhancing, solid, oedema = map(TISSUES.index, ("enhancing", "solid", "oedema"))
    parts = [*(part * (1.0 - taken) for part in healthy), *tumour]
    assert len(parts) == len(TISSUES)
    if not effects.uneven_oedema.known_off:
        places = jax.nn.sigmoid((noise(k_oedema, frame, scale_mm=16.0) - 0.2) / 0.3)
        moved = traits.habit.mimicry * places * tumour.oedema
        parts[oedema], parts[solid] = parts[oedema] - moved, parts[solid] + moved
    planes = [
        texture * sum(part * signal for part, signal in zip(parts, column, strict=True))
        for column in signals.T
    ]
    dim = jax.nn.sigmoid((noise(k_dim, frame, scale_mm=6.0) - 0.3) / 0.3)
    uptake = (0.25 * noise(k_uptake, frame, scale_mm=3.0)).clip(-0.5, 0.5)
    patchy = tumour.enhancing * (uptake - traits.habit.dimming * dim).clip(-0.9)
    before, after = map(SEQUENCES.index, ("t1n", "t1c"))
    gained = (signals[enhancing, after] - signals[enhancing, before]).clip(0.0)
    planes[after] = planes[after] + patchy * gained
    return planes
