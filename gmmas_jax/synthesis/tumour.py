"""The tumour's shape: necrotic core, enhancing ring and oedema from a perturbed distance field."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gmmas_jax.synthesis.fields import Shape3, noise_field, octave_noise, smooth, voxel_grid
from gmmas_jax.synthesis.genotype import Genotype

LOBES = 3


class Tumour(NamedTuple):
    """Fractions of a voxel's volume taken by each tumour tissue, [d h w] float32 in 0..1 each."""

    necrosis: jax.Array
    solid: jax.Array
    mucinous: jax.Array
    enhancing: jax.Array
    oedema: jax.Array
    calcium: jax.Array

    def label(self) -> jax.Array:
        """Returns the label map [d h w] int32: per voxel the class of the largest fraction.

        Classes are 0 background, 1 core that does not enhance (necrotic, solid, mucinous,
        calcified: one class in BraTS since 2017), 2 oedema, 3 enhancing.
        """
        core = self.necrosis + self.solid + self.mucinous + self.calcium
        rest = 1.0 - core - self.oedema - self.enhancing
        tumour = jnp.where(core >= self.oedema, 1, 2)
        tumour = jnp.where(self.enhancing > jnp.maximum(core, self.oedema), 3, tumour)
        largest = jnp.maximum(self.enhancing, jnp.maximum(core, self.oedema))
        return jnp.where(rest >= largest, 0, tumour)


def draw_centre(key: jax.Array, prior: jax.Array) -> jax.Array:
    """Draws a point with probability proportional to a prior, which is read at every other voxel.

    Args:
        key: Typed PRNG key.
        prior: [d h w] float32, not negative.

    Returns:
        [3] float32 voxel coordinates.
    """
    coarse = prior[::2, ::2, ::2]
    flat = jax.random.categorical(key, jnp.log(coarse.reshape(-1) + 1e-12))
    return 2.0 * jnp.stack(jnp.unravel_index(flat, coarse.shape)).astype(jnp.float32)


def radial_field(
    key: jax.Array, centre: jax.Array, genotype: Genotype, *, shape: Shape3, spacing_mm: float
) -> jax.Array:
    """Distance from the tumour's centre in units of its radius, with lobes and a rough surface.

    Args:
        key: Typed PRNG key.
        centre: [3] float32, voxels.
        genotype: Gives the radius in mm, the roughness and whether a satellite stands apart.
        shape: Grid.
        spacing_mm: Edge of a voxel.

    Returns:
        [d h w] float32; below 1 is inside the core.
    """
    k_axes, k_turn, k_offset, k_size, k_noise = jax.random.split(key, 5)
    radius = genotype.ranges["radius"]
    offset_mm = (voxel_grid(shape) - centre.reshape(3, 1, 1, 1)) * spacing_mm
    turn, _ = jnp.linalg.qr(jax.random.normal(k_turn, (3, 3)))
    stretch = jnp.exp(0.22 * jax.random.normal(k_axes, (3, 1)))
    local = jnp.einsum("ij,jdhw->idhw", turn * (stretch / jnp.prod(stretch) ** (1 / 3)), offset_mm)

    # The first lobe stays at the centre; the last one is a satellite, further out and smaller.
    reach = jnp.array([0.0, 0.55, 1.0]) * radius
    away = jax.random.normal(k_offset, (LOBES, 3)) * reach.reshape(-1, 1)
    size = jax.random.uniform(k_size, (LOBES,), minval=0.4, maxval=0.85) * jnp.array(
        [1.0, 1.0, 0.5]
    )
    size = radius * size.at[0].set(1.0)
    distance = [
        jnp.linalg.norm(local - away[i].reshape(3, 1, 1, 1), axis=0) / size[i] for i in range(LOBES)
    ]
    main = jnp.minimum(distance[0], distance[1])
    nearest = jnp.where(genotype.features["satellite"], jnp.minimum(main, distance[2]), main)
    scales = (24.0 / spacing_mm, 11.0 / spacing_mm, 6.0 / spacing_mm)
    # Roughness fades away from the tumour, or it would tear islands off the oedema.
    rough = genotype.ranges["roughness"] * octave_noise(k_noise, shape, scales=scales)
    return nearest + rough / jnp.maximum(nearest, 1.0)


