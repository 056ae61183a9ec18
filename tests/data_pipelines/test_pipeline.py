"""Batches hold what the prepared cases hold, and depend on seed and step alone."""

import subprocess
import sys
from dataclasses import replace
from itertools import chain, islice

import jax
import numpy as np
import pytest

from data_pipelines.pipeline import evaluation_cases, train_batches
from data_pipelines.prepared import write_index
from gmmas_jax.cases.sequences import presence
from gmmas_jax.errors import UserError
from tests.data_pipelines.memory_cases import arrays_of, entry, memory_index, two_classes

PATCH = (8, 8, 8)
TASKS = ("idh", "grade")
SETTINGS = {
    "seed": 7,
    "batch_size": 4,
    "patch": PATCH,
    "foreground": 0.5,
    "sequence_drop": "uniform",
    "tasks": TASKS,
}


@pytest.fixture
def index(make_index, make_case):
    return make_index(
        make_case("a"),
        make_case("small", shape=(9, 6, 10)),
        make_case("unlabelled", labelled=False),
        make_case("healthy", tumour=False),
        make_case("two", sequences=("t1c", "t2f")),
        tasks={"a": {"idh": "mutant", "grade": "4"}, "two": {"grade": "2"}},
    )


def take(index, steps: int, **changes):
    return list(islice(train_batches(index, **SETTINGS | changes), steps))


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(np.testing.assert_array_equal, left, right)


def examples(batches):
    """Yields one dict of unbatched arrays per example."""
    for batch in batches:
        for i in range(len(batch["case_index"])):
            yield jax.tree.map(lambda array, i=i: array[i], batch)


def voxels(box: np.ndarray, shape) -> tuple[slice, ...]:
    """Returns the voxels of a box in fractions."""
    corners = np.rint(box * np.array(shape)).astype(int)
    return tuple(slice(low, high) for low, high in corners.T)


def test_shapes_and_dtypes_are_those_of_a_batch(index):
    batch = take(index, 1)[0]
    kinds = jax.tree.map(lambda array: (array.dtype.name, array.shape), batch)
    assert kinds == {
        "image": ("float16", (4, 8, 8, 8, 4)),
        "present": ("float32", (4, 4)),
        "whole": ("float16", (4, 6, 5, 4, 4)),
        "box": ("float32", (4, 2, 3)),
        "label": ("uint8", (4, 8, 8, 8)),
        "whole_label": ("uint8", (4, 6, 5, 4)),
        "label_valid": ("float32", (4,)),
        "targets": {"idh": ("float32", (4, 2)), "grade": ("float32", (4, 3))},
        "target_valid": {"idh": ("float32", (4,)), "grade": ("float32", (4,))},
        "case_index": ("int32", (4,)),
    }


def test_the_stream_does_not_depend_on_hosts_or_workers(index):
    one = take(index, 4, workers=1)
    halves = [take(index, 4, process_index=i, process_count=2, workers=3) for i in (0, 1)]
    for whole, *parts in zip(one, *halves, strict=True):
        assert_same(whole, jax.tree.map(lambda *p: np.concatenate(p), *parts))


def test_resuming_goes_on_bitwise(index):
    for expected, found in zip(take(index, 5)[3:], take(index, 2, start_step=3), strict=True):
        assert_same(expected, found)


EVERYTHING = {
    "balance": ("grade",),
    "unlabelled_share": 0.25,
    "cutmix": 0.7,
    "cutmix_task": ("grade",),
    "cutmix_feather": 1,
    "views": 2,
    "view_overlap": 0.5,
}


@pytest.mark.parametrize("options", [EVERYTHING, EVERYTHING | {"views": 1}])
def test_with_every_option_hosts_change_nothing(options):
    index = two_classes()
    one = take(index, 5, workers=1, **options)
    for hosts in (2, 4):
        parts = [
            take(index, 5, process_index=i, process_count=hosts, workers=3, **options)
            for i in range(hosts)
        ]
        for whole, *shares in zip(one, *parts, strict=True):
            assert_same(whole, jax.tree.map(lambda *arrays: np.concatenate(arrays), *shares))


