"""Mirroring and changes of intensity of a batch of patches, together with what belongs to them."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gmmas_jax.errors import UserError

Batch = Mapping[str, Any]


def make_augmentation(
    *,
    flip: Sequence[float],
    intensity_scale: float,
    intensity_shift: float,
    gamma: float,
    noise: float,
) -> Callable[[Array, Batch], Batch] | None:
    """Checks a config's `augment` section and returns what the training step applies.

    Args:
        flip: Probability of mirroring along d, h, w. Left-right (d) keeps anatomy plausible; the
            published training mirrors along all three with 0.5.
        intensity_scale: Each sequence is multiplied by 1 ± at most this (published: 0.1).
        intensity_shift: At most this many standard deviations are added to it (published: 0.1).
        gamma: The logarithm of its gamma lies within ± this.
        noise: Largest standard deviation of the noise on the patch, in standard deviations of the
            brain.

    Returns:
        (key, batch) to batch, or None if all is 0.

    Raises:
        UserError: If a number is impossible.
    """
    if len(flip) != 3 or not all(0 <= share <= 1 for share in flip):
        raise UserError(f"augment.flip is {tuple(flip)}; expected three shares between 0 and 1.")
    strengths: dict[str, Any] = {
        "intensity_scale": intensity_scale,
        "intensity_shift": intensity_shift,
        "gamma": gamma,
        "noise": noise,
    }
    for name, value in strengths.items():
        if not 0 <= value < 1:
            raise UserError(f"augment.{name} is {value}; expected a number from 0 to below 1.")
    if not any((*flip, *strengths.values())):
        return None
    return functools.partial(augment, flip=tuple(flip), **strengths)


def augment(
    key: Array,
    batch: Batch,
    *,
    flip: Sequence[float],
    intensity_scale: float,
    intensity_shift: float,
    gamma: float,
    noise: float,
) -> dict[str, Any]:
    """Augments each example of a batch by its own draw.

    Mirroring moves image, label, whole volume and its label alike, and the box with them.
    Intensities change per sequence, in the brain only, in the patch and the whole volume alike;
    background and absent sequences stay exactly 0.

    Args:
        key: Typed key.
        batch: image [b d h w 4], present [b 4], whole [b D H W 4], box [b 2 3], label [b d h w],
            whole_label [b D H W]; all else passes through.
        flip: See `make_augmentation`, as for the others.
        intensity_scale: Half the width of the factor's range.
        intensity_shift: Half the width of the shift's range.
        gamma: Half the width of the range of log gamma.
        noise: Largest standard deviation.

    Returns:
        The batch, shapes and dtypes unchanged.
    """
    k_flip, k_scale, k_shift, k_gamma, k_level, k_noise = jax.random.split(key, 6)
    result = mirror(batch, jax.random.uniform(k_flip, (_size(batch), 3)) < jnp.asarray([flip]))
    per_sequence = (*result["present"].shape[:1], 1, 1, 1, *result["present"].shape[1:])

    def within(k: Array, width: float) -> Array:
        return jax.random.uniform(k, per_sequence, minval=-width, maxval=width)

    volumes = {name: result[name] for name in ("image", "whole")}
    shown = {name: _shown(volume, result["present"]) for name, volume in volumes.items()}
    if gamma:
        volumes = _gamma(volumes, shown, jnp.exp(within(k_gamma, gamma)))
    if intensity_scale or intensity_shift:
        factor, term = 1.0 + within(k_scale, intensity_scale), within(k_shift, intensity_shift)
        volumes = {name: volume * factor + term for name, volume in volumes.items()}
    if noise:
        # The whole volume is coarse: what it averages over leaves little of the noise.
        level = jax.random.uniform(k_level, per_sequence, maxval=noise)
        grain = jax.random.normal(k_noise, volumes["image"].shape)
        volumes["image"] = volumes["image"] + level * grain
    return result | {
        name: jnp.where(shown[name], volume, 0.0).astype(batch[name].dtype)
        for name, volume in volumes.items()
    }


def mirror(batch: Batch, flips: Array) -> dict[str, Any]:
    """Mirrors examples along axes.

    Args:
        batch: As for `augment`.
        flips: [b 3] bool, along d, h, w.
    """
    result = dict(batch)
    for axis in range(3):
        for name in ("image", "whole", "label", "whole_label"):
            volume = result[name]
            chosen = flips[:, axis].reshape(-1, *(1,) * (volume.ndim - 1))
            result[name] = jnp.where(chosen, jnp.flip(volume, axis + 1), volume)
    # What was the upper corner is the lower one, seen from the other side.
    swapped = 1.0 - jnp.flip(batch["box"], axis=1)
    result["box"] = jnp.where(flips[:, None, :], swapped, batch["box"])
    return result


def _shown(volume: Array, present: Array) -> Array:
    """Returns where a volume [b d h w 4] shows brain in a present sequence, bool."""
    brain = jnp.any(volume != 0, axis=-1, keepdims=True)
    return brain & (present[:, None, None, None, :] > 0)


def _gamma(
    volumes: Mapping[str, Array], shown: Mapping[str, Array], exponent: Array
) -> dict[str, Array]:
    """Raises intensities to a power; mean and spread over the brain stay as they were.

    Without the latter, the z-scores that the network meets later would be others than these.
    """
    axes = (1, 2, 3)
    low = jnp.minimum(*(volumes[name].min(axes, keepdims=True) for name in ("image", "whole")))
    high = jnp.maximum(*(volumes[name].max(axes, keepdims=True) for name in ("image", "whole")))
    extent = jnp.maximum(high - low, 1e-3)
    bent = {name: ((v - low) / extent) ** exponent for name, v in volumes.items()}
    mean, spread = _moments(volumes["whole"], shown["whole"])
    bent_mean, bent_spread = _moments(bent["whole"], shown["whole"])
    factor = spread / jnp.maximum(bent_spread, 1e-3)
    return {name: (volume - bent_mean) * factor + mean for name, volume in bent.items()}


def _moments(volume: Array, shown: Array) -> tuple[Array, Array]:
    """Returns mean and standard deviation over the brain, [b 1 1 1 4] each; 0 without any."""
    count = jnp.maximum(shown.sum((1, 2, 3), keepdims=True), 1)
    mean = jnp.where(shown, volume, 0.0).sum((1, 2, 3), keepdims=True) / count
    squares = jnp.where(shown, (volume - mean) ** 2, 0.0).sum((1, 2, 3), keepdims=True)
    return mean, jnp.sqrt(squares / count)


def _size(batch: Batch) -> int:
    return int(batch["present"].shape[0])
