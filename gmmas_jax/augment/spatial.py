"""Rotation, scaling, shear and elastic deformation of a patch and its whole brain, resampled once.

Patch and whole are turned by the same matrix A, each about its own centre, and deformed by the same
field u over the brain. With C the centre of the brain box, c that of the patch, and r a voxel's
offset from the centre, the patch shows what lay at c + A r + u. The turned whole shows at q what
lay at C + A (q − C) + u(q): the same tissue for q = C + A⁻¹(c − C) + r. So the patch still is an
upright box in the turned whole, and the batch's `box` moves to its new centre: what the network
crops by `box` remains aligned, exactly, for every transform.

What a turned patch shows beyond its old borders is taken from the whole, at that one's resolution,
instead of being left empty. Beyond the whole, or without one beyond the patch, all is 0.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gmmas_jax.augment.examples import Example, Numbers, when
from gmmas_jax.augment.settings import Stages, is_on
from gmmas_jax.augment.splines import spline_field, spline_matrix


class Warp(NamedTuple):
    """A spatial transform.

    Attributes:
        matrix: [3 3] f32, from offsets in the result to offsets in the source, in voxels.
        nodes: [3 n n n] f32, shifts of the nodes in node distances, or None without any.
    """

    matrix: Array
    nodes: Array | None


def random_warp(numbers: Numbers, key: Array, stages: Stages) -> tuple[Array, Warp]:
    """Draws a transform.

    Args:
        numbers: For the affine part.
        key: Typed key for the nodes of the elastic part.
        stages: What is on.

    Returns:
        Whether one is wanted, bool, and the transform.
    """
    matrix = jnp.eye(3)
    turned, sheared, scaled, bent = (
        numbers.happens(stage.probability if is_on(stage) else 0.0)
        for stage in (stages.rotation, stages.shear, stages.scaling, stages.elastic)
    )
    if is_on(stages.rotation):
        limit = math.radians(stages.rotation.degrees)
        angles = numbers.uniform(3, low=-limit, high=limit)
        matrix = _rotation(jnp.where(turned, angles, 0.0))
    if is_on(stages.shear):
        limit = stages.shear.strength
        terms = jnp.where(sheared, numbers.uniform(3, low=-limit, high=limit), 0.0)
        upper = jnp.eye(3).at[jnp.array([0, 0, 1]), jnp.array([1, 2, 2])].set(terms)
        matrix = _product(matrix, upper)
    if is_on(stages.scaling):
        low, high = (math.log(x) for x in (stages.scaling.lowest, stages.scaling.highest))
        matrix = matrix / jnp.where(scaled, jnp.exp(numbers.uniform(low=low, high=high)), 1.0)
    nodes = None
    if is_on(stages.elastic):
        shape = (3, *(stages.elastic.nodes + 2,) * 3)
        limit = stages.elastic.displacement
        nodes = jax.random.uniform(key, shape, minval=-limit, maxval=limit) * bent
    return turned | sheared | scaled | bent, Warp(matrix, nodes)


def warp_example(numbers: Numbers, key: Array, example: Example, stages: Stages) -> Example:
    """Draws a transform for an example and applies it where one is wanted."""
    chosen, warp = random_warp(numbers, key, stages)
    return when(chosen, apply_warp, example, (warp,))


def apply_warp(example: Example, warp: Warp) -> Example:
    """Transforms image, whole, their labels and `box` alike.

    Images are sampled linearly, labels and the border of the brain by the nearest voxel: no label
    arises that was not there, and thin enhancing rims do not vanish as they do in an average.

    Args:
        example: image [d h w 4] f32, label [d h w], box [2 3]; with the whole brain also whole
            [D H W 4] f32 and whole_label [D H W]; all else passes through.
        warp: The transform.
    """
    patch = example["image"].shape[:3]
    extent = brain_extent(example["box"], patch)
    box = _moved_box(example["box"], warp.matrix, extent)
    inner = _source(patch, warp.matrix, _shift(warp, box, patch, extent))
    places = _places(inner, patch)
    images, codes = _tables(example, "image", "label")
    if "whole" not in example:
        image, label = _shown(_linear(images, places), _nearest(codes, places), example["label"])
        return example | {"image": image, "label": label, "box": box}

    # What is seen of the patch, and, in voxels of the whole, where the rest of it lies.
    grid = example["whole"].shape[:3]
    voxel = extent / jnp.asarray(grid, jnp.float32)
    lower = example["box"][0] * extent
    outer = [(x + (lower[axis] + 0.5)) / voxel[axis] - 0.5 for axis, x in enumerate(inner)]
    places = _first_that_has(places, _places(outer, grid))
    wholes, whole_codes = _tables(example, "whole", "whole_label")
    sampled = _linear(images + wholes, places), _nearest(codes + whole_codes, places)
    image, label = _shown(*sampled, example["label"])

    # Its own unit and zero entries stay exact: the identity must not move anything.
    relative = jnp.eye(3) + (warp.matrix - jnp.eye(3)) * voxel[None, :] / voxel[:, None]
    shift = _shift(warp, jnp.stack([jnp.zeros(3), jnp.ones(3)]), grid, extent)
    if shift is not None:
        shift = shift / voxel[:, None, None, None]
    places = _places(_source(grid, relative, shift), grid)
    sampled = _linear(wholes, places), _nearest(whole_codes, places)
    whole, whole_label = _shown(*sampled, example["whole_label"])
    turned = {"image": image, "label": label, "whole": whole, "whole_label": whole_label}
    return example | turned | {"box": box}


def brain_extent(box: Array, patch: tuple[int, ...]) -> Array:
    """Returns the size [3] f32 of the brain box in voxels of the patch."""
    return jnp.asarray(patch, jnp.float32) / (box[1] - box[0])


def _rotation(angles: Array) -> Array:
    """Returns the rotation [3 3] by angles about d, h and w, in this order."""
    (a, b, c), (p, q, r) = jnp.cos(angles), jnp.sin(angles)
    one, zero = jnp.ones(()), jnp.zeros(())
    about_d = jnp.stack([one, zero, zero, zero, a, -p, zero, p, a]).reshape(3, 3)
    about_h = jnp.stack([b, zero, q, zero, one, zero, -q, zero, b]).reshape(3, 3)
    about_w = jnp.stack([c, -r, zero, r, c, zero, zero, zero, one]).reshape(3, 3)
    return _product(about_w, _product(about_h, about_d))


def _product(a: Array, b: Array) -> Array:
    """Multiplies matrices in full precision: accelerators would round the factors."""
    return (a[:, :, None] * b[None, :, :]).sum(axis=1)


def _inverse(matrix: Array) -> Array:
    """Inverts a matrix [3 3] by cofactors: exact for the identity."""
    rows = [jnp.cross(matrix[:, i - 2], matrix[:, i - 1]) for i in range(3)]
    return jnp.stack(rows) / (matrix[:, 0] * rows[0]).sum()


def _moved_box(box: Array, matrix: Array, extent: Array) -> Array:
    """Returns where the patch lies in the turned brain; its size stays."""
    offset = (box.mean(axis=0) - 0.5) * extent
    step = ((_inverse(matrix) - jnp.eye(3)) * offset[None, :]).sum(axis=1)
    return box + (step / extent)[None, :]


def _shift(warp: Warp, box: Array, shape: tuple[int, ...], extent: Array) -> Array | None:
    """Returns the elastic shift [3 d h w] in voxels of the patch, of the voxels in a box."""
    if warp.nodes is None:
        return None
    count = warp.nodes.shape[1] - 2
    matrices = []
    for axis, size in enumerate(shape):
        share = (jnp.arange(size, dtype=jnp.float32) + 0.5) / size
        position = box[0, axis] + share * (box[1, axis] - box[0, axis])
        matrices.append(spline_matrix(position, nodes=count))
    distance = extent / (count - 1)
    field = spline_field(warp.nodes, (matrices[0], matrices[1], matrices[2]))
    return field * distance[:, None, None, None]


def _source(shape: tuple[int, ...], matrix: Array, shift: Array | None) -> list[Array]:
    """Returns where each voxel of a grid comes from: d, h and w, [d h w] each, in its voxels."""
    middle = [(size - 1) / 2 for size in shape]
    offsets = [
        jnp.arange(size, dtype=jnp.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        - middle[axis]
        for axis, size in enumerate(shape)
    ]
    source = []
    for axis in range(3):
        terms = [matrix[axis, other] * offsets[other] for other in range(3)]
        place = terms[0] + terms[1] + terms[2] + middle[axis]
        source.append(place if shift is None else place + shift[axis])
    return source


def _tables(example: Example, name: str, label: str) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Returns a volume, and codes: the label, and in the lowest bit whether there is brain.

    So that one fetch of the nearest voxel answers both.
    """
    brain = jnp.any(example[name] != 0, axis=-1)
    return (example[name],), ((example[label].astype(jnp.int32) << 1) | brain,)


