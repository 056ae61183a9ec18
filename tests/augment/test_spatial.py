"""Rotation, scaling, shear and elastic deformation against SciPy, and what must stay aligned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import BSpline
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from gmmas_jax.augment.examples import Numbers
from gmmas_jax.augment.settings import MAX_DISPLACEMENT, make_stages
from gmmas_jax.augment.spatial import Warp, apply_warp, random_warp
from gmmas_jax.augment.splines import spline_field, spline_matrix
from gmmas_jax.models.resize import crop_resample

MATRIX = 1.1 * Rotation.from_euler("xyz", [20, -15, 25], degrees=True).as_matrix()
MATRIX[0, 2] += 0.1
NODES = np.random.default_rng(5).uniform(-0.3, 0.3, (3, 7, 7, 7))


def example_of(batch, index=0):
    names = ("image", "whole", "label", "whole_label", "box", "present")
    return {name: jnp.asarray(batch[name][index]) for name in names}


def warped(example, matrix=None, nodes=None):
    warp = Warp(
        jnp.asarray(np.eye(3) if matrix is None else matrix, jnp.float32),
        None if nodes is None else jnp.asarray(nodes, jnp.float32),
    )
    return jax.device_get(jax.jit(apply_warp)(example, warp))


def numpy_shift(nodes, share):
    """Elastic shift in node distances at places [3 …] in fractions of the brain box."""
    if nodes is None:
        return np.zeros_like(share)
    basis = BSpline.basis_element(np.arange(-2, 3), extrapolate=False)
    count = nodes.shape[1] - 2
    weights = [
        np.nan_to_num(basis(share[axis][..., None] * (count - 1) - np.arange(-1, count + 1)))
        for axis in range(3)
    ]
    return np.einsum("cijk,...i,...j,...k->c...", nodes, *weights)


def numpy_warp(example, matrix, nodes):
    """The transform in float64 and brain coordinates, straight from its definition."""
    image, whole = (np.asarray(example[name], float) for name in ("image", "whole"))
    patch, grid = np.array(image.shape[:3]), np.array(whole.shape[:3])
    low, high = np.asarray(example["box"], float)
    extent = patch / (high - low)
    middle, centre = extent / 2, (low + high) / 2 * extent
    moved = middle + np.linalg.inv(matrix) @ (centre - middle)
    result = {"box": np.stack([moved - patch / 2, moved + patch / 2]) / extent}

    def sources(shape, size, about, seen_from):
        """Brain coordinates [3 …] that the voxels of a grid come from."""
        index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
        offset = (index + 0.5 - np.array(shape).reshape(3, 1, 1, 1) / 2) * size[:, None, None, None]
        share = (seen_from[:, None, None, None] + offset) / extent[:, None, None, None]
        distance = 1 if nodes is None else extent / (nodes.shape[1] - 3)
        shift = numpy_shift(nodes, share) * np.reshape(distance * np.ones(3), (3, 1, 1, 1))
        return about[:, None, None, None] + np.einsum("ij,j...->i...", matrix, offset) + shift

    def sample(names, brain, start, size):
        volume, label = (np.asarray(example[name]) for name in names)
        place = (brain - start[:, None, None, None]) / size[:, None, None, None] - 0.5
        shape = np.array(volume.shape[:3]).reshape(3, 1, 1, 1)
        valid = ((place >= -0.5) & (place < shape - 0.5)).all(0)
        linear = np.stack(
            [map_coordinates(volume[..., c].astype(float), place, order=1, mode="nearest")
             for c in range(4)], -1,
        )  # fmt: skip
        near = tuple(np.clip(np.floor(place + 0.5).astype(int), 0, shape - 1))
        brain_here = (volume != 0).any(-1)[near]
        return np.where(brain_here[..., None], linear, 0), label[near], valid

    ones, zeros = np.ones(3), np.zeros(3)
    brain = sources(patch, ones, centre, moved)
    inner = sample(("image", "label"), brain, low * extent, ones)
    outer = sample(("whole", "whole_label"), brain, zeros, extent / grid)
    for place, name in enumerate(("image", "label")):
        rank = (..., None) if name == "image" else ...
        outside = np.where(outer[2][rank], outer[place], 0)
        result[name] = np.where(inner[2][rank], inner[place], outside)
    brain = sources(grid, extent / grid, middle, middle)
    volume, label, valid = sample(("whole", "whole_label"), brain, zeros, extent / grid)
    result["whole"] = np.where(valid[..., None], volume, 0)
    result["whole_label"] = np.where(valid, label, 0)
    return result


@pytest.mark.parametrize(("matrix", "nodes"), [(MATRIX, None), (np.eye(3), NODES), (MATRIX, NODES)])
def test_equals_scipy(batch, matrix, nodes):
    example = example_of(batch)
    result, expected = warped(example, matrix, nodes), numpy_warp(example, matrix, nodes)
    np.testing.assert_allclose(result["box"], expected["box"], atol=1e-6)
    for name in ("label", "whole_label", "image", "whole"):
        # Within rounding of the middle between two voxels, either is the nearest.
        same = np.isclose(result[name], expected[name], atol=1e-4)
        same = same.all(-1) if same.ndim == 4 else same
        assert same.mean() > 0.998, name
    assert (result["image"] != np.asarray(example["image"])).any()


def test_identity_is_bitwise(batch):
    example = example_of(batch)
    result = warped(example, np.eye(3), 0 * NODES)
    for name, array in example.items():
        np.testing.assert_array_equal(result[name], array, strict=True)


@pytest.mark.parametrize("seed", range(3))
def test_labels_sequences_and_background_are_kept(batch, seed):
    rng = np.random.default_rng(seed)
    example = example_of(batch, 1)
    example["label"] = jnp.where(example["label"] == 2, 0, example["label"])
    example["whole_label"] = jnp.where(example["whole_label"] == 2, 0, example["whole_label"])
    matrix = rng.normal(size=(3, 3)) * 0.2 + np.eye(3)
    result = warped(example, matrix, rng.uniform(-0.4, 0.4, NODES.shape))
    for name in ("label", "whole_label"):
        assert set(np.unique(result[name])) <= {0, 1, 3}
        assert result[name].dtype == np.int32
    for volume, label in (("image", "label"), ("whole", "whole_label")):
        assert (result[volume][..., 1] == 0).all()
        assert not np.signbit(result[volume][..., 1]).any()
        assert (result[label][(result[volume] == 0).all(-1)] == 0).all()


def brain(position):
    """An intensity for every place [… 3] of a brain of 48×40×44 voxels, smooth."""
    x, y, z = np.moveaxis(position, -1, 0)
    waves = [np.cos(x / 5), np.sin(y / 6), np.cos((y + z) / 7), np.sin((x - z) / 6)]
    return 2 + np.stack(waves, -1)


def smooth_example(start, patch=(20, 18, 16), extent=(48, 40, 44), grid=(32, 32, 32)):
    """A patch and its brain, both cut out of the same smooth function."""
    extent, start = np.array(extent, float), np.array(start, float)

    def volume(shape, begin, size):
        index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
        return brain(begin + (index + 0.5) * size)

    box = np.stack([start, start + patch]) / extent
    image, whole = volume(patch, start, np.ones(3)), volume(grid, 0, extent / grid)
    arrays = {"image": image, "whole": whole, "box": box, "present": np.ones(4)}
    labels = {"label": np.zeros(patch, np.int32), "whole_label": np.zeros(grid, np.int32)}
    return {k: jnp.asarray(v, jnp.float32) for k, v in arrays.items()} | jax.tree.map(
        jnp.asarray, labels
    )


@pytest.mark.parametrize(
    ("matrix", "nodes"),
    [(MATRIX, None), (np.eye(3) / 1.3, None), (np.eye(3), NODES), (MATRIX, NODES)],
)
@pytest.mark.parametrize("start", [(4, 6, 8), (24, 14, 20)])
def test_patch_is_found_in_the_whole_through_its_box(matrix, nodes, start):
    """What the network crops of the whole by `box` shows the same tissue as the patch."""
    result = warped(smooth_example(start), matrix, nodes)
    box = jnp.asarray(result["box"])[None]
    inside = ((box >= 0) & (box <= 1)).all()
    crop = crop_resample(jnp.asarray(result["whole"])[None], box, result["image"].shape[:3])[0]
    seen = (np.asarray(crop) != 0).all(-1) & (result["image"] != 0).all(-1)
    # Of a rotated brain, a corner of the box may show none of it.
    error = np.abs(crop - result["image"])[seen]
    assert seen.mean() > (0.8 if inside else 0.4)
    assert np.quantile(error, 0.95) < 0.15
    # The same measure fails for a box that is off by two voxels.
    off = crop_resample(
        jnp.asarray(result["whole"])[None], box + 2 / 44, result["image"].shape[:3]
    )[0]
    assert np.quantile(np.abs(off - result["image"])[seen], 0.95) > 0.3


def test_what_lies_beyond_the_patch_is_taken_from_the_whole():
    example = smooth_example((14, 11, 14))
    result = warped(example, 1.4 * np.eye(3))
    assert (result["image"] != 0).all()
    low, high = result["box"] * np.array([48, 40, 44])
    np.testing.assert_allclose(high - low, (20, 18, 16), rtol=1e-5)
    index = np.stack(np.meshgrid(*map(np.arange, (20, 18, 16)), indexing="ij"), -1)
    middle = np.array([20, 18, 16]) / 2
    expected = brain(np.array([14, 11, 14]) + middle + 1.4 * (index + 0.5 - middle))
    np.testing.assert_allclose(result["image"], expected, atol=0.06)


@pytest.mark.parametrize(("displacement", "folds"), [(MAX_DISPLACEMENT, False), (0.45, True)])
def test_elastic_field_does_not_fold(displacement, folds):
    """At the limit not even where all nodes pull together across a diagonal; beyond, it does."""
    side = np.sign(np.indices((9, 9, 9)).sum(0) - 11.5)
    nodes = jnp.asarray(-displacement * np.stack([side] * 3), jnp.float32)
    matrix = spline_matrix(jnp.linspace(0, 1, 49), nodes=7)
    np.testing.assert_allclose(np.asarray(matrix).sum(1), 1, atol=1e-6)
    field = np.asarray(spline_field(nodes, (matrix,) * 3))
    gradient = np.stack([np.stack(np.gradient(field[i], 6 / 48), -1) for i in range(3)], -2)
    assert (np.linalg.det(np.eye(3) + gradient).min() < 0) == folds


def test_draws_have_the_strength_and_share_asked_for(off):
    off = {k: v for k, v in off.items() if k == "sequence_dropout" or isinstance(v, dict)}
    some = {"rotation": {"probability": 0.5, "degrees": 10.0}}
    some |= {"scaling": {"probability": 0.4, "lowest": 0.5, "highest": 2.0}}
    stages = make_stages(**off | some)
    rows = np.random.default_rng(0).uniform(size=(400, 64)).astype(np.float32)
    draw = jax.jit(jax.vmap(lambda row: random_warp(Numbers(row), jax.random.key(0), stages)))
    chosen, warp = jax.device_get(draw(rows))
    assert warp.nodes is None
    assert 0.62 < chosen.mean() < 0.78
    np.testing.assert_array_equal(warp.matrix[~chosen], np.eye(3)[None].repeat((~chosen).sum(), 0))
    size = np.cbrt(np.linalg.det(warp.matrix))
    assert 0.33 < (np.abs(size - 1) > 1e-3).mean() < 0.47
    assert 0.5 <= size.min() < 0.6
    assert 1.7 < size.max() <= 2.0
    assert 0.4 < (size[np.abs(size - 1) > 1e-3] < 1).mean() < 0.6
    turns = Rotation.from_matrix(warp.matrix / size[:, None, None])
    assert 0.42 < (turns.magnitude() > 1e-3).mean() < 0.58
    angles = np.abs(turns.as_euler("xyz", degrees=True))
    assert (angles.max(0) > 9).all()
    assert angles.max() <= 10.01
