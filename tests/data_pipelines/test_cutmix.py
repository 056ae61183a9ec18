"""Tumor-CutMix against its rules: the plane, no holes, labels, the whole volume, pairing."""

from dataclasses import replace

import numpy as np
import pytest

from data_pipelines.composite_case import Mixer, paste, with_composite
from data_pipelines.cutmix import Partners, combine, composite_voxels, tumour_voxels
from data_pipelines.examples import Targets
from data_pipelines.sampling import example_generator
from gmmas_jax.cases.prepare import whole_label, whole_volume
from gmmas_jax.errors import UserError
from tests.data_pipelines.memory_cases import SHAPE, WHOLE, arrays_of, blob, entry, two_classes

TASKS = ("grade", "idh", "codel_1p19q")


@pytest.fixture(name="index")
def _index():
    return two_classes()


def pair(index, first: int, second: int):
    """Returns arrays and voxels of two cases of the index."""
    return tuple(
        (index.open(i), tumour_voxels(index.cases[i], index.open(i))) for i in (first, second)
    )


def composites(index, first: int, second: int, count: int = 40, **options):
    """Yields composites of one pair."""
    for counter in range(count):
        generator = example_generator(0, counter, "cutmix")
        yield combine(generator, *pair(index, first, second), **options)


def placed(arrays, composite):
    """Returns image and label of the whole case with the composite in its place."""
    image, label = np.array(arrays.image), np.array(arrays.label)
    image[composite.box], label[composite.box] = composite.image, composite.label
    return image, label


@pytest.mark.parametrize(("first", "second"), [(0, 2), (2, 0), (1, 3), (3, 1)])
def test_every_voxel_is_of_one_of_the_two_and_there_is_no_hole(index, first, second):
    arrays = index.open(first)
    for composite in composites(index, first, second):
        image, label = placed(arrays, composite)
        pasted = np.zeros(SHAPE, bool)
        pasted[composite.box] = composite.pasted
        # The two cases are noise around -20 and 20: each voxel shows where it comes from.
        shown = arrays.present[3] * index.open(second).present[3] > 0
        assert shown
        assert (np.sign(image[pasted][:, 3]) == np.sign(index.open(second).image[9, 9, 9, 3])).all()
        np.testing.assert_array_equal(image[~pasted], arrays.image[~pasted])
        np.testing.assert_array_equal(label[~pasted], arrays.label[~pasted])
        assert (label[pasted] > 0).all()
        assert (label[arrays.label > 0] > 0).all()


def test_the_plane_leaves_three_to_seven_tenths_of_the_first_tumour(index):
    parts, sides = [], set()
    for composite in composites(index, 0, 1, 200):
        tumour = index.open(0).label[composite.box] > 0
        # The side that is given away is the half of the box that holds all that was pasted.
        found = []
        for axis in range(3):
            others = tuple(a for a in range(3) if a != axis)
            where = np.flatnonzero(composite.pasted.any(axis=others))
            counts = tumour.sum(axis=others)
            if where[0] > 0:
                found.append((counts[: where[0]].sum() / tumour.sum(), (axis, "high")))
            if where[-1] + 1 < len(counts):
                found.append((counts[where[-1] + 1 :].sum() / tumour.sum(), (axis, "low")))
        share, side = max(found)
        parts.append(share)
        sides.add(side)
    # A slice of these small tumours is up to 0.15 of them.
    assert 0.2 < min(parts) < 0.4
    assert 0.6 < max(parts) < 0.8
    assert len(sides) == 6


def test_the_part_is_met_on_either_side_of_a_lopsided_tumour():
    # A wedge, all of whose slices differ, and a cube that covers all that is given away.
    places = np.indices(SHAPE).sum(axis=0)
    wedge = np.where((places > 6) & (places < 18), 2, 0).astype(np.uint8)
    cube = np.zeros(SHAPE, np.uint8)
    cube[5:9, 5:9, 5:9] = 3
    wedge[[0, -1]] = wedge[:, [0, -1]] = 0
    wedge[:, :, [0, -1]] = 0
    cases = [(a, tumour_voxels(entry("x", a), a)) for a in (arrays_of(wedge), arrays_of(cube))]
    for counter in range(100):
        generator = example_generator(0, counter, "cutmix")
        part = example_generator(0, counter, "cutmix").uniform(0.3, 0.7)
        composite = combine(generator, *cases)
        tumour = wedge[composite.box] > 0
        kept = (tumour & ~composite.pasted).sum() / tumour.sum()
        assert kept == pytest.approx(part, abs=0.07)


def test_a_label_is_taken_from_the_middle_of_what_a_voxel_covers():
    small, large = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    small[6:10, 6:10, 6:10] = 2
    codes = np.random.default_rng(0).integers(1, 4, (12, 12, 12)).astype(np.uint8)
    large[3:15, 3:15, 3:15] = codes
    cases = [(a, tumour_voxels(entry("x", a), a)) for a in (arrays_of(small), arrays_of(large))]
    composite = combine(example_generator(0, 0, "cutmix"), *cases)
    middle = codes[1::3, 1::3, 1::3]
    np.testing.assert_array_equal(composite.label[composite.pasted], middle[composite.pasted])


