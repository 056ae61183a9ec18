"""Every repair on a mask made for it; and that nothing happens unasked."""

import dataclasses

import numpy as np
import pytest

from gmmas_jax.errors import UserError
from gmmas_jax.inference.postprocessing import Cleaning, clean, clean_label

NCR, ED, ET, RC = 1, 2, 3, 4
VOXEL_ML = 0.001


def probabilities_of(label: np.ndarray) -> np.ndarray:
    return np.eye(5, dtype=np.float32)[label]


def empty() -> np.ndarray:
    return np.zeros((14, 14, 14), np.uint8)


def repaired(label: np.ndarray, **settings) -> np.ndarray:
    """Returns the repaired map; the argument stays as it was."""
    before = label.copy()
    result = clean_label(label, Cleaning(**settings), certain=label > 0, voxel_ml=VOXEL_ML)
    np.testing.assert_array_equal(label, before)
    return result


def tumour() -> np.ndarray:
    """Returns a tumour of all labels in the middle: oedema, an enhancing shell, necrosis."""
    label = empty()
    label[3:11, 3:11, 3:11] = ED
    label[4:9, 4:9, 4:9] = ET
    label[5:8, 5:8, 5:8] = NCR
    return label


def everything() -> Cleaning:
    return Cleaning(
        fill_core=True,
        fill_tumour=True,
        min_enhancing_ml=0.005,
        min_enhancing_island_ml=0.003,
        enhancing_touches_core=True,
        min_core_island_ml=0.003,
        min_certain_ml=0.01,
        min_island_ml=0.01,
    )


def test_nothing_is_repaired_unasked():
    label = np.random.default_rng(0).integers(0, 5, (14, 14, 14)).astype(np.uint8)
    np.testing.assert_array_equal(repaired(label), label)


@pytest.mark.parametrize("label", [empty(), tumour()], ids=["healthy", "tumour"])
def test_all_repairs_leave_a_sound_outline_alone(label: np.ndarray):
    found = clean_label(label, everything(), certain=label > 0, voxel_ml=VOXEL_ML)
    np.testing.assert_array_equal(found, label)


def test_pieces_that_are_doubtful_all_through_become_background_the_largest_too():
    label = empty()
    label[1:6, 1:6, 1:6] = ED  # the larger piece, doubtful but for 7 voxels
    label[8:11, 8:11, 8:11] = NCR  # 27 voxels, certain in 8
    certain = np.zeros(label.shape, bool)
    certain[1, 1, 1:6] = certain[1, 2, 1:3] = True
    certain[8:10, 8:10, 8:10] = True
    doubtful = 0.9 * probabilities_of(label) + 0.1 * probabilities_of(empty())
    probabilities = np.where(certain[..., None], probabilities_of(label), doubtful)
    cleaned = label.copy()
    clean(probabilities, cleaned, Cleaning(min_certain_ml=0.008), voxel_ml=VOXEL_ML)
    expected = label.copy()
    expected[:6] = 0
    np.testing.assert_array_equal(cleaned, expected)


def test_small_pieces_become_background_and_large_ones_stay():
    label = empty()
    label[1:5, 1:5, 1:5] = ED  # 64 voxels
    label[2, 2, 2] = ET  # inside of it, another class of the same piece
    label[5, 5, 5] = NCR  # touches by a corner
    label[9:11, 9:11, 9:11] = NCR  # 8 voxels apart
    expected = label.copy()
    expected[9:11, 9:11, 9:11] = 0
    np.testing.assert_array_equal(repaired(label, min_island_ml=0.009), expected)
    # A piece of exactly the least size stays.
    np.testing.assert_array_equal(repaired(label, min_island_ml=0.008), label)


def test_the_largest_piece_stays_however_small():
    label = empty()
    label[0, 0, 0] = NCR
    label[3:5, 3, 3] = NCR
    result = repaired(label, min_island_ml=0.1, min_core_island_ml=0.1)
    assert (result == NCR).sum() == 2
    assert result[0, 0, 0] == 0


def test_a_thin_ring_is_filled_as_core():
    label = empty()
    label[2:12, 2:12, 2:12] = ED
    label[4:9, 4:9, 4:9] = ET
    label[5:8, 5:8, 5:8] = ED
    label[6, 6, 6] = 0
    result = repaired(label, fill_core=True)
    assert (result[5:8, 5:8, 5:8] == NCR).all()
    label[5:8, 5:8, 5:8] = result[5:8, 5:8, 5:8]
    np.testing.assert_array_equal(result, label)


def test_a_ring_with_an_opening_is_not_filled():
    label = tumour()
    label[5:8, 5:8, 5:8] = ED
    label[6, 6, 8:] = 0
    np.testing.assert_array_equal(repaired(label, fill_core=True), label)


