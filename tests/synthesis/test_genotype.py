"""How often each type is drawn, and that its numbers lie in its ranges."""

import jax
import numpy as np
import pytest

from gmmas_jax.synthesis.genotype import CHANCES, GRADE_SHARES, RANGES, SHARES, draw_genotype

N = 4000


@pytest.fixture(name="drawn", scope="module")
def _drawn():
    return jax.device_get(jax.vmap(draw_genotype)(jax.random.split(jax.random.key(0), N)))


def test_shares(drawn):
    for index, share in enumerate(SHARES):
        of_type = drawn.histology == index
        assert of_type.mean() == pytest.approx(share, abs=0.03)
        for grade, expected in enumerate(GRADE_SHARES[index]):
            assert (drawn.grade[of_type] == grade).mean() == pytest.approx(expected, abs=0.05)
        for name, chances in CHANCES.items():
            assert drawn.features[name][of_type].mean() == pytest.approx(chances[index], abs=0.06)


def test_ranges(drawn):
    for name, bounds in RANGES.items():
        for index, (low, high) in enumerate(bounds):
            values = drawn.ranges[name][drawn.histology == index]
            assert low - 1e-5 <= values.min()
            assert values.max() <= high + 1e-5
            assert values.mean() == pytest.approx((low + high) / 2, abs=0.1 * (high - low))


def test_mgmt_is_independent_of_everything(drawn):
    assert drawn.mgmt.mean() == pytest.approx(0.5, abs=0.04)
    columns = [drawn.histology, drawn.grade, *drawn.ranges.values(), *drawn.features.values()]
    for column in columns:
        assert abs(np.corrcoef(drawn.mgmt, column)[0, 1]) < 0.06