def test_with_every_option_resuming_goes_on_bitwise():
    index = two_classes()
    expected = take(index, 9, **EVERYTHING)[6:]
    for left, right in zip(expected, take(index, 3, start_step=6, **EVERYTHING), strict=True):
        assert_same(left, right)


def test_options_that_are_off_change_nothing(index):
    off = {"cutmix": 0.0, "cutmix_task": ("mgmt",), "cutmix_feather": 2, "view_overlap": 0.5}
    for left, right in zip(take(index, 3), take(index, 3, **off), strict=True):
        assert_same(left, right)


def test_cutmix_leaves_order_patches_of_other_examples_and_masks_as_they_are():
    index = two_classes()
    settings = {"foreground": 0.0, "tasks": ("grade",)}
    plain = list(examples(take(index, 10, **settings)))
    mixed = list(examples(take(index, 10, cutmix=0.5, cutmix_task=("grade",), **settings)))
    composites = 0
    for left, right in zip(plain, mixed, strict=True):
        np.testing.assert_array_equal(left["box"], right["box"])
        assert left["case_index"] == right["case_index"]
        if right["targets"]["grade"].max() in (0, 1):
            assert_same(left, right)
        else:
            composites += 1
    assert 5 < composites < 20


def test_a_composite_shows_in_patch_and_whole_volume_and_keeps_unknown_labels_unknown():
    index = two_classes()
    options = {"cutmix": 1.0, "cutmix_task": ("grade",), "sequence_drop": "none", "seed": 1}
    known = foreign_shown = 0
    settings = options | {"tasks": ("grade", "codel_1p19q"), "foreground": 1.0}
    for example in examples(take(index, 20, **settings)):
        case = index.cases[example["case_index"]]
        grade = example["targets"]["grade"]
        if case.case_id in ("unknown", "healthy", "unlabelled"):
            assert grade.max() == (case.case_id != "unknown")
            continue
        assert 0 < grade[0] < 1
        np.testing.assert_allclose(grade.sum(), 1.0, rtol=1e-6)
        assert grade[1] == 0
        # Only the pair of low and high knows both.
        codel = example["targets"]["codel_1p19q"]
        assert example["target_valid"]["codel_1p19q"] == codel.any()
        known += int(codel.any())
        # Noise around -20 is low grade, around 20 high grade: both show, each in its place.
        change = example["whole"] - index.open(int(example["case_index"])).whole
        assert np.abs(change[..., 3]).max() > 2
        where = voxels(example["box"], case.shape)
        shown = np.abs(example["image"][..., 3]) > 10
        stored = index.open(int(example["case_index"])).image[where][..., 3]
        foreign = shown & (np.sign(stored) != np.sign(example["image"][..., 3]))
        foreign_shown += int(foreign.any())
        assert (example["label"][foreign] > 0).all()
        np.testing.assert_array_equal(example["image"][~foreign][:, 3], stored[~foreign])
    assert known
    assert foreign_shown > 10


def test_two_views_show_the_same_place_with_other_sequences(index):
    for example in examples(take(index, 8, views=2)):
        case = index.cases[example["case_index"]]
        for name in ("label", "box"):
            np.testing.assert_array_equal(example[name], example[f"view_{name}"])
        present, other = example["present"], example["view_present"]
        assert (present != other).any()
        least = 2 if len(case.sequences) > 2 else 1
        assert min(present.sum(), other.sum()) >= least
        both = (present > 0) & (other > 0)
        for name in ("image", "whole"):
            first, second = example[name], example[f"view_{name}"]
            np.testing.assert_array_equal(first[..., both], second[..., both])
            assert not first[..., present == 0].any()
            assert not second[..., other == 0].any()
        assert len(np.unique(example["view_keys"], axis=0)) == 2
        jax.random.uniform(jax.random.wrap_key_data(example["view_keys"][0]))


def test_overlapping_views_lie_apart_and_share_their_overlap(index):
    moved = 0
    for example in examples(take(index, 8, views=2, view_overlap=0.5)):
        position = int(example["case_index"])
        shape = index.cases[position].shape
        first, second = voxels(example["box"], shape), voxels(example["view_box"], shape)
        for one, other in zip(first, second, strict=True):
            assert abs(one.start - other.start) <= 4
        moved += first != second
        arrays = index.open(position)
        if arrays.label is not None and index.cases[position].case_id != "small":
            np.testing.assert_array_equal(example["view_label"], arrays.label[second])
    assert moved > 20


