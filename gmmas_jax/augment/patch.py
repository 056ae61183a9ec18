"""What a training batch goes through on the accelerator: one function for a config's section."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gmmas_jax.augment.examples import Example, Numbers, each_example, widen
from gmmas_jax.augment.intensity import bend, change_scale, scale_and_shift, shade
from gmmas_jax.augment.noise import add_noise
from gmmas_jax.augment.resolution import change_resolution
from gmmas_jax.augment.settings import Stages, is_on, make_stages
from gmmas_jax.augment.spatial import warp_example
from gmmas_jax.augment.volumes import NAMES, along, as_volume, find_brain, rows_of, zero_outside
from gmmas_jax.errors import UserError

Batch = Mapping[str, Any]

_LABELS = ("label", "whole_label")
_EXAMPLE = (*NAMES, *_LABELS, "present", "box", "mirrored")
"""What one example's transforms read or change."""

_NUMBERS = 64
"""Random numbers for the small draws of a stage: more than any stage asks for."""


def make_augmentation(
    *,
    flip: Sequence[float],
    intensity_scale: float,
    intensity_shift: float,
    gamma: float,
    noise: float,
    **stages: Any,
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
        **stages: What is drawn per example, each a mapping: see `settings.Stages`.

    Returns:
        (key, batch) to batch, or None if all is off.

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
    drawn = make_stages(**stages)
    if not any((*flip, *strengths.values(), drawn.any)):
        return None
    return functools.partial(augment, flip=tuple(flip), stages=drawn, **strengths)


def augment(
    key: Array,
    batch: Batch,
    *,
    flip: Sequence[float],
    intensity_scale: float,
    intensity_shift: float,
    gamma: float,
    noise: float,
    stages: Stages,
) -> dict[str, Any]:
    """Augments each example of a batch by its own draw.

    First mirroring, then `augment_example`, then the changes of intensity that every example gets.
    Intensities change per sequence, in the brain only; background and absent sequences stay
    exactly 0. What is off is not traced and takes no random number from what is on.

    Args:
        key: Typed key.
        batch: image [b d h w 4], present [b 4], box [b 2 3], label [b d h w]; with the whole brain
            also whole [b D H W 4] and whole_label [b D H W]; all else passes through. A batch in
            the store's dtypes (float16, uint8) needs half the memory of one that was widened.
        flip: See `make_augmentation`, as for the others.
        intensity_scale: Half the width of the factor's range.
        intensity_shift: Half the width of the shift's range.
        gamma: Half the width of the range of log gamma.
        noise: Largest standard deviation.
        stages: What is drawn per example.

    Returns:
        The batch, shapes unchanged, images as float32 and labels as int32, and `mirrored` as of
        `mirror`.
    """
    k_flip, k_scale, k_shift, k_gamma, k_level, k_noise = jax.random.split(key, 6)
    flips = jax.random.uniform(k_flip, (_size(batch), 3)) < jnp.asarray([flip])
    axes = [axis for axis in range(3) if flip[axis]]
    # No later number of the split above: those draws stay what they are.
    result = _each(jax.random.fold_in(key, len("stages")), batch, flips, axes, stages)
    if not (intensity_scale or intensity_shift or gamma or noise):
        return result

    def within(k: Array, width: float) -> Array:
        return jax.random.uniform(k, result["present"].shape, minval=-width, maxval=width)

    volumes = rows_of(result)
    shown = find_brain(volumes, result["present"])
    if gamma:
        volumes = bend(volumes, shown, jnp.exp(within(k_gamma, gamma)))
    if intensity_scale or intensity_shift:
        factor, term = 1.0 + within(k_scale, intensity_scale), within(k_shift, intensity_shift)
        volumes = scale_and_shift(volumes, factor, term)
    if noise:
        # The whole volume is coarse: what it averages over leaves little of the noise.
        level = jax.random.uniform(k_level, result["present"].shape, maxval=noise)
        grain = jax.random.normal(k_noise, volumes["image"].shape)
        volumes["image"] = volumes["image"] + along(level, volumes["image"]) * grain
    volumes = zero_outside(volumes, shown)
    return result | {name: as_volume(rows) for name, rows in volumes.items()}


def _each(
    key: Array, batch: Batch, flips: Array, axes: Sequence[int], stages: Stages
) -> dict[str, Any]:
    """Mirrors examples, transforms them by `augment_example` where it is on, and widens them."""
    if not stages.any:
        return widen(mirror(batch, flips, axes=axes))

    # Mirrored and widened one at a time too: a batch in between would be the largest array of all.
    def function(key: Array, example: Example) -> Example:
        one = jax.tree.map(lambda array: array[None], example)
        own = mirror(one, one.pop("flips"), axes=axes)
        own = jax.tree.map(lambda array: array[0], own)
        return augment_example(key, widen(own), stages=stages)

    read = {name: batch[name] for name in _EXAMPLE if name in batch} | {"flips": flips}
    return dict(batch) | each_example(function, key, read)


def mirror(batch: Batch, flips: Array, *, axes: Sequence[int] = (0, 1, 2)) -> dict[str, Any]:
    """Mirrors examples along axes.

    Args:
        batch: As for `augment`.
        flips: [b 3] bool, along d, h, w.
        axes: Those that may be mirrored: the others cost nothing.

    Returns:
        The batch with `mirrored` [b 3] bool: True where an example now is a mirror image of the
        patient, along d, h, w. Where `mirrored[:, 0]` holds, left is right: a side that the network
        names must be exchanged before it is told or compared.
    """
    result = dict(batch)
    for name in (*NAMES, *_LABELS):
        if name in batch and axes:
            result[name] = jax.lax.platform_dependent(
                batch[name],
                flips,
                cpu=functools.partial(_mirrored_by_index, axes=axes),
                default=functools.partial(_mirrored, axes=axes),
            )
    # What was the upper corner is the lower one, seen from the other side.
    swapped = 1.0 - jnp.flip(batch["box"], axis=1)
    result["box"] = jnp.where(flips[:, None, :], swapped, batch["box"])
    result["mirrored"] = flips ^ batch["mirrored"] if "mirrored" in batch else flips
    return result


def _mirrored(volume: Array, flips: Array, *, axes: Sequence[int]) -> Array:
    """Mirrors volumes [b d h w …] where flips [b 3] say so."""
    for axis in axes:
        chosen = flips[:, axis].reshape(-1, *(1,) * (volume.ndim - 1))
        volume = jnp.where(chosen, jnp.flip(volume, axis + 1), volume)
    return volume


def _mirrored_by_index(volume: Array, flips: Array, *, axes: Sequence[int]) -> Array:
    """The same in one pass over the voxels: on a CPU, a fetch costs no more than a copy."""
    places = [jnp.arange(volume.shape[0]).reshape(-1, 1, 1, 1)]
    for axis, size in enumerate(volume.shape[1:4]):
        place = jnp.arange(size)[None]
        if axis in axes:
            place = jnp.where(flips[:, axis, None], size - 1 - place, place)
        places.append(place.reshape(-1, *(size if a == axis else 1 for a in range(3))))
    return jnp.asarray(volume).at[tuple(places)].get(mode="promise_in_bounds")


def augment_example(key: Array, example: Example, *, stages: Stages) -> Example:
    """Transforms one example: sequences, space, bias field, resolution, noise, contrast.

    The order is that of a scan: which sequences were acquired, how the head lay, the coil's field,
    the resolution, the noise of the measurement, and last how intensities are scaled. (nnU-Net has
    the noise before the blur.)

    Args:
        key: Typed key.
        example: As a batch's that was widened, without the first axis.
        stages: What is on.

    Returns:
        The example, shapes and dtypes unchanged.
    """
    k_numbers, k_elastic, k_bias, k_noise = jax.random.split(key, 4)
    rows = jax.random.uniform(k_numbers, (6, _NUMBERS))
    drop, warp, bias, resolution, noise, scale = (Numbers(row) for row in rows)
    result = example
    if stages.sequence_dropout:
        result = drop_sequences(drop, result, stages.sequence_dropout)
    if any(map(is_on, (stages.rotation, stages.scaling, stages.shear, stages.elastic))):
        result = warp_example(warp, k_elastic, result, stages)
    # What follows changes intensities alone: the brain stays where it is.
    volumes = rows_of(result)
    shown = find_brain(volumes, result["present"])
    volumes = shade(bias, k_bias, volumes, shown, result["box"], stages.bias)
    if any(map(is_on, (stages.blur, stages.low_resolution, stages.thick_slices))):
        volumes = change_resolution(resolution, volumes, shown, result, stages)
    volumes = add_noise(noise, k_noise, volumes, shown, stages)
    volumes = change_scale(scale, volumes, shown, stages)
    return result | {name: as_volume(rows) for name, rows in volumes.items()}


def drop_sequences(numbers: Numbers, example: Example, probability: float) -> Example:
    """Hides each sequence with a probability, in patch and whole; one that is present stays."""
    present = example["present"] > 0
    draw = numbers.uniform(*present.shape)
    kept = jnp.argmax(jnp.where(present, draw, -1.0))
    shown = present & ((draw >= probability) | (jnp.arange(present.size) == kept))
    volumes = {
        name: jnp.where(shown[None, None, None], example[name], 0.0)
        for name in NAMES
        if name in example
    }
    return example | volumes | {"present": shown.astype(example["present"].dtype)}


def _size(batch: Batch) -> int:
    return int(batch["present"].shape[0])
