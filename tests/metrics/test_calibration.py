import math

import numpy as np
import pytest

from gmmas_jax.metrics import calibration


def _binary(positive):
    positive = np.asarray(positive, float)
    return np.stack([1 - positive, positive], axis=1)


# Confidences .95 .92 (bin 10), .72 .68 .61 (bins 8, 7, 7); right: yes no, yes yes no.
PROBABILITIES = _binary([0.95, 0.08, 0.72, 0.32, 0.61])
TRUTH = np.array([1, 1, 1, 0, 0])


def test_ece_by_hand():
    # Bin 10: |1/2 - .935| * 2; bin 8: |1 - .72| * 1; bin 7: |1/2 - .645| * 2.
    expected = (2 * 0.435 + 0.28 + 2 * 0.145) / 5
    assert calibration.expected_calibration_error(PROBABILITIES, TRUTH) == pytest.approx(expected)


def test_bins_are_open_below_and_closed_above():
    curve = calibration.reliability(_binary([0.8, 0.9, 0.9000001]), np.array([1, 1, 1]))
    np.testing.assert_array_equal(np.flatnonzero(curve.count), [7, 8, 9])
    assert np.isnan(curve.accuracy[0])
    one = calibration.reliability(_binary([1.0, 0.0]), np.array([1, 0]))
    assert one.count[9] == 2


def test_brier_by_hand():
    expected = (0.05**2 + 0.92**2 + 0.28**2 + 0.32**2 + 0.61**2) / 5
    assert calibration.brier_score(PROBABILITIES, TRUTH) == pytest.approx(expected)
    three = np.array([[0.5, 0.3, 0.2]])
    expected = (0.25 + 0.09 + 0.04) / 2
    assert calibration.brier_score(three, np.array([0])) == pytest.approx(expected)


def test_nll_by_hand_and_without_infinity():
    expected = -np.mean(np.log([0.95, 0.08, 0.72, 0.68, 0.39]))
    assert calibration.negative_log_likelihood(PROBABILITIES, TRUTH) == pytest.approx(expected)
    worst = calibration.negative_log_likelihood(_binary([1.0]), np.array([0]))
    assert worst == pytest.approx(-math.log(1e-7))


def test_a_calibrated_model_has_a_small_ece_and_a_sharpened_one_a_large_one():
    rng = np.random.default_rng(0)
    positive = rng.random(20_000)
    truth = (rng.random(20_000) < positive).astype(int)
    logit = np.log(positive / (1 - positive))
    sharpened = 1 / (1 + np.exp(-3 * logit))
    assert calibration.expected_calibration_error(_binary(positive), truth) < 0.02
    assert calibration.expected_calibration_error(_binary(sharpened), truth) > 0.1


def test_no_case_is_not_defined():
    none, empty = np.zeros((0, 2)), np.zeros(0, int)
    assert calibration.expected_calibration_error(none, empty) is None
    assert calibration.brier_score(none, empty) is None
    assert calibration.negative_log_likelihood(none, empty) is None
