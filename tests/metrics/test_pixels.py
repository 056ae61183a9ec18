"""Accuracies and IoU on matrices that are counted by hand."""

import numpy as np
import pytest

from gmmas_jax.metrics.pixels import confusion, scores


def test_pixels_are_counted_by_class_and_unknown_ones_are_not():
    reference = np.array([[0, 0, 1], [1, 1, -1]])
    prediction = np.array([[0, 1, 1], [1, 0, 1]])
    np.testing.assert_array_equal(confusion(prediction, reference, classes=2), [[1, 1], [1, 2]])


def test_scores_by_hand():
    found = scores(np.array([[90, 10], [5, 15]]))
    assert found["overall_accuracy"] == pytest.approx(105 / 120)
    assert found["mean_accuracy"] == pytest.approx((0.9 + 0.75) / 2)
    assert found["mean_iou"] == pytest.approx((90 / 105 + 15 / 30) / 2)


def test_a_class_that_never_occurs_does_not_count():
    assert scores(np.diag([4, 0]))["mean_iou"] == 1
    missed = scores(np.array([[4, 2], [0, 0]]))
    assert missed["mean_accuracy"] == pytest.approx(4 / 6)
    assert missed["mean_iou"] == pytest.approx((4 / 6 + 0) / 2)


def test_nothing_is_no_score():
    with pytest.raises(ValueError, match="no pixel"):
        scores(np.zeros((2, 2), np.int64))