def test_a_cavity_inside_of_the_core_stays_a_cavity():
    label = tumour()
    label[6, 6, 6] = RC
    np.testing.assert_array_equal(repaired(label, fill_core=True, fill_tumour=True), label)


def test_a_hole_in_the_oedema_is_filled_as_oedema():
    label = tumour()
    label[9, 9, 9] = 0  # within the oedema
    label[10, 10, 10] = 0  # at its corner, open to the outside
    expected = label.copy()
    expected[9, 9, 9] = ED
    np.testing.assert_array_equal(repaired(label, fill_tumour=True), expected)


def test_too_little_enhancing_tumour_is_none():
    label = tumour()
    volume = np.count_nonzero(label == ET) * VOXEL_ML
    np.testing.assert_array_equal(repaired(label, min_enhancing_ml=volume), label)
    result = repaired(label, min_enhancing_ml=volume + VOXEL_ML / 2)
    np.testing.assert_array_equal(result, np.where(label == ET, NCR, label))


def test_small_pieces_of_enhancement_become_what_they_lie_in():
    label = tumour()
    label[6, 6, 6] = ET  # in necrosis
    label[10, 10, 10] = ET  # in oedema
    label[1, 1, 1] = ET  # in nothing
    expected = label.copy()
    expected[6, 6, 6], expected[10, 10, 10], expected[1, 1, 1] = NCR, ED, 0
    np.testing.assert_array_equal(repaired(label, min_enhancing_island_ml=0.002), expected)
    np.testing.assert_array_equal(repaired(label, min_enhancing_island_ml=0.001), label)


def test_enhancement_without_necrosis_beside_it_is_dropped():
    label = tumour()
    label[1:3, 1:3, 12] = ET  # a vessel, 4 voxels
    label[10, 10, 9:11] = ET  # a vessel in the oedema
    label[6, 6, 6] = ET  # in necrosis: stays
    expected = label.copy()
    expected[1:3, 1:3, 12], expected[10, 10, 9:11] = 0, ED
    np.testing.assert_array_equal(repaired(label, enhancing_touches_core=True), expected)


def test_a_solid_enhancing_tumour_needs_no_necrosis():
    label = empty()
    label[4:8, 4:8, 4:8] = ET
    np.testing.assert_array_equal(repaired(label, enhancing_touches_core=True), label)
    alone = label.copy()
    label[11, 11, 11] = ET  # a vessel
    settings = {"enhancing_touches_core": True, "min_enhancing_island_ml": 0.1}
    np.testing.assert_array_equal(repaired(label, **settings), alone)


def test_a_piece_between_necrosis_and_oedema_becomes_necrosis():
    label = tumour()
    label[10, 9:11, 9:11] = NCR
    label[10, 10, 10] = ET
    expected = label.copy()
    expected[10, 10, 10] = NCR
    np.testing.assert_array_equal(repaired(label, min_enhancing_island_ml=0.002), expected)


def test_small_pieces_of_core_become_oedema():
    label = tumour()
    label[10, 10, 9:11] = NCR, ET
    expected = label.copy()
    expected[10, 10, 9:11] = ED
    np.testing.assert_array_equal(repaired(label, min_core_island_ml=0.003), expected)


def test_tumour_at_the_border_of_the_volume_is_repaired_too():
    label = empty()
    label[:4, :4, :4] = ED
    label[-1, -1, -1] = ET
    expected = label.copy()
    expected[-1, -1, -1] = 0
    for settings in ({"min_island_ml": 0.01}, {"min_core_island_ml": 0.01}):
        result = repaired(label, **settings)
        np.testing.assert_array_equal(result, expected if "min_island_ml" in settings else label)


def test_probabilities_follow_the_label():
    label = tumour()
    label[1, 1, 1] = ET
    found = 0.9 * probabilities_of(label) + 0.02
    untouched = found.copy()
    clean(found, label, Cleaning(min_island_ml=0.01), voxel_ml=VOXEL_ML)
    np.testing.assert_array_equal(found.argmax(axis=-1), label)
    np.testing.assert_array_equal(found[1, 1, 1], [1, 0, 0, 0, 0])
    found[1, 1, 1] = untouched[1, 1, 1]
    np.testing.assert_array_equal(found, untouched)


def test_impossible_settings_are_told():
    with pytest.raises(UserError, match=r"inference\.min_core_island_ml is -1"):
        Cleaning(min_core_island_ml=-1)
    with pytest.raises(UserError, match=r"inference\.fill_core is 2; expected true or false"):
        Cleaning(fill_core=2)


def test_settings_are_fields_of_the_config():
    from gmmas_jax.config import base_config, to_dict
    from gmmas_jax.inference.settings import InferenceSettings

    section = to_dict(base_config().inference)
    assert InferenceSettings.from_config(section).cleaning == Cleaning()
    assert set(Cleaning.names()) <= set(section)
    settings = dataclasses.asdict(everything())
    assert InferenceSettings.from_config(section | settings).cleaning == everything()
