"""Healthy tissue of one head: what its sulci hold, and lose beside a tumour."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import binary_fill_holes

from gmmas_jax.synthesis.effects import PLAIN, Effect
from gmmas_jax.synthesis.frame import Frame
from gmmas_jax.synthesis.tissue import effaced, with_own_sulci, with_tubes
from tests.synthesis.conftest import NONE


def test_sulci_are_pressed_shut_near_the_tumour_and_ventricles_are_not():
    generator = np.random.default_rng(0)
    parts = tuple(jnp.asarray(generator.uniform(0, 0.3, (3, 1, 1)), jnp.float32) for _ in range(4))
    radial = jnp.array([0.5, 0.5, 5.0]).reshape(3, 1, 1)
    ventricles = jnp.array([0.0, 1.0, 0.0]).reshape(3, 1, 1)
    pressed = effaced(parts, radial, ventricles, jnp.float32(0.6))
    np.testing.assert_allclose(sum(pressed), sum(parts), rtol=1e-6)
    kept = (pressed[2] / parts[2]).reshape(-1)
    np.testing.assert_allclose(kept, [0.4, 1.0, 1.0], atol=0.01)
    for place in (0, 3):
        np.testing.assert_array_equal(pressed[place], parts[place])


def _of_own_sulci(depth, seed=2, **effects):
    """Fluid's fraction after it, of 0.1, 0.4 and 0.6, grey matter having the rest up to 0.8."""
    fluid = jnp.array([0.1, 0.4, 0.6])
    parts = jnp.full(3, 0.15), 0.8 - fluid, fluid, jnp.full(3, 0.05)
    effects = NONE._replace(**{name: Effect(1.0, of) for name, of in effects.items()})
    after = with_own_sulci(jax.random.key(seed), parts, jnp.full(3, depth), effects)
    np.testing.assert_allclose(sum(after), sum(parts), rtol=1e-6)
    for place in (0, 3):
        np.testing.assert_array_equal(after[place], parts[place])
    return np.asarray(after[2])


def test_sharp_sulci_hold_more_fluid_where_it_is_most_and_less_where_it_is_little():
    little, half, most = _of_own_sulci(1.0, sharp_sulci=3.0)
    assert little < 0.05
    assert half == pytest.approx(0.4, rel=1e-5)
    assert 0.65 < most < 0.8


def test_a_full_head_has_less_fluid_near_the_skull_and_as_much_below():
    np.testing.assert_allclose(_of_own_sulci(1.0, full_head=1.0), [0.1, 0.4, 0.6], rtol=1e-5)
    kept = np.stack([_of_own_sulci(0.0, seed, full_head=1.0) for seed in range(20)])
    kept = kept / np.array([0.1, 0.4, 0.6])
    np.testing.assert_allclose(kept, np.broadcast_to(kept[:, :1], kept.shape), rtol=1e-5)
    # At least half of it is lost, and at most all.
    assert 0.35 < kept.max() < 0.55
    assert kept.min() < 0.15


BLOCK = Frame(jnp.array([-30.0, -30.0, 0.0]), jnp.ones(3), (60, 60, 60))


def _tubes(fluid, *, effects, vessel=0.0, seed=4):
    """The vessels of a block of which a share is fluid and the rest is white matter."""
    there, grey, wet = (jnp.full(BLOCK.shape, share) for share in (vessel, 0.0, fluid))
    return np.asarray(with_tubes(jax.random.key(seed), there, grey, wet, BLOCK, effects))


def test_tubes_have_no_sections_that_are_rings():
    tubular = NONE._replace(tubular_vessels=Effect(1.0, 2.0))
    for seed in range(6):
        drawn = _tubes(1.0, effects=tubular, seed=seed) > 0.5
        filled = np.stack([binary_fill_holes(section) for section in drawn])
        assert filled.sum() <= 1.05 * drawn.sum()
    # The widest of the six fill about what tubes of 1 to 2 mm would, and white matter holds none.
    shares = [_tubes(1.0, effects=tubular, seed=seed).mean() for seed in range(6)]
    assert 0.02 < max(shares) < 0.15
    assert _tubes(0.0, effects=tubular).max() == 0


def test_vessels_that_are_no_tubes_stay():
    for effects in (NONE, PLAIN, NONE._replace(tubular_vessels=Effect(1e-9, 2.0))):
        assert (_tubes(1.0, vessel=0.3, effects=effects) == np.float32(0.3)).all()
