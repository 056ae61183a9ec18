"""Changes of the intensities of patch and whole: bias field, brightness, contrast, gamma.

The functions take the volumes as rows, {"image": [… d h w·4], "whole": [… D H W·4]} or the first
alone (`volumes.rows_of`), 0 outside the brain, and where that is; numbers per sequence are [… 4].
What they return outside the brain is not 0: `zero_outside` ends every chain.

Volumes are z-scores: their 0 is the mean of the brain. Where physics needs the signal of air as 0,
the least value of the sequence stands for it.
"""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax import Array

from gmmas_jax.augment.examples import Numbers, when
from gmmas_jax.augment.settings import Bias, Range, Stages, is_on
from gmmas_jax.augment.splines import spline_field, spline_matrix
from gmmas_jax.augment.volumes import (
    SEQUENCES,
    Shown,
    Volumes,
    along,
    moments,
    value_range,
    zero_outside,
)

Change = Callable[[Volumes, Shown, Array], Volumes]
"""(volumes, shown, number) to volumes."""


def bend(volumes: Mapping[str, Array], shown: Shown, number: Array) -> Volumes:
    """Raises intensities to a power; mean and spread over the brain stay as they were."""
    low, high = value_range(volumes)
    return _bend(volumes, shown, number, low, high)


def bend_inverted(volumes: Mapping[str, Array], shown: Shown, number: Array) -> Volumes:
    """As `bend`, of the negative: what the power does to dark tissue, it now does to bright."""
    low, high = value_range(volumes)
    return _bend(volumes, shown, number, high, low)


def _bend(
    volumes: Mapping[str, Array], shown: Shown, number: Array, start: Array, end: Array
) -> Volumes:
    """Bends the way from one end of the range of values to the other."""
    extent = jnp.maximum(jnp.abs(end - start), 1e-3)
    extent = jnp.where(end < start, -extent, extent)
    bent = {}
    for name, rows in volumes.items():
        share = (rows - along(start, rows)) / along(extent, rows)
        # Two vectorised functions: the power of XLA's CPU backend takes twice as long.
        way = jnp.exp(along(number, rows) * jnp.log(share))
        bent[name] = way * along(jnp.sign(extent), rows)
    return _as_before(bent, volumes, shown)


def multiply_field(
    volumes: Mapping[str, Array], shown: Shown, field: Mapping[str, Array]
) -> Volumes:
    """Multiplies the signal by a field and standardises anew, as preparing the scan would have.

    Args:
        volumes: See above.
        shown: Of them.
        field: Like the volumes, above 0.
    """
    low, _ = value_range(volumes)
    lit = {name: (rows - along(low, rows)) * field[name] for name, rows in volumes.items()}
    return _as_before(lit, volumes, shown)


def stretch(volumes: Mapping[str, Array], shown: Shown, number: Array) -> Volumes:
    """Changes the contrast: distance from the brain's mean times a factor, within the old range."""
    low, high = value_range(volumes)
    mean, _ = moments(volumes, shown)
    stretched = {}
    for name, rows in volumes.items():
        least, middle, greatest = (along(x, rows) for x in (low, mean, high))
        far = (rows - middle) * along(number, rows) + middle
        stretched[name] = jnp.clip(far, least, greatest)
    return stretched


def scale_and_shift(volumes: Mapping[str, Array], factor: Array, term: Array) -> Volumes:
    """Multiplies by a number and adds another."""
    return {name: rows * along(factor, rows) + along(term, rows) for name, rows in volumes.items()}


def change_scale(numbers: Numbers, volumes: Volumes, shown: Shown, stages: Stages) -> Volumes:
    """Draws brightness, contrast and gamma for an example, and applies them in this order.

    Args:
        numbers: Random numbers.
        volumes: Of one example.
        shown: Of them.
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
            volumes = when(chosen, functools.partial(_apply, change, shown), volumes, (number,))
    return volumes


def shade(
    numbers: Numbers, key: Array, volumes: Volumes, shown: Shown, box: Array, section: Bias
) -> Volumes:
    """Draws a smooth field for each sequence and multiplies by it.

    The nodes' logarithms are normal; their standard deviation is drawn up to `strength` (after
    Billot et al., "SynthSeg", 2023). The field belongs to the brain: patch and whole see the same.
    """
    if not is_on(section):
        return volumes
    chosen = numbers.happens(section.probability)
    spread = numbers.uniform(SEQUENCES, 1, 1, 1, high=section.strength)
    nodes = spread * jax.random.normal(key, (SEQUENCES, *(section.nodes + 2,) * 3))

    def change(volumes: Volumes, nodes: Array, box: Array) -> Volumes:
        changed = multiply_field(volumes, shown, bias_field(nodes, volumes, box))
        return zero_outside(changed, shown)

    return when(chosen, change, volumes, (nodes, box))


def bias_field(nodes: Array, volumes: Volumes, box: Array) -> Volumes:
    """Evaluates fields over patch and whole.

    Args:
        nodes: [4 n n n] f32 their logarithms.
        volumes: Of one example, for their shapes.
        box: [2 3] f32, where the patch lies.
    """
    fields = {}
    for name, rows in volumes.items():
        shape = (*rows.shape[:2], rows.shape[2] // SEQUENCES)
        low, high = box if name == "image" else (jnp.zeros(3), jnp.ones(3))
        matrices = [
            spline_matrix(
                low[axis] + (jnp.arange(n) + 0.5) / n * (high[axis] - low[axis]),
                nodes=nodes.shape[1] - 2,
            )
            for axis, n in enumerate(shape)
        ]
        field = spline_field(nodes, (matrices[0], matrices[1], matrices[2]))
        fields[name] = jnp.moveaxis(jnp.exp(field), 0, -1).reshape(rows.shape)
    return fields


def two_sided(numbers: Numbers, section: Range) -> Array:
    """Draws [4] numbers as nnU-Net does: half below 1 where the range has both sides."""
    side, share = numbers.uniform(SEQUENCES), numbers.uniform(SEQUENCES)
    middle = min(max(1.0, section.lowest), section.highest)
    if middle in (section.lowest, section.highest):
        return section.lowest + share * (section.highest - section.lowest)
    below = section.lowest + share * (middle - section.lowest)
    above = middle + share * (section.highest - middle)
    return jnp.where(side < 0.5, below, above)


def _as_before(changed: Mapping[str, Array], volumes: Mapping[str, Array], shown: Shown) -> Volumes:
    """Gives the brain its former mean and spread.

    Without it, the z-scores that the network meets later would be others than these.
    """
    mean, spread = moments(volumes, shown)
    changed = zero_outside(changed, shown)
    new_mean, new_spread = moments(changed, shown)
    factor = spread / jnp.maximum(new_spread, 1e-3)
    return scale_and_shift(changed, factor, mean - new_mean * factor)


def _multiply(volumes: Volumes, shown: Shown, number: Array) -> Volumes:
    del shown
    return {name: rows * along(number, rows) for name, rows in volumes.items()}


def _apply(change: Change, shown: Shown, volumes: Volumes, number: Array) -> Volumes:
    return zero_outside(change(volumes, shown, number), shown)
