"""Changes of the intensities of patch and whole: bias field, noise, brightness, contrast, gamma.

The functions take both volumes, {"image": [… d h w 4], "whole": [… D H W 4]}, and where each shows
brain in a present sequence, bool of the same shapes; numbers per sequence are [… 1 1 1 4]. What
they return outside the brain is not 0: `zero_outside` ends every chain.

Volumes are z-scores: their 0 is the mean of the brain. Where physics needs the signal of air as 0,
the least value of the sequence stands for it.
"""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax import Array

from gmmas_jax.augment.examples import Example, Numbers, when
from gmmas_jax.augment.settings import Bias, Range, Stages, is_on
from gmmas_jax.augment.splines import spline_field, spline_matrix

Volumes = dict[str, Array]
"""{"image": […], "whole": […]}."""

Change = Callable[..., Volumes]
"""(volumes, shown, number) to volumes; the last is passed by name."""

NAMES = ("image", "whole")
_VOXELS = (-4, -3, -2)


def zero_outside(volumes: Mapping[str, Array], shown: Mapping[str, Array]) -> Volumes:
    """Sets background and absent sequences to exactly 0."""
    return {name: jnp.where(shown[name], volume, 0.0) for name, volume in volumes.items()}


def bend(volumes: Mapping[str, Array], shown: Mapping[str, Array], number: Array) -> Volumes:
    """Raises intensities to a power; mean and spread over the brain stay as they were."""
    low, high = value_range(volumes)
    extent = jnp.maximum(high - low, 1e-3)
    bent = {name: ((v - low) / extent) ** number for name, v in volumes.items()}
    return _as_before(bent, volumes, shown)


def bend_inverted(
    volumes: Mapping[str, Array], shown: Mapping[str, Array], number: Array
) -> Volumes:
    """As `bend`, of the negative: what the power does to dark tissue, it now does to bright."""
    negative = bend({name: -volume for name, volume in volumes.items()}, shown, number)
    return {name: -volume for name, volume in negative.items()}


def multiply_field(
    volumes: Mapping[str, Array], shown: Mapping[str, Array], field: Mapping[str, Array]
) -> Volumes:
    """Multiplies the signal by a field and standardises anew, as preparing the scan would have.

    Args:
        volumes: See above.
        shown: See above.
        field: Like the volumes, above 0.
    """
    low, _ = value_range(volumes)
    lit = {name: (volume - low) * field[name] for name, volume in volumes.items()}
    return _as_before(lit, volumes, shown)


def stretch(volumes: Mapping[str, Array], shown: Mapping[str, Array], number: Array) -> Volumes:
    """Changes the contrast: distance from the brain's mean times a factor, within the old range."""
    low, high = value_range(volumes)
    mean, _ = moments(volumes["whole"], shown["whole"])
    return {
        name: jnp.clip((volume - mean) * number + mean, low, high)
        for name, volume in volumes.items()
    }


def rician(image: Array, low: Array, first: Array, second: Array) -> Array:
    """Magnitude of a signal with noise in its real and its imaginary part.

    Args:
        image: [… d h w 4].
        low: [… 1 1 1 4] the value of air.
        first: Noise like the image.
        second: Likewise.
    """
    return jnp.sqrt((image - low + first) ** 2 + second**2) + low


def value_range(volumes: Mapping[str, Array]) -> tuple[Array, Array]:
    """Returns the least and the greatest value of each sequence, [… 1 1 1 4] each."""
    low = jnp.minimum(*(volumes[name].min(_VOXELS, keepdims=True) for name in NAMES))
    high = jnp.maximum(*(volumes[name].max(_VOXELS, keepdims=True) for name in NAMES))
    return low, high


def moments(volume: Array, shown: Array) -> tuple[Array, Array]:
    """Returns mean and standard deviation over the brain, [… 1 1 1 4] each; 0 without any."""
    count = jnp.maximum(shown.sum(_VOXELS, keepdims=True), 1)
    mean = jnp.where(shown, volume, 0.0).sum(_VOXELS, keepdims=True) / count
    squares = jnp.where(shown, (volume - mean) ** 2, 0.0).sum(_VOXELS, keepdims=True)
    return mean, jnp.sqrt(squares / count)


def _as_before(
    changed: Mapping[str, Array], volumes: Mapping[str, Array], shown: Mapping[str, Array]
) -> Volumes:
    """Gives the brain its former mean and spread.

    Without it, the z-scores that the network meets later would be others than these.
    """
    mean, spread = moments(volumes["whole"], shown["whole"])
    new_mean, new_spread = moments(changed["whole"], shown["whole"])
    factor = spread / jnp.maximum(new_spread, 1e-3)
    return {name: (volume - new_mean) * factor + mean for name, volume in changed.items()}


