"""Slices in two dimensions: which are drawn, what they hold, and that seed and step decide."""

from itertools import islice

import jax
import numpy as np
import pytest

from data_pipelines.slices import case_slices, slice_batches
from gmmas_jax.errors import UserError
from tests.data_pipelines.memory_cases import arrays_of, blob, entry, memory_index, two_classes

SETTINGS = {"seed": 5, "batch_size": 4, "size": (32, 40)}


@pytest.fixture(name="index")
def _index():
    return two_classes()


def take(index, steps: int, **changes):
    return list(islice(slice_batches(index, **SETTINGS | changes), steps))


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_shapes_and_dtypes_are_those_of_a_batch(index):
    kinds = {name: (array.dtype.name, array.shape) for name, array in take(index, 1)[0].items()}
    assert kinds == {
        "image": ("float32", (4, 32, 40, 2)),
        "present": ("float32", (4, 2)),
        "label": ("int32", (4, 32, 40)),
        "label_valid": ("float32", (4,)),
        "slice_index": ("int32", (4,)),
        "case_index": ("int32", (4,)),
    }


def test_hosts_and_workers_change_nothing(index):
    one = take(index, 4, workers=1)
    for hosts in (2, 4):
        parts = [take(index, 4, process_index=i, process_count=hosts) for i in range(hosts)]
        for whole, *shares in zip(one, *parts, strict=True):
            assert_same(whole, jax.tree.map(lambda *arrays: np.concatenate(arrays), *shares))


def test_resuming_goes_on_bitwise(index):
    for expected, found in zip(take(index, 5)[3:], take(index, 2, start_step=3), strict=True):
        assert_same(expected, found)


def test_slices_have_lesion_and_every_case_with_tumour_comes_once_an_epoch(index):
    batches = take(index, 25)
    cases = np.concatenate([batch["case_index"] for batch in batches]).reshape(-1, 5)
    assert (np.sort(cases, axis=1) == [0, 1, 2, 3, 4]).all()
    seen = set()
    for batch in batches:
        assert (batch["label"] > 0).any(axis=(1, 2)).all()
        assert set(np.unique(batch["label"])) == {0, 1}
        pairs = zip(batch["case_index"].tolist(), batch["slice_index"].tolist(), strict=True)
        for case, number in pairs:
            assert (index.open(case).label[:, :, number] > 0).any()
            seen.add((case, number))
    assert len(seen) > 30


def test_all_slices_by_option_and_of_cases_without_mask(index):
    batches = take(index, 60, lesion_only=False, label="labels")
    assert set(np.concatenate([batch["case_index"] for batch in batches])) == set(range(7))
    assert set(np.concatenate([batch["slice_index"] for batch in batches])) == set(range(16))
    valid = {
        int(case): float(known)
        for batch in batches
        for case, known in zip(batch["case_index"], batch["label_valid"], strict=True)
    }
    assert valid == {0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 0}
    assert set(np.unique(np.concatenate([batch["label"] for batch in batches]))) == {0, 1, 2, 3}


def test_a_slice_is_that_of_the_case_with_its_proportions_kept():
    label = blob((20, 18, 16), (12, 9, 8), 5.0)
    case = arrays_of(label, seed=1)
    index = memory_index((entry("a", case), case))
    # Twice as large along both axes: every stored pixel becomes two by two.
    batch = case_slices(
        index, 0, size=(40, 40), sequences=("t2f", "t1c"), label="labels", lesion_only=True
    )
    numbers = batch["slice_index"]
    np.testing.assert_array_equal(numbers, np.flatnonzero((label > 0).any(axis=(0, 1))))
    codes = np.repeat(np.repeat(label[:, :, numbers], 2, axis=0), 2, axis=1)
    np.testing.assert_array_equal(batch["label"][:, :, 2:38], np.moveaxis(codes, 2, 0))
    assert not batch["label"][:, :, [0, 1, 38, 39]].any()
    assert not batch["image"][:, :, [0, 1, 38, 39]].any()
    stored = np.moveaxis(case.image[:, :, numbers][..., [3, 1]].astype(float), 2, 0)
    # Linear interpolation at a quarter of the way, and back.
    fine = batch["image"][:, 2:38, 4:36].reshape(len(numbers), 18, 2, 16, 2, 2).mean(axis=(2, 4))
    neighbours = stored[:, 1:-1, 1:-1] * 0.5625
    for axis in (1, 2):
        for shift in (1, -1):
            neighbours = neighbours + 0.09375 * np.roll(stored, shift, axis)[:, 1:-1, 1:-1]
    for first in (1, -1):
        for second in (1, -1):
            corner = np.roll(np.roll(stored, first, 1), second, 2)
            neighbours = neighbours + 0.015625 * corner[:, 1:-1, 1:-1]
    np.testing.assert_allclose(fine, neighbours, atol=1e-3)


def test_a_missing_sequence_is_zero_and_told(index):
    batch = case_slices(index, 3, size=(16, 16), sequences=("t1n", "t2f"))
    assert batch["present"].tolist() == [[0, 1]] * 16
    assert not batch["image"][..., 0].any()
    assert batch["image"][..., 1].any()
    assert case_slices(index, 5, lesion_only=True)["image"].shape == (0, 256, 256, 2)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"label": "TC"}, "label is 'TC'"),
        ({"size": (256,)}, r"size is \(256,\)"),
        ({"sequences": ("t1x",)}, "t1x"),
        ({"sequences": ()}, "sequences is empty"),
    ],
)
def test_what_does_not_fit_is_named(index, change, told):
    with pytest.raises(UserError, match=told):
        slice_batches(index, **SETTINGS | change)


def test_no_lesion_at_all_is_refused():
    healthy = arrays_of(np.zeros((20, 18, 16), np.uint8))
    index = memory_index((entry("a", healthy), healthy))
    with pytest.raises(UserError, match="none of 1 cases has t1c or t2f and a mask with tumour"):
        slice_batches(index, **SETTINGS)
