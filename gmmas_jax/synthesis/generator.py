"""One synthetic patient from one key: the composition of anatomy, genotype, tumour and scanner."""

import functools
from typing import TypedDict

import jax
import jax.numpy as jnp

from gmmas_jax.synthesis.acquisition import Artefacts, acquire
from gmmas_jax.synthesis.anatomy import Anatomy
from gmmas_jax.synthesis.contrast import TISSUES, draw_signals
from gmmas_jax.synthesis.fields import Shape3, noise_field, sample_linear, voxel_grid
from gmmas_jax.synthesis.genotype import Genotype, draw_genotype
from gmmas_jax.synthesis.tumour import Tumour, displace, draw_centre, grow_tumour, radial_field

STANDARD = Artefacts()
"""The strengths of a clinical scanner."""


class Patient(TypedDict):
    """What `generate` returns.

    Attributes:
        image: [d h w 4] float32: t1n, t1c, t2w, t2f; skull-stripped, zero outside the brain.
        label: [d h w] int32: 0 background, 1 NCR, 2 ED, 3 ET.
        tasks: {task: [] int32 class index}.
    """

    image: jax.Array
    label: jax.Array
    tasks: dict[str, jax.Array]


def generate(key: jax.Array, anatomy: Anatomy, *, artefacts: Artefacts = STANDARD) -> Patient:
    """Generates a patient. Pure, with static shapes: works under `jit` and `vmap`.

    Random intensities over real tissue maps follow SynthSeg (Billot et al. 2023, Med Image Anal
    86:102789); here they pass through the MR signal equations, so that contrasts keep their order.

    Args:
        key: Typed PRNG key; the patient is a function of it alone.
        anatomy: Tissue maps on the grid of the result.
        artefacts: Strengths of the scanner's artefacts.

    Returns:
        The patient on the anatomy's grid.
    """
    k_type, k_deform, k_centre, k_radial, k_grow, k_tissue, k_signal, k_texture, k_scan = (
        jax.random.split(key, 9)
    )
    shape, spacing_mm = anatomy.maps.shape[1:], anatomy.spacing_mm
    genotype = draw_genotype(k_type)

    coordinates = deform(k_deform, shape, spacing_mm=spacing_mm)
    # The centre is drawn in the atlas and followed to where the deformation puts it.
    prior = anatomy.maps[3 + genotype.histology]
    centre = follow(coordinates, draw_centre(k_centre, prior))
    coordinates = displace(coordinates, centre, genotype, spacing_mm=spacing_mm)
    brain, grey, white = (sample_linear(anatomy.maps[i], coordinates) for i in range(3))
    brain = (brain > 0.5).astype(jnp.float32)
    grey, white, fluid, vessel = split_tissue(k_tissue, brain, grey, white, spacing_mm=spacing_mm)

    radial = radial_field(k_radial, centre, genotype, shape=shape, spacing_mm=spacing_mm)
    tumour = grow_tumour(
        k_grow, radial, genotype, brain=brain, white=white, fluid=fluid, spacing_mm=spacing_mm
    )
    image = render(
        k_signal, k_texture, tumour, genotype, (white, grey, fluid, vessel), spacing_mm=spacing_mm
    )
    scans = [
        acquire(k, image[..., i], brain, artefacts=artefacts, spacing_mm=spacing_mm)
        for i, k in enumerate(jax.random.split(k_scan, 4))
    ]
    return {"image": jnp.stack(scans, axis=-1), "label": tumour.label(), "tasks": genotype.tasks()}


def deform(key: jax.Array, shape: Shape3, *, spacing_mm: float) -> jax.Array:
    """Draws a head: affine and smooth elastic deformation of the atlas.

    Args:
        key: Typed PRNG key.
        shape: Grid.
        spacing_mm: Edge of a voxel.

    Returns:
        [3 d h w] float32: the atlas coordinates that each voxel shows.
    """
    k_flip, k_angle, k_scale, k_shear, k_shift, k_coarse, k_fine = jax.random.split(key, 7)
    middle = (jnp.array(shape, jnp.float32).reshape(3, 1, 1, 1) - 1) / 2
    angles = jax.random.normal(k_angle, (3,)) * jnp.deg2rad(6.0)
    matrix = rotation(angles) * jnp.exp(0.05 * jax.random.normal(k_scale, (3,)))
    matrix = matrix + 0.03 * jax.random.normal(k_shear, (3, 3))
    mirror = jnp.where(jax.random.bernoulli(k_flip), -1.0, 1.0)
    matrix = matrix * jnp.array([1.0, 1.0, 1.0]).at[0].set(mirror).reshape(3, 1)
    shift = 2.0 / spacing_mm * jax.random.normal(k_shift, (3, 1, 1, 1))
    coordinates = jnp.einsum("ij,jdhw->idhw", matrix, voxel_grid(shape) - middle) + middle + shift
    for k, scale_mm, size_mm in ((k_coarse, 40.0, 3.0), (k_fine, 16.0, 1.0)):
        draw = functools.partial(noise_field, shape=shape, scale=scale_mm / spacing_mm)
        push = jax.vmap(draw)(jax.random.split(k, 3))
        coordinates = coordinates + size_mm / spacing_mm * push
    return coordinates


