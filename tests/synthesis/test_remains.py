"""What skull-stripping left on the brain: how it looks in each sequence."""

import jax
import jax.numpy as jnp
import numpy as np

from gmmas_jax.cases.sequences import SEQUENCES
from gmmas_jax.synthesis.effects import Effect
from gmmas_jax.synthesis.frame import Frame
from gmmas_jax.synthesis.remains import draw_dura
from tests.synthesis.conftest import NONE


def test_dura_is_darkest_on_t2():
    frame = Frame(jnp.zeros(3), jnp.ones(3), (1, 1, 1))
    always = NONE._replace(dura=Effect(1.0, 4.5))
    levels = []
    for key in jax.random.split(jax.random.key(11), 8):
        _, level = draw_dura(key, jnp.zeros(frame.shape), frame, always)
        levels.append(np.log(level))
    assert np.argmin(np.mean(levels, 0)) == SEQUENCES.index("t2w")
