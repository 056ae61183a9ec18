"""What the scanner adds to the ideal signal, and where it ends.

Thick slices, blur, motion, bias, noise, gamma; and slices that do not reach all of the brain.
"""

import jax
import jax.numpy as jnp

from gmmas_jax.synthesis.effects import Effects
from gmmas_jax.synthesis.fields import blur_matrix, ghost_matrix, mix_along, noise, shift_matrix
from gmmas_jax.synthesis.frame import Frame, to_one_end

_AXES = (0.1, 0.2, 0.7)
"""How often slices are sagittal, coronal, axial."""

_TILT = (0.05, 0.15)
"""Standard deviation of the slope at which slices end, to the side and to the front."""

_ROOM_MM = 12.0
"""Between the box and most heads: ending there takes nothing away."""

_LAST_MM = 3.0
"""Over how much the last slice fades, once interpolated."""


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
    key: jax.Array, signal: jax.Array, brain: jax.Array, frame: Frame, effects: Effects
) -> jax.Array:
    """Scans one sequence.

    Args:
        key: Typed PRNG key.
        signal: [d h w] float32, the ideal signal, about 1 in the brain's mean.
        brain: [d h w] float32 in 0..1; the background stays exactly zero, as after skull-stripping.
        frame: Of the signal.
        effects: What befalls it, and how strongly.

    Returns:
        [d h w] float32, mean about 300 inside the brain, not negative.
    """
    k_draw, k_axis, k_bias, k_noise, k_gamma = jax.random.split(key, 5)
    draw = jax.random.uniform(k_draw, (16,))
    signal = _spread(signal, draw, jax.random.categorical(k_axis, jnp.log(jnp.array(_AXES))),
                     frame, effects)  # fmt: skip
    gamma = effects.gamma.magnitude * jax.random.normal(k_gamma).clip(-2, 2)
    gamma = jnp.where(draw[9] < effects.gamma.probability, gamma, 0.0)
    signal = signal.clip(0.0) ** jnp.exp(gamma)
    bias = jnp.where(draw[10] < effects.bias.probability, effects.bias.magnitude, 0.0)
    signal = signal * jnp.exp(bias * noise(k_bias, frame, scale_mm=70.0))
    level = jnp.where(draw[11] < effects.noise.probability, effects.noise.magnitude * draw[12], 0.0)
    # Rician in theory (Gudbjartsson and Patz 1995); inside the brain the Gaussian limit holds.
    signal = signal + level * jax.random.normal(k_noise, signal.shape)
    if not effects.coverage.known_off:
        # Drawn apart, so that the patients that were generated before there was this are the same.
        signal = signal * covered(jax.random.fold_in(jax.random.clone(key), 1), frame, effects)
    return (300.0 * signal).clip(0.5) * (brain > 0.5)


def covered(key: jax.Array, frame: Frame, effects: Effects) -> jax.Array:
    """Draws which part of a head a sequence's slices cover: up to a plane near one end of it.

    Args:
        key: Typed PRNG key.
        frame: Where it is wanted.
        effects: Of which `coverage` counts.

    Returns:
        [d h w] float32, 1 where something was measured, falling to 0 across the last slice.
    """
    k_draw, k_tilt = jax.random.split(key)
    happens, far, end = jax.random.uniform(k_draw, (3,))
    lost_mm = _ROOM_MM + (effects.coverage.magnitude - _ROOM_MM) * far
    lost_mm = jnp.where(happens < effects.coverage.probability, lost_mm, -jnp.inf)
    slope = jnp.array(_TILT) * jax.random.normal(k_tilt, (2,)).clip(-2.0, 2.0)
    right, front, _ = frame.points()
    beyond = lost_mm - to_one_end(frame, end) + slope[0] * right + slope[1] * front
    return 1.0 - (beyond / _LAST_MM).clip(0.0, 1.0)


def _spread(
    signal: jax.Array, draw: jax.Array, axis: jax.Array, frame: Frame, effects: Effects
) -> jax.Array:
    """Applies what acts along the axes, as one matrix each: shift, ghost, blur, thick slices."""
    thick = draw[0] < effects.thick_slices.probability
    blurred = draw[1] < effects.blur.probability
    moved = draw[2] < effects.misalignment.probability
    ghosted = draw[3] < effects.ghosting.probability
    for i, size in enumerate(signal.shape):
        step = frame.step[i]
        shift = effects.misalignment.magnitude * (2.0 * draw[4 + i] - 1.0) / step
        matrix = shift_matrix(size, jnp.where(moved, shift, 0.0))
        sigma = effects.blur.magnitude * draw[7] / step
        matrix = blur_matrix(size, jnp.where(blurred, sigma, 0.0)) @ matrix
        if i == 1:  # The phase direction of most axial protocols runs from front to back or so.
            far = ghost_matrix(size, (20.0 + 50.0 * draw[8]) / step)
            share = jnp.where(ghosted, effects.ghosting.magnitude * draw[13], 0.0)
            matrix = (1.0 - share) * matrix + share * far
        thickest = jnp.maximum(effects.thick_slices.magnitude / step, 1.0)
        thickness = 1.0 + (thickest - 1.0) * draw[15]
        here = thick & (axis == i)
        slices = slice_matrix(size, jnp.where(here, thickness, 1.0), jnp.where(here, draw[14], 0.0))
        signal = mix_along(signal, slices @ matrix, axis=i)
    return signal
