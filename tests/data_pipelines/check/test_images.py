"""What is measured on the images of one case."""

from itertools import combinations

import numpy as np
import pytest
from scipy import ndimage

from data_pipelines.check.alignment import misalignment
from data_pipelines.check.contrast import suspected_names
from data_pipelines.check.signature import LENGTH, SAME, signature, similar_pairs
from data_pipelines.check.volume import block_means, reduce_volume
from data_pipelines.nifti import read_volume
from gmmas_jax.cases.case import Grid
from gmmas_jax.cases.geometry import to_canonical
from gmmas_jax.cases.sequences import SEQUENCES, SUBSETS
from tests.data_pipelines.check.heads import AFFINE, SHAPE, make_head

SPACING = (4.0, 4.0, 4.0)
PAIRS = list(combinations(SEQUENCES, 2))


@pytest.fixture(name="images", scope="module")
def _images():
    return make_head(3)[0]


@pytest.fixture(name="other", scope="module")
def _other():
    return make_head(4)[0]


def exchanged(images, one, other):
    return {**images, one: images[other], other: images[one]}


def test_right_names_are_not_suspected(images):
    for subset in SUBSETS:
        assert suspected_names({name: images[name] for name in subset}, SPACING) == {}
    assert suspected_names({}, SPACING) == {}


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_two_exchanged_files_are_named(images, one, other):
    assert suspected_names(exchanged(images, one, other), SPACING) == {one: other, other: one}


def test_exchanged_files_are_named_in_subsets_with_t2w(images):
    for subset in SUBSETS:
        for one, other in combinations(subset, 2):
            given = {name: exchanged(images, one, other)[name] for name in subset}
            if "t2w" in subset or {one, other} == {"t1n", "t1c"}:
                found = suspected_names(given, SPACING)
                assert found == {one: other, other: one}, subset


def test_a_circle_of_three_is_named(images):
    given = {
        **images,
        "t1n": images["t2w"],
        "t2w": images["t2f"],
        "t2f": images["t1n"],
    }
    assert suspected_names(given, SPACING) == {"t1n": "t2w", "t2w": "t2f", "t2f": "t1n"}


def test_brightness_and_bias_do_not_matter(images):
    ramp = np.linspace(0.7, 1.4, SHAPE[1])[:, None]
    scaled = {name: image**1.3 * ramp / 50 for name, image in images.items()}
    assert suspected_names(scaled, SPACING) == {}
    found = suspected_names(exchanged(scaled, "t2w", "t2f"), SPACING)
    assert found == {"t2w": "t2f", "t2f": "t2w"}


def test_a_moved_sequence_is_named(images):
    assert misalignment(images) is None
    for axis, side in enumerate(("left", "back", "bottom")):
        moved = {**images, "t2w": np.roll(images["t2w"], 1, axis)}
        name, words = misalignment(moved)
        assert name == "t2w"
        assert side in words
    far = {**images, "t1c": np.roll(images["t1c"], 5, 0)}
    name, words = misalignment(far)
    assert name == "t1c"
    assert "overlap by" in words


def test_a_brain_one_voxel_thick_is_no_misalignment(images):
    """A step along the thin axis leaves nothing to compare."""
    thin = {}
    for name, image in images.items():
        thin[name] = np.zeros_like(image)
        thin[name][:, :, SHAPE[2] // 2] = image[:, :, SHAPE[2] // 2]
    assert misalignment(thin) is None


def test_signature_knows_an_image_again(images, other):
    image = images["t2w"]
    generator = np.random.default_rng(0)
    one = signature(image, SPACING).astype(float)
    assert one.shape == (LENGTH,)
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-3)
    for again in (
        3.5 * image,
        image * (1 + generator.normal(0, 0.05, SHAPE)),
        np.pad(image, ((4, 0), (0, 6), (2, 2))),
        image**0.8,
    ):
        assert one @ signature(again, SPACING) > SAME + 0.05
    assert one @ signature(other["t2w"], SPACING) < SAME - 0.1
    brain = ndimage.zoom((image > 0) * 1.0, 2, order=1, grid_mode=True, mode="nearest") > 0.5
    finer = brain * ndimage.zoom(image, 2, order=1, grid_mode=True, mode="nearest")
    assert one @ signature(finer, (2.0, 2.0, 2.0)) > SAME
    flat = np.where(image > 0, 5, 0).astype(np.float32)
    assert not signature(flat, SPACING).any()