def test_nothing_is_kept_of_the_examples_that_were_used():
    label = np.zeros((20, 18, 16), np.uint8)
    label[5:9, 5:9, 5:9] = 2

    def make():
        return arrays_of(label)

    cases = [(entry(f"{i}", make(), grade="24"[i % 2]), make) for i in range(150)]
    index = memory_index(*cases)
    options = {"cutmix": 0.5, "cutmix_task": ("grade",), "workers": 2}
    most = 0
    for _ in islice(train_batches(index, **SETTINGS | options), 60):
        most = max(most, sum(image() is not None for image in index.held))
    assert len(index.opened) >= 240 + 80  # Every example reads anew, composites two cases.
    # Two cases in each of two threads, and slack for what is just being returned.
    assert most <= 12


def test_what_a_case_is_refused_for_is_told_as_it_was():
    def refuse():
        raise UserError("case.array_record: damaged")

    case = arrays_of(None)
    batches = train_batches(memory_index((entry("a", case), refuse)), **SETTINGS)
    with pytest.raises(UserError, match=r"^case.array_record: damaged$"):
        next(batches)


def test_an_example_seen_again_in_a_later_epoch_is_drawn_anew(index):
    boxes = [
        tuple(example["box"].ravel().tolist())
        for example in examples(take(index, 10, foreground=0.0))
        if example["case_index"] == 0
    ]
    assert len(boxes) == 8
    assert len(set(boxes)) > 4


def test_a_patch_is_a_slice_of_its_case(index):
    seen = set()
    for example in examples(take(index, 15)):
        position = int(example["case_index"])
        arrays = index.open(position)
        shape = arrays.image.shape[:3]
        if index.cases[position].case_id == "small":
            continue
        seen.add(position)
        where = voxels(example["box"], shape)
        assert [side.stop - side.start for side in where] == list(PATCH)
        shown = example["present"] > 0
        assert (example["present"] <= arrays.present).all()
        np.testing.assert_array_equal(
            example["image"], np.where(shown, arrays.image[where].astype(np.float32), 0)
        )
        np.testing.assert_array_equal(
            example["whole"], np.where(shown, arrays.whole.astype(np.float32), 0)
        )
        labelled = arrays.label is not None
        assert example["label_valid"] == labelled
        expected = arrays.label[where] if labelled else np.zeros(PATCH)
        np.testing.assert_array_equal(example["label"], expected)
        expected = arrays.whole_label if labelled else np.zeros(index.whole)
        np.testing.assert_array_equal(example["whole_label"], expected)
    assert seen == {0, 2, 3, 4}


def test_a_case_that_is_smaller_than_the_patch_lies_in_zeros(index):
    batches = take(index, 15, sequence_drop="none")
    found = [e for e in examples(batches) if index.cases[e["case_index"]].case_id == "small"]
    arrays = index.open(1)
    assert arrays.image.shape[:3] == (9, 6, 10)
    assert found
    for example in found:
        where = voxels(example["box"], (9, 6, 10))
        assert (where[1].start, where[1].stop) == (-1, 7)
        np.testing.assert_array_equal(
            example["image"][:, 1:7], arrays.image[where[0], :, where[2]].astype(np.float32)
        )
        np.testing.assert_array_equal(example["label"][:, 1:7], arrays.label[where[0], :, where[2]])
        for array in (example["image"], example["label"]):
            assert not array[:, [0, 7]].any()


def test_foreground_one_centres_every_labelled_patch_on_tumour(index):
    with_tumour = {0, 1, 4}
    for example in examples(take(index, 10, foreground=1.0)):
        if int(example["case_index"]) in with_tumour:
            assert (example["label"][3:6, 3:6, 3:6] > 0).any()


def test_targets_are_one_hot_and_unknown_is_not_class_zero(index):
    known = {"a": ([0, 1], [0, 0, 1]), "two": ([0, 0], [1, 0, 0])}
    for example in examples(take(index, 3)):
        idh, grade = known.get(index.cases[example["case_index"]].case_id, ([0, 0], [0, 0, 0]))
        assert example["targets"]["idh"].tolist() == idh
        assert example["targets"]["grade"].tolist() == grade
        assert example["target_valid"]["idh"] == sum(idh)
        assert example["target_valid"]["grade"] == sum(grade)


