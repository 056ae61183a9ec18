import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from gmmas_jax.metrics import bootstrap, classification


def _binary(positive):
    positive = np.asarray(positive, float)
    return np.stack([1 - positive, positive], axis=1)


def _score(probabilities, truth, classes=("no", "yes"), repeats=200):
    return classification.score_classification(
        probabilities,
        np.asarray(truth),
        classes=classes,
        rng=bootstrap.stream(0, "test"),
        repeats=repeats,
    )


def test_binary_scores_by_hand():
    # Positives .9 .8 .3, negatives .7 .4 .2 .1: 10 of the 12 pairs are in order.
    score = _score(_binary([0.9, 0.8, 0.3, 0.7, 0.4, 0.2, 0.1]), [1, 1, 1, 0, 0, 0, 0])
    assert score.auc == pytest.approx(10 / 12)
    assert score.accuracy == pytest.approx(5 / 7)
    assert score.majority_accuracy == pytest.approx(4 / 7)
    assert score.sensitivity == pytest.approx(2 / 3)
    assert score.specificity == pytest.approx(3 / 4)
    assert score.balanced_accuracy == pytest.approx((2 / 3 + 3 / 4) / 2)
    assert (score.n, score.n_per_class) == (7, {"no": 4, "yes": 3})
    low, high = score.auc_ci95
    assert 0 <= low < score.auc < high <= 1


def test_three_classes_by_hand():
    probabilities = np.array(
        [[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.1, 0.7, 0.2], [0.3, 0.4, 0.3], [0.2, 0.2, 0.6]]
    )
    truth = [0, 0, 1, 1, 2]
    score = _score(probabilities, truth, classes=("a", "b", "c"))
    # One against the rest: a .8 .2 vs .1 .3 .2 -> 4.5/6; b .7 .4 vs .1 .5 .2 -> 5/6; c 4/4.
    assert score.auc == pytest.approx((4.5 / 6 + 5 / 6 + 1) / 3)
    assert score.accuracy == pytest.approx(4 / 5)
    assert score.majority_accuracy == pytest.approx(2 / 5)
    assert score.balanced_accuracy == pytest.approx((1 / 2 + 1 + 1) / 3)
    assert score.per_class["b"] == {"sensitivity": 1.0, "specificity": pytest.approx(2 / 3)}
    assert score.specificity == pytest.approx((1 + 2 / 3 + 1) / 3)


def test_one_class_is_not_defined():
    score = _score(_binary([0.9, 0.4]), [1, 1])
    assert score.auc is None
    assert score.auc_ci95 is None
    assert score.balanced_accuracy is None
    assert score.specificity is None
    assert (score.sensitivity, score.accuracy, score.majority_accuracy) == (0.5, 0.5, 1.0)


def test_no_case_is_not_defined():
    score = _score(np.zeros((0, 2)), np.zeros(0, int))
    assert score.n == 0
    assert score.accuracy is None
    assert score.majority_accuracy is None


def test_an_absent_class_of_three_is_left_out_of_the_mean():
    probabilities = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.5, 0.4, 0.1]])
    score = _score(probabilities, [0, 1, 0], classes=("a", "b", "c"))
    assert score.auc == 1.0
    assert score.per_class["c"] == {"sensitivity": None, "specificity": 1.0}


def test_missing_labels_are_left_out():
    probabilities, truth = classification.labelled(
        [np.array([0.3, 0.7]), np.array([0.9, 0.1]), np.array([0.5, 0.5])],
        [1, None, 0],
        classes=("no", "yes"),
    )
    np.testing.assert_array_equal(truth, [1, 0])
    np.testing.assert_allclose(probabilities, [[0.3, 0.7], [0.5, 0.5]])


@pytest.mark.parametrize(
    ("row", "target"),
    [
        ([0.3, 0.3], 0),
        ([math.nan, 1.0], 0),
        ([1.0], 0),
        ([0.5, 0.5], 2),
        ([1.5, -0.5], 0),
        ([0.5, 0.5], -1),
    ],
)
def test_improper_probabilities_are_refused(row, target):
    with pytest.raises(ValueError, match=r"probabilities that sum to 1|class index"):
        classification.labelled([np.array(row)], [target], classes=("no", "yes"))


def test_bootstrap_replicates_equal_scikit_learn():
    rng = np.random.default_rng(3)
    truth = np.array([0] * 9 + [1] * 6)
    scores = np.round(rng.random((5, 15)), 1)  # rounded: ties
    ours = bootstrap._rank_auc(scores, truth == 1)
    np.testing.assert_allclose(ours, [roc_auc_score(truth, row) for row in scores])


def test_intervals_are_seeded_and_independent_of_other_streams():
    probabilities, truth = _binary(np.linspace(0.1, 0.9, 20)), np.arange(20) % 3 == 0
    first, again = (_score(probabilities, truth.astype(int)).auc_ci95 for _ in range(2))
    assert first == again
    other = bootstrap.auc_interval(
        probabilities[:, 1:], truth.astype(int), rng=bootstrap.stream(0, "other"), repeats=200
    )
    assert other != first


def test_a_useless_score_has_an_interval_around_one_half():
    rng = np.random.default_rng(0)
    score = _score(_binary(rng.random(80)), rng.integers(0, 2, 80), repeats=1000)
    assert score.auc_ci95[0] < 0.5 < score.auc_ci95[1]


def test_the_interval_of_a_mean_is_two_standard_errors_to_each_side():
    values = np.random.default_rng(1).normal(5, 2, 100)
    standard_error = values.std() / 10
    interval = bootstrap.mean_interval(values, rng=bootstrap.stream(0, "mean"), repeats=4000)
    expected = (values.mean() - 1.96 * standard_error, values.mean() + 1.96 * standard_error)
    assert interval == pytest.approx(expected, abs=0.15 * standard_error)
    assert bootstrap.mean_interval(values[:1], rng=bootstrap.stream(0, "mean")) is None


def test_roc_points():
    false_positive, true_positive = classification.roc_points(
        np.array([0.9, 0.1]), np.array([True, False])
    )
    assert (false_positive[-1], true_positive[-1]) == (1, 1)
    assert np.trapezoid(true_positive, false_positive) == 1
    assert classification.roc_points(np.array([0.9, 0.1]), np.array([True, True])) is None
