"""Draws of one example: their rates, their limits, and that they follow from seed and counter."""

import numpy as np
import pytest

from data_pipelines.sampling import (
    STREAMS,
    cut,
    example_generator,
    patch_box,
    patch_start,
    shown_sequences,
)

DRAWS = 4000
ALL = np.ones(4, np.float32)


def draws(function):
    return [function(example_generator(0, counter)) for counter in range(DRAWS)]


def rate(truths) -> float:
    return float(np.mean(list(truths)))


def test_an_example_generator_is_a_function_of_seed_and_counter():
    def numbers(seed: int, counter: int) -> list[float]:
        return example_generator(seed, counter).random(3).tolist()

    assert numbers(5, 9) == numbers(5, 9)
    assert len({tuple(numbers(*pair)) for pair in [(5, 9), (5, 10), (6, 9), (9, 5)]}) == 4


def test_streams_of_an_example_are_independent():
    numbers = [tuple(example_generator(5, 9, name).random(3)) for name in STREAMS]
    assert len(set(numbers)) == len(STREAMS)
    assert numbers[0] == tuple(example_generator(5, 9).random(3))
    # Not the next example's either, nor the same numbers a few draws later.
    assert not set(example_generator(5, 9).random(1000)) & set(numbers[1])
    with pytest.raises(ValueError, match="not in tuple"):
        example_generator(5, 9, "patches")


def test_published_drop_hides_one_or_two_at_the_published_rates():
    hidden = draws(lambda g: 4 - shown_sequences(g, ALL, drop="published").sum())
    assert rate(h == 1 for h in hidden) == pytest.approx(0.30, abs=0.03)
    assert rate(h == 2 for h in hidden) == pytest.approx(0.14, abs=0.03)
    assert set(hidden) == {0, 1, 2}


def test_uniform_drop_shows_each_of_the_fifteen_subsets_equally_often():
    shown = draws(lambda g: tuple(shown_sequences(g, ALL, drop="uniform").tolist()))
    subsets, counts = np.unique(shown, axis=0, return_counts=True)
    assert len(subsets) == 15
    np.testing.assert_allclose(counts / DRAWS, 1 / 15, atol=0.02)


@pytest.mark.parametrize("drop", ["none", "published", "uniform"])
@pytest.mark.parametrize("present", [[0, 1, 0, 0], [1, 0, 0, 1], [1, 1, 1, 1]])
def test_nothing_absent_is_shown_and_something_always_is(drop, present):
    having = np.array(present, np.float32)
    for shown in draws(lambda g: shown_sequences(g, having, drop=drop))[:500]:
        assert shown.dtype == np.float32
        assert shown.any()
        assert (shown <= having).all()
        if drop == "none":
            np.testing.assert_array_equal(shown, having)


def start(generator, *, share: float, foreground=(), shape=(20, 20, 20), patch=(8, 8, 8)):
    return patch_start(
        generator, shape=shape, patch=patch, foreground=foreground, foreground_share=share
    )


def test_the_foreground_share_is_the_share_of_patches_around_tumour():
    shape = (20, 20, 20)
    corner = (np.array([np.ravel_multi_index((10, 11, 12), shape)], np.int32),)
    starts = draws(lambda g: start(g, share=0.4, foreground=corner))
    # A uniform place hits this very one with probability 1/2197.
    assert rate(s == (6, 7, 8) for s in starts) == pytest.approx(0.4, abs=0.03)


def test_each_tumour_class_is_centred_equally_often_however_small():
    shape = (20, 20, 20)
    voxels = np.arange(20**3, dtype=np.int32)
    foreground = (voxels[:4000], np.array([np.ravel_multi_index((10, 11, 12), shape)], np.int32))
    starts = draws(lambda g: start(g, share=1.0, foreground=foreground))
    assert rate(s == (6, 7, 8) for s in starts) == pytest.approx(0.5, abs=0.03)


def test_a_patch_around_a_voxel_at_the_edge_stays_inside_and_holds_the_voxel():
    voxels = (np.array([0, 20**3 - 1], np.int32),)
    starts = set(draws(lambda g: start(g, share=1.0, foreground=voxels)))
    assert starts == {(0, 0, 0), (12, 12, 12)}


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_without_tumour_every_place_is_drawn(share: float):
    starts = np.array(draws(lambda g: start(g, share=share)))
    assert starts.min(axis=0).tolist() == [0, 0, 0]
    assert starts.max(axis=0).tolist() == [12, 12, 12]
    np.testing.assert_allclose(starts.mean(axis=0), 6.0, atol=0.3)


def test_a_small_case_lies_in_the_middle_of_its_patch():
    first = start(example_generator(0, 0), share=1.0, shape=(20, 5, 8), patch=(8, 8, 8))
    assert first[1:] == (-2, 0)
    volume = np.arange(1, 20 * 5 * 8 + 1).reshape(20, 5, 8)
    patch = cut(volume, first, (8, 8, 8))
    np.testing.assert_array_equal(patch[:, 2:7], volume[first[0] : first[0] + 8])
    assert not patch[:, :2].any()
    assert not patch[:, 7:].any()
    box = patch_box(first, (8, 8, 8), (20, 5, 8))
    np.testing.assert_allclose(box[:, 1], [-0.4, 1.2])
    np.testing.assert_allclose(box[:, 2], [0.0, 1.0])