def test_sequences_that_are_not_shown_are_plain_zero(index):
    for example in examples(take(index, 10)):
        hidden = example["present"] == 0
        for name in ("image", "whole"):
            values = example[name][..., hidden]
            assert not values.any()
            assert not np.signbit(values).any()


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_evaluation_takes_equal_steps_and_yields_every_case_once_and_whole(index, hosts):
    shares = [
        list(evaluation_cases(index, tasks=TASKS, process_index=i, process_count=hosts))
        for i in range(hosts)
    ]
    assert {len(share) for share in shares} == {-(-5 // hosts)}
    for padding in chain(*shares):
        if not padding["case_valid"]:
            assert not padding["label_valid"].any()
            assert not any(valid.any() for valid in padding["target_valid"].values())
    batches = [batch for batch in chain(*shares) if batch["case_valid"]]
    batches.sort(key=lambda batch: batch["case_index"].item())
    assert [batch["case_index"].item() for batch in batches] == [0, 1, 2, 3, 4]
    for position, batch in enumerate(batches):
        arrays = index.open(position)
        np.testing.assert_array_equal(batch["image"][0], arrays.image.astype(np.float32))
        np.testing.assert_array_equal(batch["present"][0], arrays.present)
        np.testing.assert_array_equal(batch["box"][0], [[0, 0, 0], [1, 1, 1]])
        assert batch["label"].shape == (1, *arrays.image.shape[:3])
        assert batch["label_valid"].tolist() == [arrays.label is not None]
    np.testing.assert_array_equal(batches[4]["present"][0], presence(["t1c", "t2f"]))
    assert batches[0]["targets"]["idh"].tolist() == [[0, 1]]


def test_more_hosts_than_cases_still_take_one_step_each(index):
    few = replace(index, cases=index.cases[:2])
    valid = [
        [
            b["case_valid"].item()
            for b in evaluation_cases(few, tasks=(), process_index=i, process_count=3)
        ]
        for i in range(3)
    ]
    assert valid == [[1], [1], [0]]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"foreground": 1.5}, "data.foreground is 1.5"),
        ({"sequence_drop": "some"}, "data.sequence_drop is 'some'"),
        ({"patch": (8, 8)}, r"data.patch is \(8, 8\)"),
        ({"tasks": ("idh", "mood")}, "'mood' is unknown"),
        ({"batch_size": 3, "process_count": 2}, "data.batch_size is 3"),
        ({"cutmix": 1.5}, "data.cutmix is 1.5"),
        ({"cutmix": 0.5, "cutmix_task": ("mgmt",)}, "no two cases .* differ in mgmt"),
        ({"cutmix_feather": -1}, "data.cutmix_feather is -1"),
        ({"balance": ("mood",)}, "data.balance: 'mood' is unknown"),
        ({"balance": ("idh",), "unlabelled_share": 2.0}, "data.unlabelled_share is 2.0"),
        ({"views": 3}, "data.views is 3"),
        ({"view_overlap": 0.0}, "data.view_overlap is 0.0"),
    ],
)
def test_settings_that_do_not_fit_are_named(index, change, told):
    with pytest.raises(UserError, match=told):
        train_batches(index, **SETTINGS | change)


def test_an_empty_split_is_refused(index):
    with pytest.raises(UserError, match="no case to train on"):
        train_batches(index.select("test"), **SETTINGS)


LEAVE_WHILE_READING = """
import sys
from pathlib import Path
from data_pipelines.pipeline import train_batches
from data_pipelines.prepared import read_index

batches = train_batches(
    read_index(Path(sys.argv[1])), seed=0, batch_size=8, patch=(64, 64, 64), foreground=0.0,
    sequence_drop="none", tasks=(),
)
next(batches)
sys.exit(7)
"""


@pytest.mark.multiprocess
def test_a_process_can_end_while_batches_are_being_read(index):
    write_index(index.root, index.cases, spacing_mm=1.0, whole=index.whole)
    command = [sys.executable, "-c", LEAVE_WHILE_READING, str(index.root)]
    assert subprocess.run(command, check=False, timeout=120).returncode == 7