def test_the_share_counts_the_final_tumour_voxels(index):
    for first, second in [(0, 2), (2, 0), (1, 3)]:
        for composite in composites(index, first, second, 10):
            tumour = composite.label > 0
            kept = np.count_nonzero(tumour & ~composite.pasted)
            assert composite.share == kept / np.count_nonzero(tumour)
            assert 0 < composite.share < 1


def test_the_second_label_is_its_own_stretched_to_the_box(index):
    # Both boxes alike: what is pasted is then exactly the second case's box.
    label = np.zeros(SHAPE, np.uint8)
    label[4:12, 4:12, 4:12] = 2
    first, other = (
        arrays_of(label, seed=1),
        arrays_of(np.roll(label, 3, axis=0) * 0 + label, seed=2),
    )
    codes = np.array(label)
    codes[4:12, 4:12, 4:12] = np.random.default_rng(0).integers(1, 4, (8, 8, 8))
    other = arrays_of(np.roll(codes, (3, 2, 1), axis=(0, 1, 2)), seed=2)
    cases = [(a, tumour_voxels(entry("x", a), a)) for a in (first, other)]
    composite = combine(example_generator(0, 0, "cutmix"), *cases)
    inner = np.s_[7:15, 6:14, 5:13]
    where = composite.pasted
    assert 0 < where.sum() < where.size
    np.testing.assert_array_equal(composite.label[where], other.label[inner][where])
    np.testing.assert_array_equal(composite.image[where], other.image[inner][where])


def test_nothing_is_put_outside_the_first_brain(index):
    first = index.open(0)
    image = np.array(first.image)
    image[:, :, :8] = 0
    bare = replace(first, image=image)
    voxels = tumour_voxels(index.cases[0], bare)
    for counter in range(20):
        composite = combine(
            example_generator(0, counter, "cutmix"), (bare, voxels), pair(index, 0, 3)[1]
        )
        if composite is not None:
            assert not placed(bare, composite)[0][:, :, :8].any()


def test_feathering_blends_the_image_and_not_the_label(index):
    for sharp, soft in zip(
        composites(index, 0, 3, 10), composites(index, 0, 3, 10, feather=2), strict=True
    ):
        np.testing.assert_array_equal(sharp.label, soft.label)
        np.testing.assert_array_equal(sharp.image[~sharp.pasted], soft.image[~sharp.pasted])
        values = soft.image[soft.pasted][:, 3].astype(float)
        # Of -20 and 20, a third, two thirds, or all of the way.
        nearest = np.array([-20 + 40 / 3, -20 + 80 / 3, 20])
        assert np.abs(values[:, None] - nearest).min(axis=1).max() < 6
        assert (np.abs(values + 20 - 40 / 3) < 6).any()


def test_a_cavity_is_neither_pasted_nor_counted():
    cavity = blob(SHAPE, (9, 9, 8), 5.0, code_in=4)
    arrays = arrays_of(cavity, seed=1)
    other = arrays_of(blob(SHAPE, (10, 9, 8), 5.0, code_in=4), seed=2)
    cases = [(a, tumour_voxels(entry("x", a), a)) for a in (arrays, other)]
    assert set(cases[0][1]) == {2, 3, 4}
    composite = combine(example_generator(0, 1, "cutmix"), *cases)
    assert not (composite.label[composite.pasted] == 4).any()
    tumour = np.isin(composite.label, (1, 2, 3))
    assert composite.share == np.count_nonzero(tumour & ~composite.pasted) / tumour.sum()
    far = np.array(cavity)
    far[1, 1, 1] = 4
    voxels = tumour_voxels(entry("x", arrays_of(far)), arrays_of(far))
    _, label = placed(replace(arrays, label=far), composite)
    found = composite_voxels(composite, voxels, SHAPE)
    for code, flat in found.items():
        np.testing.assert_array_equal(np.sort(flat), np.flatnonzero(label == code))


def test_a_tumour_of_one_voxel_is_not_cut():
    label = np.zeros(SHAPE, np.uint8)
    label[5, 5, 5] = 3
    tiny, other = arrays_of(label), arrays_of(blob(SHAPE, (9, 9, 8), 5.0))
    cases = [(a, tumour_voxels(entry("x", a), a)) for a in (tiny, other)]
    assert combine(example_generator(0, 0, "cutmix"), *cases) is None
    # The other way round it is pasted, stretched to the first tumour's size.
    assert combine(example_generator(0, 0, "cutmix"), *cases[::-1]).pasted.any()