class _Places(NamedTuple):
    """Places in a table of all voxels of one or two volumes.

    Attributes:
        source: d, h, w in voxels, [d h w] f32 each.
        valid: Whether there is a voxel, bool [d h w].
        sizes: d, h, w of the volume that has the place; ints or [d h w] int32.
        strides: Rows of the table from one voxel to the next along d, h, w; likewise.
        start: First row of that volume; likewise.
    """

    source: list[Array]
    valid: Array
    sizes: list[Any]
    strides: list[Any]
    start: Any


def _places(source: list[Array], shape: tuple[int, ...]) -> _Places:
    """Returns places in one volume."""
    valid = jnp.ones((), bool)
    for x, size in zip(source, shape, strict=True):
        valid = valid & (x >= -0.5) & (x < size - 0.5)
    return _Places(source, valid, list(shape), [shape[1] * shape[2], shape[2], 1], 0)


def _first_that_has(patch: _Places, whole: _Places) -> _Places:
    """Returns places in the first volume, and in the second what lies outside the first."""

    def choose(first: Any, second: Any) -> Any:
        return jnp.where(patch.valid, first, second)

    return _Places(
        list(map(choose, patch.source, whole.source)),
        patch.valid | whole.valid,
        list(map(choose, patch.sizes, whole.sizes)),
        list(map(choose, patch.strides, whole.strides)),
        choose(0, math.prod(patch.sizes)),
    )