def test_similar_pairs_are_all_pairs(monkeypatch):
    generator = np.random.default_rng(1)
    table = generator.normal(size=(37, LENGTH))
    table[30], table[5] = table[2] * 1.1, table[4]
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    table = table.astype(np.float16)
    monkeypatch.setattr("data_pipelines.check.signature._BLOCK", 8)
    assert sorted(pair[:2] for pair in similar_pairs(table)) == [(2, 30), (4, 5)]
    across = sorted(pair[:2] for pair in similar_pairs(table[:5], table[5:]))
    assert across == [(2, 25), (4, 0)]
    assert all(pair[2] > 0.99 for pair in similar_pairs(table))
    assert list(similar_pairs(np.zeros((3, LENGTH), np.float16))) == []


def reduced(array, grid):
    return reduce_volume(np.ascontiguousarray(to_canonical(array, grid.affine)[0]), grid)


def test_hash_is_of_the_voxels_and_not_of_the_file(images, tmp_path):
    image = images["t1n"].round()
    one = reduced(image, Grid(SHAPE, AFFINE))[0]
    turned = np.diag([4.0, 4.0, 4.0, 1.0])
    turned[:2, 3] = [-4 * (SHAPE[0] - 1), -4 * (SHAPE[1] - 1)]
    same = reduced(image[::-1, ::-1], Grid(SHAPE, turned))[0]
    assert same.content_hash == one.content_hash
    assert reduced(2 * image, Grid(SHAPE, AFFINE))[0].content_hash != one.content_hash
    minus = np.where(image == 0, np.float32(-0.0), image)
    assert reduced(minus, Grid(SHAPE, AFFINE))[0].content_hash == one.content_hash


def test_block_means():
    array = np.arange(9 * 4 * 2, dtype=np.float32).reshape(9, 4, 2)
    coarse, spacing = block_means(array, (1.0, 2.0, 5.0))
    assert spacing == (4.0, 4.0, 5.0)
    expected = array[:8].reshape(2, 4, 2, 2, 2).mean((1, 3))
    np.testing.assert_allclose(coarse, expected, rtol=1e-6)
    assert block_means(np.ones((2, 2, 2), np.float32), (1.0, 1.0, 1.0))[0].shape == (2, 2, 2)


def test_what_is_measured(images):
    volume, nonzero = reduced(images["t1n"], Grid(SHAPE, AFFINE))
    brain = images["t1n"] > 0
    assert volume.stripped
    assert volume.foreground_ml == pytest.approx(brain.sum() * 0.064, rel=0.01)
    assert volume.filled == pytest.approx(brain.mean())
    assert volume.faces_cm2 == (0,) * 6
    np.testing.assert_array_equal(nonzero, np.flip(brain, (0, 1)))
    cut = images["t1n"][:, :, :20]
    faces = reduced(cut, Grid(cut.shape, AFFINE))[0].faces_cm2
    assert faces[5] == pytest.approx(np.count_nonzero(cut[:, :, -1]) * 0.16, rel=0.02)
    assert sum(faces) == faces[5]


CASES = ["Brats18_TCIA10_637_1", "Brats18_TCIA13_623_1"]


@pytest.mark.parametrize("case", CASES)
def test_real_cases(real_data, case):
    coarse = {}
    for name, old in zip(SEQUENCES, ("t1", "t1ce", "t2", "flair"), strict=True):
        path = real_data / "brats18" / case / f"{case}_{old}.nii.gz"
        volume = reduced(*read_volume(path))[0]
        assert volume.stripped
        coarse[name] = volume.coarse
    assert suspected_names(coarse, volume.coarse_mm) == {}
    assert misalignment(coarse) is None
    for one, other in PAIRS:
        found = suspected_names(exchanged(coarse, one, other), volume.coarse_mm)
        assert found == {one: other, other: one}
    assert misalignment({**coarse, "t2f": np.roll(coarse["t2f"], 1, 2)}) is not None
