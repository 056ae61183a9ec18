"""What the scanner adds to the ideal signal: thick slices, bias field, noise, gamma."""

import flax.struct
import jax
import jax.numpy as jnp

from gmmas_jax.synthesis.fields import mix_along, noise_field, smooth


@flax.struct.dataclass
class Artefacts:
    """Strengths of the acquisition's artefacts. Static under `jit`.

    Attributes:
        thick_slices: Probability that a sequence was scanned with thick slices.
        thickness_mm: Thickest slice.
        bias: Standard deviation of the log of the bias field (Sled et al. 1998, IEEE TMI 17:87).
        noise: Largest standard deviation of the noise, as a share of the mean brain signal.
        gamma: Standard deviation of the log of the exponent on the signal.
    """

    thick_slices: float = flax.struct.field(pytree_node=False, default=0.30)
    thickness_mm: float = flax.struct.field(pytree_node=False, default=6.0)
    bias: float = flax.struct.field(pytree_node=False, default=0.12)
    noise: float = flax.struct.field(pytree_node=False, default=0.05)
    gamma: float = flax.struct.field(pytree_node=False, default=0.18)


def slice_matrix(size: int, thickness: jax.Array, phase: jax.Array) -> jax.Array:
    """Builds the matrix that averages voxels into thick slices and interpolates back linearly.

    Args:
        size: Voxels along the slice direction.
        thickness: [] float32, in voxels, at least 1.
        phase: [] float32 in 0..1, where the first slice begins, in slices.

    Returns:
        [size size] float32; rows sum to 1. At thickness 1 and phase 0 it is the identity.
    """
    voxels = jnp.arange(size, dtype=jnp.float32)
    position = (voxels + 0.5) / thickness - 0.5 + phase
    lower = jnp.floor(position)
    share = position - lower

    def average(slice_index: jax.Array) -> jax.Array:
        centre = (slice_index - phase + 0.5) * thickness - 0.5
        overlap = thickness / 2 + 0.5 - jnp.abs(voxels[None, :] - centre[:, None])
        weights = overlap.clip(0.0, 1.0)
        # A slice beyond the edge has no voxels: repeat the edge voxel instead.
        nearest = jax.nn.one_hot(centre.round().clip(0, size - 1).astype(jnp.int32), size)
        weights = jnp.where(weights.sum(1, keepdims=True) > 1e-3, weights, nearest)
        return weights / weights.sum(1, keepdims=True)

    return (1.0 - share)[:, None] * average(lower) + share[:, None] * average(lower + 1.0)


def acquire(
    key: jax.Array, signal: jax.Array, brain: jax.Array, *, artefacts: Artefacts, spacing_mm: float
) -> jax.Array:
    """Scans one sequence.

    Args:
        key: Typed PRNG key.
        signal: [d h w] float32, the ideal signal.
        brain: [d h w] float32 in 0..1; the background stays exactly zero, as after skull-stripping.
        artefacts: Strengths.
        spacing_mm: Edge of a voxel.

    Returns:
        [d h w] float32, mean 300 inside the brain, not negative.
    """
    k_thick, k_slice, k_axis, k_phase, k_bias, k_noise, k_level, k_gamma = jax.random.split(key, 8)
    thickness = jax.random.uniform(k_slice, minval=1.0, maxval=artefacts.thickness_mm / spacing_mm)
    thick = jax.random.bernoulli(k_thick, artefacts.thick_slices)
    axis = jax.random.categorical(k_axis, jnp.log(jnp.array([0.1, 0.2, 0.7])))  # mostly axial
    phase = jax.random.uniform(k_phase)
    for i, size in enumerate(signal.shape):
        here = thick & (axis == i)
        matrix = slice_matrix(size, jnp.where(here, thickness, 1.0), jnp.where(here, phase, 0.0))
        signal = mix_along(signal, matrix, axis=i)

    inside = brain > 0.5
    mean = jnp.sum(signal * inside) / jnp.maximum(inside.sum(), 1)
    signal = (signal / (mean + 1e-6)).clip(0.0)
    signal = signal ** jnp.exp(artefacts.gamma * jax.random.normal(k_gamma).clip(-2, 2))
    bias = artefacts.bias * noise_field(k_bias, signal.shape, scale=70.0 / spacing_mm)
    level = jax.random.uniform(k_level, maxval=artefacts.noise)
    # Rician in theory (Gudbjartsson and Patz 1995); inside the brain the Gaussian limit holds.
    grain = smooth(jax.random.normal(k_noise, signal.shape), sigma=0.5) * 1.8
    return (300.0 * (signal * jnp.exp(bias) + level * grain)).clip(0.5) * inside
