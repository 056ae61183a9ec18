import numpy as np
import pytest
from scipy.spatial.distance import cdist

from gmmas_jax.metrics import segmentation

SPACING = (1.0, 1.5, 3.0)


def _brute_force(prediction, reference, spacing, tolerance):
    """All pairs of surface voxels, the surface found by looking at the six neighbours in turn."""

    def surface(mask):
        points = []
        padded = np.pad(mask, 1)
        for i, j, k in np.argwhere(mask):
            neighbours = [
                padded[i + 1 + a, j + 1 + b, k + 1 + c]
                for a, b, c in [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
            ]
            if not all(neighbours):
                points.append((i, j, k))
        return np.array(points) * np.array(spacing)

    pairs = cdist(surface(prediction), surface(reference))
    forward, backward = pairs.min(axis=1), pairs.min(axis=0)
    hd95 = max(np.percentile(forward, 95), np.percentile(backward, 95))
    nsd = (np.sum(forward <= tolerance) + np.sum(backward <= tolerance)) / sum(pairs.shape)
    return hd95, nsd


@pytest.mark.parametrize("seed", range(6))
def test_surface_scores_equal_brute_force(seed):
    rng = np.random.default_rng(seed)
    shape = (11, 9, 8)
    grid = np.indices(shape).T
    centre = np.array(shape) / 2
    masks = [
        (np.linalg.norm(grid - centre - rng.normal(size=3), axis=-1) < rng.uniform(2, 4)).T
        ^ (rng.random(shape) < 0.02)  # islands and holes, some at the volume's edge
        for _ in range(2)
    ]
    score = segmentation.score_masks(*masks, spacing=SPACING, tolerance_mm=1.5)
    hd95, nsd = _brute_force(*masks, SPACING, 1.5)
    assert score.hd95 == pytest.approx(hd95, abs=1e-9)
    assert score.nsd == pytest.approx(nsd, abs=1e-12)


def test_two_shifted_plates_by_hand():
    # Two plates one voxel thick, 4 mm apart, are all surface: every distance is 4 mm.
    prediction = np.zeros((8, 6, 6), bool)
    reference = prediction.copy()
    prediction[1], reference[3] = True, True
    score = segmentation.score_masks(prediction, reference, spacing=(2.0, 1.0, 1.0))
    assert (score.dice, score.hd95, score.nsd) == (0.0, 4.0, 0.0)
    score = segmentation.score_masks(
        prediction, reference, spacing=(2.0, 1.0, 1.0), tolerance_mm=4.0
    )
    assert score.nsd == 1.0


def test_hd95_takes_the_worse_direction():
    # The reference's far island is one of 11 surface voxels: over 5 % of its surface, none of ours.
    prediction = np.zeros((30, 3, 3), bool)
    prediction[:10, 0, 0] = True
    reference = prediction.copy()
    reference[29, 0, 0] = True
    score = segmentation.score_masks(prediction, reference, spacing=(1, 1, 1))
    assert score.hd95 == pytest.approx(np.percentile([0] * 10 + [20], 95))
    assert score.hd95 > 5


def test_a_filled_volume_has_a_surface_at_its_edge():
    full = np.ones((4, 4, 4), bool)
    inner = np.zeros_like(full)
    inner[1:3, 1:3, 1:3] = True
    hd95, nsd = _brute_force(full, inner, (1, 1, 1), 1.0)
    score = segmentation.score_masks(full, inner, spacing=(1, 1, 1))
    assert (score.hd95, score.nsd) == (pytest.approx(hd95), pytest.approx(nsd))
    assert score.hd95 > 1


def test_empty_cases_follow_the_named_protocol():
    assert segmentation.PROTOCOL == "gmmas-whole-region-1"
    empty = np.zeros((240, 240, 155), bool)
    one = empty.copy()
    one[120, 120, 77] = True
    spacing = (1.0, 1.0, 1.0)
    assert segmentation.score_masks(empty, empty, spacing=spacing) == segmentation.RegionScore(
        dice=1.0, hd95=0.0, nsd=1.0
    )
    for pair in [(empty, one), (one, empty)]:
        score = segmentation.score_masks(*pair, spacing=spacing)
        assert (score.dice, score.nsd) == (0.0, 0.0)
        assert score.hd95 == pytest.approx(373.13, abs=0.005)
    half = segmentation.score_masks(empty, one, spacing=(0.5, 0.5, 0.5))
    assert half.hd95 == pytest.approx(373.13 / 2, abs=0.005)


def test_a_float32_spacing_just_below_one_still_meets_the_tolerance():
    prediction = np.zeros((6, 4, 4), bool)
    reference = prediction.copy()
    prediction[1:3], reference[2:4] = True, True
    spacing = (float(np.nextafter(np.float32(1), np.float32(2))), 1.0, 1.0)
    assert segmentation.score_masks(prediction, reference, spacing=spacing).nsd == 1.0


def test_regions_are_unions_of_labels():
    reference = np.zeros((6, 5, 4), np.uint8)
    reference[1:5] = 2  # ED, 80 voxels
    reference[2:4] = 1  # NCR, 40 of them
    prediction = reference.copy()
    prediction[2] = 3  # half of the core called enhancing
    scores = segmentation.score_regions(prediction, reference, spacing=(1, 1, 1))
    assert scores["WT"].dice == 1.0
    assert scores["TC"].dice == 1.0
    assert scores["ET"].dice == 0.0
    assert segmentation.dice_regions(prediction, reference) == {
        region: score.dice for region, score in scores.items()
    }
    assert set(
        segmentation.score_regions(prediction, reference, spacing=(1, 1, 1), regions=("RC",))
    ) == {"RC"}


def test_dice_by_hand():
    prediction = np.zeros((3, 3, 3), bool)
    reference = prediction.copy()
    prediction[0, 0, :] = True
    reference[0, :, 0] = True
    assert segmentation.dice_score(prediction, reference) == pytest.approx(2 * 1 / 6)


@pytest.mark.parametrize(
    ("shapes", "spacing"),
    [
        (((3, 3, 3), (3, 3, 4)), (1, 1, 1)),
        (((3, 3), (3, 3)), (1, 1, 1)),
        (((3, 3, 3), (3, 3, 3)), (1, 1)),
        (((3, 3, 3), (3, 3, 3)), (1, 0, 1)),
        (((3, 3, 3), (3, 3, 3)), (1, float("nan"), 1)),
    ],
)
def test_what_cannot_be_compared_is_refused(shapes, spacing):
    with pytest.raises(ValueError, match=r"masks must be|spacing must be"):
        segmentation.score_masks(*(np.ones(s, bool) for s in shapes), spacing=spacing)