def rotation(angles: jax.Array) -> jax.Array:
    """Returns the matrix [3 3] of rotations about the three axes, angles [3] in radians."""
    (cx, cy, cz), (sx, sy, sz) = jnp.cos(angles), jnp.sin(angles)
    about_x = jnp.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = jnp.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = jnp.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def follow(coordinates: jax.Array, point: jax.Array) -> jax.Array:
    """Finds where a deformation carries an atlas point: to the nearest of every other voxel.

    Args:
        coordinates: [3 d h w] float32 from `deform`.
        point: [3] float32 in atlas voxels.

    Returns:
        [3] float32 voxel coordinates.
    """
    offset = coordinates[:, ::2, ::2, ::2] - point.reshape(3, 1, 1, 1)
    distance = jnp.sum(offset**2, axis=0)
    nearest = jnp.unravel_index(jnp.argmin(distance), distance.shape)
    return 2.0 * jnp.stack(nearest).astype(jnp.float32)


def split_tissue(
    key: jax.Array, brain: jax.Array, grey: jax.Array, white: jax.Array, *, spacing_mm: float
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Turns the blurred average maps into one head's tissue: sharper borders, folds and vessels.

    An average of 152 heads has no individual sulci: noise between grey matter and fluid puts some
    back. Vessels are thin bright threads in sulci and fluid, which on t1c must not pass for tumour.

    Returns:
        Fractions (grey, white, fluid, vessel), each [d h w] float32, summing to `brain`.
    """
    k_fold, k_share, k_vessel, k_density = jax.random.split(key, 4)
    fluid = (1.0 - grey - white).clip(0.0)
    fold = noise_field(k_fold, brain.shape, scale=5.0 / spacing_mm)
    fluid = (
        fluid + grey * (0.30 * fold - 0.05 + 0.08 * jax.random.normal(k_share)).clip(0.0)
    ).clip(0.0)
    parts = jnp.stack([grey, white, fluid]) + 1e-3
    sharp = parts**1.6
    grey, white, fluid = sharp / sharp.sum(0) * brain
    threads = jnp.abs(noise_field(k_vessel, brain.shape, scale=12.0 / spacing_mm))
    density = jax.random.uniform(k_density, minval=0.0, maxval=0.07)
    vessel = jax.nn.sigmoid((density - threads) / 0.02) * (fluid + 0.1 * grey)
    keep = 1.0 - vessel / (grey + white + fluid + 1e-6)
    return grey * keep, white * keep, fluid * keep, vessel


def render(
    k_signal: jax.Array,
    k_texture: jax.Array,
    tumour: Tumour,
    genotype: Genotype,
    healthy: tuple[jax.Array, ...],
    *,
    spacing_mm: float,
) -> jax.Array:
    """Mixes the tissues' signals by volume and adds texture.

    Args:
        k_signal: Key of relaxation times and protocol.
        k_texture: Key of the texture.
        tumour: Tumour tissue fractions.
        genotype: Gives the gadolinium concentration.
        healthy: (white, grey, fluid, vessel) fractions, [d h w] float32 each.
        spacing_mm: Edge of a voxel.

    Returns:
        [d h w 4] float32 ideal signal.
    """
    taken = sum(tumour[1:], tumour[0])
    fractions = jnp.stack([*(part * (1.0 - taken) for part in healthy), *tumour], axis=-1)
    k_tumour, k_brain, k_strength = jax.random.split(k_texture, 3)
    # Tumour tissue is less even than brain.
    tumour_texture = noise_field(k_tumour, taken.shape, scale=6.0 / spacing_mm)
    brain_texture = noise_field(k_brain, taken.shape, scale=4.0 / spacing_mm)
    uneven = jax.random.uniform(k_strength, minval=0.02, maxval=0.12)
    texture = 1.0 + uneven * taken * tumour_texture + 0.03 * brain_texture
    assert fractions.shape[-1] == len(TISSUES)
    return fractions @ draw_signals(k_signal, genotype.ranges["gadolinium"]) * texture[..., None]