def change_scale(numbers: Numbers, example: Example, stages: Stages) -> Example:
    """Draws brightness, contrast and gamma for an example, and applies them in this order.

    Args:
        numbers: Random numbers.
        example: image [d h w 4] and whole [D H W 4] f32, present [4]; all else passes through.
        stages: What is on.
    """
    changes: tuple[tuple[Change, Range], ...] = (
        (_multiply, stages.brightness),
        (stretch, stages.contrast),
        (bend_inverted, stages.inverted_gamma),
        (bend, stages.natural_gamma),
    )
    for change, section in changes:
        chosen, number = numbers.happens(section.probability), two_sided(numbers, section)
        if is_on(section):
            example = _where(chosen, example, functools.partial(change, number=number))
    return example


def shade(numbers: Numbers, key: Array, example: Example, section: Bias) -> Example:
    """Draws a smooth field for each sequence and multiplies by it.

    The nodes' logarithms are normal; their standard deviation is drawn up to `strength` (after
    Billot et al., "SynthSeg", 2023). The field belongs to the brain: patch and whole see the same.
    """
    if not is_on(section):
        return example
    sequences = example["present"].shape[0]
    chosen = numbers.happens(section.probability)
    spread = numbers.uniform(sequences, 1, 1, 1, high=section.strength)
    nodes = spread * jax.random.normal(key, (sequences, *(section.nodes + 2,) * 3))

    def change(volumes: Volumes, shown: Volumes) -> Volumes:
        return multiply_field(volumes, shown, bias_field(nodes, example))

    return _where(chosen, example, change)


def bias_field(nodes: Array, example: Example) -> Volumes:
    """Evaluates fields over patch and whole.

    Args:
        nodes: [4 n n n] f32 their logarithms.
        example: For shapes and `box`.
    """
    fields = {}
    for name in NAMES:
        shape = example[name].shape[:3]
        low, high = example["box"] if name == "image" else (jnp.zeros(3), jnp.ones(3))
        matrices = [
            spline_matrix(
                low[axis] + (jnp.arange(n) + 0.5) / n * (high[axis] - low[axis]),
                nodes=nodes.shape[1] - 2,
            )
            for axis, n in enumerate(shape)
        ]
        field = spline_field(nodes, (matrices[0], matrices[1], matrices[2]))
        fields[name] = jnp.exp(jnp.moveaxis(field, 0, -1))
    return fields


def add_noise(numbers: Numbers, key: Array, example: Example, stages: Stages) -> Example:
    """Draws noise for the patch of an example; of the whole's coarse voxels it leaves little."""
    sections = ((_gaussian, stages.gaussian_noise), (_rician, stages.rician_noise))
    for own, (function, section) in zip(jax.random.split(key), sections, strict=True):
        chosen = numbers.happens(section.probability)
        level = numbers.uniform(1, 1, 1, 4, high=section.highest)
        if is_on(section):
            add = functools.partial(_add, function, level, example["present"])
            example = example | {"image": when(chosen, add, (example["image"], own))[0]}
    return example


def _add(
    function: Callable[[Array, Array, Array], Array],
    level: Array,
    present: Array,
    value: tuple[Array, Array],
) -> tuple[Array, Array]:
    """Adds noise to (image, key); the key is part of the value since a loop uses it up."""
    image, key = value
    key, own = jax.random.split(key)
    shown = shown_voxels(image, present)
    return jnp.where(shown, function(own, image, level), 0.0), key


def shown_voxels(volume: Array, present: Array) -> Array:
    """Returns where a volume [… d h w 4] shows brain in a present sequence, bool."""
    brain = jnp.any(volume != 0, axis=-1, keepdims=True)
    return brain & (present[..., None, None, None, :] > 0)


def two_sided(numbers: Numbers, section: Range) -> Array:
    """Draws [1 1 1 4] numbers as nnU-Net does: half below 1 where the range has both sides."""
    side, share = numbers.uniform(1, 1, 1, 4), numbers.uniform(1, 1, 1, 4)
    middle = min(max(1.0, section.lowest), section.highest)
    if middle in (section.lowest, section.highest):
        return section.lowest + share * (section.highest - section.lowest)
    below = section.lowest + share * (middle - section.lowest)
    above = middle + share * (section.highest - middle)
    return jnp.where(side < 0.5, below, above)


def _gaussian(key: Array, image: Array, level: Array) -> Array:
    return image + level * jax.random.normal(key, image.shape)


def _rician(key: Array, image: Array, level: Array) -> Array:
    first, second = level[None] * jax.random.normal(key, (2, *image.shape))
    return rician(image, image.min(_VOXELS, keepdims=True), first, second)


def _multiply(volumes: Volumes, shown: Volumes, number: Array) -> Volumes:
    del shown
    return {name: volume * number for name, volume in volumes.items()}


def _where(
    chosen: Array, example: Example, change: Callable[[Volumes, Volumes], Volumes]
) -> Example:
    """Changes both volumes of an example where wanted; background stays 0."""

    def apply(volumes: Volumes) -> Volumes:
        shown = {n: shown_voxels(v, example["present"]) for n, v in volumes.items()}
        return zero_outside(change(volumes, shown), shown)

    return example | when(chosen, apply, {name: example[name] for name in NAMES})
