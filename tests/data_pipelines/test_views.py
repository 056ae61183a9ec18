"""Two views: which sequences they show and where the second patch lies."""

import numpy as np
import pytest

from data_pipelines.sampling import example_generator
from data_pipelines.views import near_start, two_subsets, view_keys


def generator(counter: int) -> np.random.Generator:
    return example_generator(0, counter, "views")


@pytest.mark.parametrize("present", [[1, 1, 1, 1], [1, 0, 1, 1]])
def test_both_views_show_two_or_more_and_differ(present):
    having = np.array(present, np.float32)
    pairs = set()
    for counter in range(3000):
        first, second = two_subsets(generator(counter), having)
        for shown in (first, second):
            assert shown.dtype == np.float32
            assert shown.sum() >= 2
            assert (shown <= having).all()
        assert (first != second).any()
        pairs.add((tuple(first), tuple(second)))
    subsets = 11 if having.all() else 4
    assert len(pairs) == subsets * (subsets - 1)


def test_two_sequences_give_views_of_one():
    having = np.array([0, 1, 0, 1], np.float32)
    for counter in range(50):
        first, second = two_subsets(generator(counter), having)
        assert first.any()
        assert second.any()
        assert (first != second).any()
        assert (first + second <= 2 * having).all()


def test_a_single_sequence_is_shown_twice():
    having = np.array([0, 0, 0, 1], np.float32)
    first, second = two_subsets(generator(0), having)
    np.testing.assert_array_equal(first, having)
    np.testing.assert_array_equal(second, having)


def starts(overlap: float, first=(5, 0, -3)):
    return np.array(
        [
            near_start(
                generator(counter), first, shape=(30, 12, 4), patch=(10, 10, 10), overlap=overlap
            )
            for counter in range(400)
        ]
    )


def test_an_overlap_of_one_is_the_same_patch():
    assert np.unique(starts(1.0), axis=0).tolist() == [[5, 0, -3]]


def test_the_second_patch_overlaps_and_stays_inside():
    found = starts(0.6)
    assert set(found[:, 0].tolist()) == set(range(1, 10))
    assert set(found[:, 1].tolist()) == {0, 1, 2}
    assert set(found[:, 2].tolist()) == {-3}


def test_each_view_has_a_key_of_its_own():
    keys = np.concatenate([view_keys(generator(counter)) for counter in range(50)])
    assert keys.dtype == np.uint32
    assert len(np.unique(keys, axis=0)) == 100