def grow_tumour(
    key: jax.Array,
    radial: jax.Array,
    genotype: Genotype,
    *,
    brain: jax.Array,
    white: jax.Array,
    fluid: jax.Array,
    spacing_mm: float,
) -> Tumour:
    """Fills the radial field with tissue.

    Oedema follows white matter, where water and tumour cells move several times faster than in grey
    matter (Swanson et al. 2000, Cell Prolif 33:317), and stops at fluid.

    Args:
        key: Typed PRNG key.
        radial: [d h w] float32 from `radial_field`.
        genotype: Gives the ranges and features.
        brain: [d h w] float32 mask.
        white: [d h w] float32, fraction of white matter.
        fluid: [d h w] float32, fraction of cerebrospinal fluid.
        spacing_mm: Edge of a voxel.

    Returns:
        The tumour; its fractions sum to at most 1 in every voxel.
    """
    keys = iter(jax.random.split(key, 6))
    ranges, features = genotype.ranges, genotype.features

    def noise(scale_mm: float) -> jax.Array:
        return noise_field(next(keys), radial.shape, scale=scale_mm / spacing_mm)

    def inside(level: jax.Array, softness: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(level / softness)

    soft = ranges["softness"]
    core = brain * inside(1.0 - radial, soft) * (1.0 - 0.7 * smooth(fluid, sigma=4.0 / spacing_mm))
    thickness = ranges["ring"] / ranges["radius"] * (1.0 + 0.45 * noise(9.0).clip(-1.8, 1.8))
    inner = core * inside(1.0 - thickness - radial, jnp.minimum(soft, 0.06))

    ring = jnp.where(features["ring_enhancement"], 1.0, 0.0)
    gaps = inside(noise(12.0) + 1.1, jnp.asarray(0.15))  # a ring is seldom closed
    enhancing, necrosis = ring * (core - inner) * gaps, ring * inner
    solid = core - enhancing - necrosis

    patch = jnp.where(features["patchy_enhancement"], 1.0, 0.0) * inside(
        noise(8.0) - 1.0, jnp.asarray(0.12)
    )
    enhancing, solid = enhancing + patch * solid, solid * (1.0 - patch)

    mixed = 0.6 * inside(noise(7.0) - 0.7, jnp.asarray(0.2)) * (1.0 - ring)
    fluid_like = jnp.where(features["mismatch"], inner / (core + 1e-6), mixed)
    mucinous, solid = fluid_like * solid, solid * (1.0 - fluid_like)

    speckle = inside(noise(5.0) - 1.5, jnp.asarray(0.1))
    calcium = jnp.where(features["calcification"], 1.0, 0.0) * speckle * solid
    solid = solid - calcium

    tracts = smooth(white, sigma=3.0 / spacing_mm)
    reach = ranges["oedema_reach"] / ranges["radius"] * (0.15 + 1.25 * tracts)
    reach = reach * (1.0 + 0.5 * noise(18.0).clip(-1.8, 1.8))
    around = inside(1.0 + reach - radial, jnp.maximum(soft, 0.06))
    oedema = (brain * around * (1.0 - fluid) - core).clip(0.0) * (1.0 - core)
    return Tumour(necrosis, solid, mucinous, enhancing, oedema, calcium)


def displace(
    coordinates: jax.Array, centre: jax.Array, genotype: Genotype, *, spacing_mm: float
) -> jax.Array:
    """Pushes the anatomy away from the tumour (mass effect).

    Works on sampling coordinates: what is seen at a point came from nearer to the centre. The push
    fades with distance over twice the radius.

    Args:
        coordinates: [3 d h w] float32, where each voxel samples the anatomy.
        centre: [3] float32, the tumour's centre in voxels of the result.
        genotype: Gives radius and strength.
        spacing_mm: Edge of a voxel.

    Returns:
        [3 d h w] float32.
    """
    offset = voxel_grid(coordinates.shape[1:]) - centre.reshape(3, 1, 1, 1)
    relative = jnp.linalg.norm(offset, axis=0) * spacing_mm / (2.0 * genotype.ranges["radius"])
    return coordinates - genotype.ranges["mass_effect"] * jnp.exp(-(relative**2)) * offset
