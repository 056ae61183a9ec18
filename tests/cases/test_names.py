"""Sequences, labels and tasks: the words of the contract."""

import itertools

import numpy as np
import pytest

from gmmas_jax.cases.labels import (
    CONVENTIONS,
    LABELS,
    REGIONS,
    convert_back,
    convert_labels,
    infer_convention,
    region_mask,
)
from gmmas_jax.cases.sequences import SEQUENCES, SUBSETS, canonical_sequence, presence
from gmmas_jax.cases.tasks import TASKS, task_index
from gmmas_jax.errors import UserError


@pytest.mark.parametrize(
    ("sequence", "aliases"),
    [
        ("t1n", ["t1", "T1w", "t1n", "t1_pre"]),
        ("t1c", ["t1ce", "T1Gd", "CT1", "t1-post", "t1c", "T1+C"]),
        ("t2w", ["t2", "T2w"]),
        ("t2f", ["flair", "FLAIR", "t2f", "T2-FLAIR", "t2_flair", "fla"]),
        (None, ["adc", "dwi", "t3", "", "seg", "t1t2"]),
    ],
)
def test_aliases(sequence, aliases):
    assert {canonical_sequence(alias) for alias in aliases} == {sequence}


def test_the_fifteen_subsets_are_all_and_in_published_order():
    every = {subset for n in range(1, 5) for subset in itertools.combinations(SEQUENCES, n)}
    assert set(SUBSETS) == every
    assert len(SUBSETS) == 15
    assert SUBSETS[:4] == (("t2w",), ("t1c",), ("t1n",), ("t2f",))
    assert SUBSETS[4] == ("t1c", "t2w")
    assert SUBSETS[-1] == SEQUENCES


def test_presence_is_in_channel_order():
    mask = presence(["t2f", "t1n"])
    assert mask.dtype == np.float32
    np.testing.assert_array_equal(mask, [1, 0, 0, 1])
    with pytest.raises(UserError, match="'flair'"):
        presence(["flair"])


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_conventions_go_there_and_back(convention):
    theirs = np.array([sorted(CONVENTIONS[convention])] * 2, np.int16)
    ours = convert_labels(theirs, convention, "x.nii.gz")
    assert ours.dtype == np.uint8
    assert ours.max() < len(LABELS)
    np.testing.assert_array_equal(convert_back(ours, convention), theirs)


def test_enhancing_tumour_has_one_code_whatever_the_file_says():
    for convention, code in [("brats2021", 4), ("brats2023", 3), ("msd", 3)]:
        assert convert_labels(np.array([code]), convention, "x") == LABELS.index("ET")
    assert convert_labels(np.array([4]), "brats2024", "x") == LABELS.index("RC")
    np.testing.assert_array_equal(
        convert_labels(np.array([1, 2]), "msd", "x"), [LABELS.index("ED"), LABELS.index("NCR")]
    )


@pytest.mark.parametrize(
    ("values", "convention", "words"),
    [
        ([0, 3], "brats2021", ["x.nii.gz", "{3}", "{0, 1, 2, 4}", "Declare"]),
        ([0, 1, 255], "brats2023", ["255"]),
        ([0, -1], "brats2023", ["-1"]),
        ([0, 1, 2.5], "brats2023", ["1 label voxels", "2.5", "nearest"]),
        ([0, 1, np.nan], "brats2023", ["not integers"]),
        ([0, 1], "brats2020", ["'brats2020'", "brats2021"]),
    ],
)
def test_bad_labels_are_refused(values, convention, words):
    with pytest.raises(UserError) as caught:
        convert_labels(np.array(values), convention, "x.nii.gz")
    for word in words:
        assert word in str(caught.value)


def test_nearly_integer_labels_are_rounded():
    label = convert_labels(np.array([0, 0.9999, 2.0001], np.float32), "brats2023", "x")
    np.testing.assert_array_equal(label, [0, 1, 2])


@pytest.mark.parametrize(
    ("values", "numbered", "convention"),
    [
        ([0], False, "brats2023"),
        ([0], True, "brats2023"),
        ([0, 1, 2], False, "brats2023"),
        ([0, 1, 2, 3], False, "brats2023"),
        ([0, 1, 2, 3, 4], False, "brats2024"),
        ([3, 4], False, "brats2024"),
    ],
)
def test_the_convention_is_inferred_where_nothing_else_fits(values, numbered, convention):
    assert infer_convention(np.array(values), "x", numbered_channels=numbered) == convention


@pytest.mark.parametrize(
    ("values", "numbered", "words"),
    [
        ([0, 1, 2, 4], False, ["ambiguous", "4 = ET", "4 = RC", "brats2021", "brats2024"]),
        ([4], False, ["ambiguous"]),
        ([0, 1], False, ["ambiguous", "1 = NCR", "1 = TU", "brats2023, lesion"]),
        ([0, 1, 2, 3], True, ["ambiguous", "1 = ED", "1 = NCR", "msd"]),
        ([0, 7], False, ["fit no known convention", "{0, 7}"]),
    ],
)
def test_what_is_ambiguous_is_refused(values, numbered, words):
    with pytest.raises(UserError) as caught:
        infer_convention(np.array(values), "x.nii.gz", numbered_channels=numbered)
    for word in ["x.nii.gz", *words]:
        assert word in str(caught.value)


def test_a_code_that_a_convention_lacks_is_not_written():
    with pytest.raises(UserError, match="'brats2021' has no code for RC"):
        convert_back(np.array([0, 4]), "brats2021")


def test_regions():
    label = np.arange(5)
    masks = {region: region_mask(label, region).tolist() for region in REGIONS}
    assert masks == {
        "WT": [False, True, True, True, False],
        "TC": [False, True, False, True, False],
        "ET": [False, False, False, True, False],
        "RC": [False, False, False, False, True],
    }


def test_a_missing_task_value_is_missing_and_never_class_0():
    assert task_index("idh", None) is None
    assert task_index("idh", "  ") is None
    assert task_index("idh", "Mutant") == 1
    assert task_index("grade", "4") == 2
    assert list(TASKS) == ["idh", "codel_1p19q", "histology", "grade", "mgmt", "outcome"]


@pytest.mark.parametrize(
    ("task", "value", "word"),
    [
        ("idh", "indeterminate", "wildtype, mutant"),
        ("grade", "4.0", "2, 3, 4"),
        ("tert", "x", "idh"),
    ],
)
def test_an_unknown_task_value_is_refused(task, value, word):
    with pytest.raises(UserError, match=word):
        task_index(task, value)
