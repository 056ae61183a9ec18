"""The order of the tissues' signals, which physics gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmmas_jax.synthesis.contrast import TISSUES, draw_signals

T1N, T1C, T2W, T2F = range(4)


@pytest.fixture(name="signals", scope="module")
def _signals():
    """[draws tissues 4], at the gadolinium concentrations of ring-enhancing tumours."""
    k_draw, k_dose = jax.random.split(jax.random.key(0))
    dose = jax.random.uniform(k_dose, (500,), minval=0.35, maxval=1.2)
    return np.asarray(jax.vmap(draw_signals)(jax.random.split(k_draw, 500), dose, jnp.zeros(500)))


@pytest.mark.parametrize(
    ("sequence", "brighter", "darker", "share"),
    [
        (T1N, "white", "grey", 0.93),
        (T1N, "grey", "fluid", 1.0),
        (T2W, "fluid", "grey", 1.0),
        (T2W, "grey", "white", 1.0),
        (T2W, "oedema", "grey", 0.95),
        (T2F, "grey", "fluid", 1.0),
        (T2F, "white", "fluid", 1.0),
        (T2F, "oedema", "white", 0.95),
        (T2F, "oedema", "grey", 0.9),
        (T1C, "enhancing", "grey", 1.0),
        (T1C, "enhancing", "white", 1.0),
        (T1C, "enhancing", "necrosis", 1.0),
        (T1C, "enhancing", "oedema", 1.0),
    ],
)
def test_order(signals, sequence, brighter, darker, share):
    one, other = (signals[:, TISSUES.index(name), sequence] for name in (brighter, darker))
    assert (one > other).mean() >= share


def test_only_enhancing_tissue_takes_up_contrast(signals):
    change = signals[..., T1C] / signals[..., T1N]
    for name in TISSUES:
        ratio = np.median(change[:, TISSUES.index(name)])
        if name in ("enhancing", "vessel"):
            assert ratio > 1.2
        else:
            assert 0.9 < ratio < 1.1


def test_signals_are_positive_and_vary(signals):
    assert np.isfinite(signals).all()
    assert (signals > 0).all()
    assert (signals.std(0) > 0).all()