def _linear(volumes: tuple[Array, ...], places: _Places) -> Array:
    """Samples volumes [d h w c] linearly, borders extended: eight fetched rows per voxel."""
    table = jnp.concatenate([volume.reshape(-1, volume.shape[-1]) for volume in volumes])
    base, steps, parts = places.start, [], []
    for x, size, stride in zip(places.source, places.sizes, places.strides, strict=True):
        floor = jnp.floor(x)
        low = floor.astype(jnp.int32)
        parts.append(x - floor)
        # At a border both neighbours are the same voxel.
        steps.append(jnp.where((low >= 0) & (low < size - 1), stride, 0))
        base = base + jnp.clip(low, 0, size - 1) * stride
    result: Any = 0.0
    for corner in range(8):
        row, weight = base, jnp.ones(())
        for axis in range(3):
            upper = (corner >> axis) & 1
            row = row + steps[axis] if upper else row
            weight = weight * (parts[axis] if upper else 1.0 - parts[axis])
        term = table.at[row].get(mode="promise_in_bounds") * weight[..., None]
        result = term if corner == 0 else result + term
    return result


def _nearest(volumes: tuple[Array, ...], places: _Places) -> Array:
    """Samples volumes [d h w] by the nearest voxel; 0 where there is none."""
    table = jnp.concatenate([volume.reshape(-1) for volume in volumes])
    row = places.start
    for x, size, stride in zip(places.source, places.sizes, places.strides, strict=True):
        row = row + jnp.clip(jnp.floor(x + 0.5).astype(jnp.int32), 0, size - 1) * stride
    return jnp.where(places.valid, table.at[row].get(mode="promise_in_bounds"), 0)


def _shown(image: Array, code: Array, label: Array) -> tuple[Array, Array]:
    """Returns the image inside the transformed brain, and the label in its own dtype."""
    return jnp.where((code & 1)[..., None] > 0, image, 0.0), (code >> 1).astype(label.dtype)
