"""Where tumours start, and how oedema spreads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmmas_jax.synthesis.anatomy import PRIORS
from gmmas_jax.synthesis.effects import Effect
from gmmas_jax.synthesis.frame import Frame
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


def test_effects_that_came_later_leave_the_draws_of_the_others():
    genotype = draw_genotype(jax.random.key(1))
    some = NONE._replace(thin_ring=Effect(1.0, 1.2), cyst=Effect(1.0, 1.0))
    before = draw_habit(jax.random.key(4), genotype, some)
    after = draw_habit(jax.random.key(4), genotype, some._replace(fading=Effect(1.0, 0.2)))
    assert float(after.fading) > 0
    assert before._replace(fading=after.fading, margin=after.margin) == after
