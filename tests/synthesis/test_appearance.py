"""The numbers of `benchmarks.appearance` on constructed cases."""

import numpy as np
import pytest

from benchmarks.appearance import OUTLINE_MM, appearance, page, summary
from gmmas_jax.cases.sequences import SEQUENCES

T2F = SEQUENCES.index("t2f")


def case(*, oedema=5.0, fade=False):
    """A block of brain, normal on every sequence, with oedema in one half and no core."""
    generator = np.random.default_rng(0)
    image = 300 + 20 * generator.standard_normal((40, 30, 30, 4))
    label = np.zeros((40, 30, 30), np.uint8)
    label[:20] = 2
    image[:20] += 20 * oedema
    if fade:
        image[18:22, ..., T2F] = 300 + 20 * oedema / 4
    return image, label


def test_signal_is_told_in_units_of_the_healthy_brain():
    found = appearance(*case(oedema=5.0))
    for sequence in SEQUENCES:
        median, spread = found[sequence]["ED"]
        assert median == pytest.approx(5.0, abs=0.1)
        assert spread == pytest.approx(1.0, abs=0.05)
        assert found[sequence]["NCR"] is None


def test_another_scale_of_the_scanner_changes_nothing():
    image, label = case()
    one, other = appearance(image, label), appearance(7 * image - 100, label)
    for sequence in SEQUENCES:
        np.testing.assert_allclose(one[sequence]["ED"], other[sequence]["ED"])


def test_the_fall_across_the_outline_is_found():
    sharp, fading = (appearance(*case(fade=fade))["t2f"]["outline"] for fade in (False, True))
    expected = [1.0 if edge > 0 else 0.0 for edge in OUTLINE_MM]
    np.testing.assert_allclose(sharp, expected, atol=0.05)
    inner = OUTLINE_MM.index(2)
    assert fading[inner] == pytest.approx(0.25, abs=0.05)
    assert fading[OUTLINE_MM.index(6)] == pytest.approx(1.0, abs=0.05)


def test_the_networks_units_are_the_brains_and_layers_begin_at_its_border():
    image, label = case(oedema=4.0)
    empty = np.zeros((4, 30, 30, 4))
    image, label = np.concatenate([image, empty]), np.concatenate([label, empty[..., 0]])
    border = np.ones((40, 30, 30), bool)
    border[:, 1:-1, 1:-1] = False
    border &= label[:40] == 0
    image[:40][border, T2F] = 100
    found = appearance(image.astype(np.float32), label)["t2f"]["network"]
    brain = image[:40, ..., T2F]
    assert found["ED"] == pytest.approx((380 - brain.mean()) / brain.std(), abs=0.05)
    dark = (100 - brain.mean()) / brain.std()
    assert found["healthy, 2 %"] == pytest.approx(dark, abs=0.05)
    assert found["layer 1"] == pytest.approx(dark, abs=0.05)
    assert found["layer 2"] == pytest.approx((300 - brain.mean()) / brain.std(), abs=0.05)
    assert found["NCR"] is None


def test_cases_without_a_tissue_do_not_count_for_it():
    image, label = case()
    label[:3] = 1
    both = summary([appearance(image, label), appearance(*case(oedema=3.0))])["t2w"]
    assert (both["NCR"]["cases"], both["ED"]["cases"], both["ET"]["cases"]) == (1, 2, 0)
    assert both["ED"]["median"] == pytest.approx(4.0, abs=0.1)
    assert both["ED"]["between"] == pytest.approx(1.0, abs=0.1)
    result = {"date": "2026-01-01", "real_cases": 2, "generated_cases": 2}
    text = page(result | dict.fromkeys(("real", "generated"), summary([appearance(*case())])))
    assert "| t2w | ED | 5.0" in text
    assert "| t2w | ET | – | – |" in text