@pytest.mark.parametrize("whole", [WHOLE, SHAPE, (40, 5, 16)])
def test_the_whole_volume_is_that_of_the_composite(index, whole):
    case = index.open(0)
    arrays = replace(
        case,
        whole=whole_volume(case.image.astype(np.float32), whole).astype(np.float16),
        whole_label=whole_label(case.label, whole),
    )
    (_, voxels), (partner, others) = pair(index, 0, 2)
    for counter in range(5):
        generator = example_generator(0, counter, "cutmix")
        composite = combine(generator, (arrays, voxels), (partner, others))
        mixed = with_composite(arrays, voxels, composite, partner=partner)
        image, label = placed(arrays, composite)
        expected = whole_volume(image.astype(np.float32), whole).astype(np.float16)
        assert (np.abs(expected - arrays.whole) > 1).any()
        np.testing.assert_allclose(mixed.whole, expected, rtol=2e-3, atol=0.02)
        assert (mixed.whole_label != whole_label(label, whole)).mean() < 1e-3
        assert (mixed.whole_label != arrays.whole_label).any()
        for flat in mixed.foreground:
            assert len(np.unique(label.ravel()[flat])) == 1
        assert sum(len(flat) for flat in mixed.foreground) == np.count_nonzero(label)


@pytest.mark.parametrize("start", [(0, 0, 0), (6, 5, 4), (-3, -2, 12), (19, 0, 0)])
def test_a_composite_is_pasted_as_far_as_the_patch_reaches(start):
    volume = np.zeros((40, 40, 40), int)
    box = (slice(5, 12), slice(4, 9), slice(6, 16))
    values = np.arange(1, 7 * 5 * 10 + 1).reshape(7, 5, 10)
    volume[box] = values
    patch = np.zeros((8, 9, 10), int)
    paste(patch, start, box, values)
    padded = np.pad(volume, 10)
    where = tuple(slice(s + 10, s + 10 + n) for s, n in zip(start, patch.shape, strict=True))
    np.testing.assert_array_equal(patch, padded[where])


def test_partners_are_of_another_class_with_tumour_and_a_sequence_in_common(index):
    partners = Partners(index.cases, ("grade",))
    found = {i: partners.of(i).tolist() for i in range(len(index.cases))}
    assert found == {0: [2, 3], 1: [2, 3], 2: [0, 1], 3: [0, 1], 4: [], 5: [], 6: []}
    alone = [
        replace(case, sequences=("t1n",)) if case.case_id == "low" else case for case in index.cases
    ]
    assert Partners(alone, ("grade",)).of(0).tolist() == [2]


def test_the_first_task_that_both_know_decides(index):
    partners = Partners(index.cases, ("codel_1p19q", "idh"))
    # low and high by 1p/19q; the others lack it, and are compared by IDH.
    assert partners.of(0).tolist() == [2]
    assert partners.of(1).tolist() == [2]
    assert partners.of(2).tolist() == [0, 1, 3, 4]
    # Alike in the first, they are no pair, though they differ in the second.
    alike = replace(index.cases[3], tasks={"codel_1p19q": "intact", "idh": "mutant"})
    partners = Partners([*index.cases[:3], alike], ("codel_1p19q", "idh"))
    assert partners.of(2).tolist() == [0, 1]
    assert Partners(index.cases, ("histology", "grade")).of(0).tolist() == [2, 3]


def test_pairs_that_cannot_be_are_refused(index):
    held_out = [replace(index.cases[0], split="test"), *index.cases[1:]]
    with pytest.raises(UserError, match=r"low is of the split that is held out"):
        Partners(held_out, ("grade",))
    with pytest.raises(UserError, match="no two cases with a tumour mask differ in mgmt"):
        Partners(index.cases, ("mgmt",))
    with pytest.raises(UserError, match="'mood' is unknown"):
        Partners(index.cases, ("mood",))


def test_labels_are_mixed_where_both_are_known_and_else_unknown(index):
    targets = Targets(index, TASKS)
    mixed = targets.mixed(0, 2, 0.25)
    np.testing.assert_allclose(mixed["targets"]["grade"], [0.25, 0, 0.75])
    np.testing.assert_allclose(mixed["targets"]["idh"], [0.75, 0.25])
    assert mixed["targets"]["grade"].dtype == np.float32
    assert all(valid == 1 for valid in mixed["target_valid"].values())
    mixed = targets.mixed(0, 3, 0.25)
    assert mixed["target_valid"]["codel_1p19q"] == 0
    assert mixed["targets"]["codel_1p19q"].tolist() == [0, 0]
    np.testing.assert_allclose(mixed["targets"]["idh"], [0, 1])


def test_draws_follow_from_seed_and_counter(index):
    def drawn(seed: int, **options):
        mixer = Mixer(
            index, **{"seed": seed, "share": 0.5, "tasks": ("grade",), "feather": 0} | options
        )
        return [mixer.draw(counter, counter % 4, index.open(counter % 4)) for counter in range(200)]

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert [m and (m.partner, m.composite.share) for m in first] == [
        m and (m.partner, m.composite.share) for m in again
    ]
    assert [m is None for m in first] != [m is None for m in other]
    assert 70 < sum(m is not None for m in first) < 130
    assert {m.partner for m in first if m} == {0, 1, 2, 3}
    assert all(m is None for m in drawn(0, share=0.0, tasks=("mgmt",)))
    # A composite of two shows what both show.
    sequences = {(i % 4, m.partner): m.arrays.present.tolist() for i, m in enumerate(first) if m}
    assert sequences[0, 3] == sequences[3, 0] == [0, 1, 1, 1]
    assert sequences[0, 2] == [1, 1, 1, 1]
