"""Where tumours start, how oedema spreads, and what a tumour presses shut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmmas_jax.synthesis.anatomy import PRIORS
from gmmas_jax.synthesis.effects import Effect
from gmmas_jax.synthesis.frame import Frame
from gmmas_jax.synthesis.generator import effaced, with_own_sulci
from gmmas_jax.synthesis.genotype import draw_genotype
from gmmas_jax.synthesis.tumour import around_prior, draw_habit, grow_tumour
from tests.synthesis.conftest import NONE

SHAPE = (12, 12, 12)


def test_a_superficial_tumour_starts_where_oligodendrogliomas_do():
    priors = jnp.asarray(np.random.default_rng(0).uniform(0.1, 1, (3, 4, 5, 6)), jnp.float32)
    cortex = priors[PRIORS.index("oligodendroglioma")]
    for histology in range(3):
        own = around_prior(priors, jnp.int32(histology), jnp.float32(0))
        np.testing.assert_array_equal(own, priors[histology])
        fully = around_prior(priors, jnp.int32(histology), jnp.float32(1))
        np.testing.assert_allclose(fully, cortex, rtol=1e-5)
        half = around_prior(priors, jnp.int32(histology), jnp.float32(0.5))
        np.testing.assert_allclose(half, np.sqrt(priors[histology] * cortex), rtol=1e-5)


def _oedema(evenness, tracts):
    """Returns the volume of oedema of a tumour in tissue that is all alike."""
    genotype = draw_genotype(jax.random.key(1))
    habit = draw_habit(jax.random.key(2), genotype, NONE)
    frame = Frame(jnp.zeros(3), jnp.full(3, 4.0), SHAPE)
    distance = jnp.linalg.norm(frame.points() - 22.0, axis=0) / genotype.ranges["radius"]
    tumour = grow_tumour(
        jax.random.key(3),
        distance,
        genotype,
        habit._replace(evenness=jnp.float32(evenness)),
        frame,
        brain=jnp.ones(SHAPE),
        tracts=jnp.full(SHAPE, tracts),
        wetness=jnp.zeros(SHAPE),
        fluid=jnp.zeros(SHAPE),
    )
    return float(tumour.oedema.sum())


def test_oedema_that_spreads_evenly_does_not_mind_the_tissue():
    assert _oedema(0.0, 1.0) > 1.2 * _oedema(0.0, 0.1)
    assert _oedema(1.0, 1.0) == pytest.approx(_oedema(1.0, 0.1), rel=1e-5)
    assert _oedema(0.0, 0.1) < _oedema(0.5, 0.1) < _oedema(1.0, 0.1)


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


def _of_own_sulci(depth, **effects):
    """Fluid's fraction after it, of 0.1, 0.4 and 0.6, grey matter having the rest up to 0.8."""
    fluid = jnp.array([0.1, 0.4, 0.6])
    parts = jnp.full(3, 0.15), 0.8 - fluid, fluid, jnp.full(3, 0.05)
    effects = NONE._replace(**{name: Effect(1.0, of) for name, of in effects.items()})
    after = with_own_sulci(jax.random.key(2), parts, jnp.full(3, depth), effects)
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
    kept = _of_own_sulci(0.0, full_head=1.0) / np.array([0.1, 0.4, 0.6])
    assert kept.max() < 0.9
    np.testing.assert_allclose(kept, kept[0], rtol=1e-5)


def test_effects_that_came_later_leave_the_draws_of_the_others():
    genotype = draw_genotype(jax.random.key(1))
    some = NONE._replace(thin_ring=Effect(1.0, 1.2), cyst=Effect(1.0, 1.0))
    before = draw_habit(jax.random.key(4), genotype, some)
    after = draw_habit(jax.random.key(4), genotype, some._replace(fading=Effect(1.0, 0.2)))
    assert float(after.fading) > 0
    assert before._replace(fading=after.fading, margin=after.margin) == after
