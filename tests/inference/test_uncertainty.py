"""Mutual information against values that can be worked out by hand."""

import numpy as np
import pytest
from scipy.special import softmax as reference_softmax

from gmmas_jax.inference.uncertainty import mutual_information, softmax


def test_passes_that_agree_have_no_epistemic_uncertainty():
    assert mutual_information(np.tile([0.5, 0.5], (8, 1))) == pytest.approx(0, abs=1e-12)
    assert mutual_information(np.tile([1.0, 0.0, 0.0], (8, 1))) == 0


def test_passes_that_are_sure_of_the_opposite_have_the_most():
    assert mutual_information(np.array([[1.0, 0.0], [0.0, 1.0]])) == pytest.approx(np.log(2))
    assert mutual_information(np.eye(3)) == pytest.approx(np.log(3))


def test_softmax_is_scipys_and_stays_finite():
    logits = np.array([[1.0, -2.0, 0.5], [1000.0, 0.0, -1000.0]], np.float32)
    assert softmax(logits).dtype == np.float32
    np.testing.assert_allclose(softmax(logits), reference_softmax(logits, axis=-1), rtol=1e-6)
