"""The bricks of the generator against SciPy, and the rule that makes fractions a label."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from gmmas_jax.synthesis.fields import smooth
from gmmas_jax.synthesis.tumour import Tumour


@pytest.mark.parametrize("sigma", [0.5, 1.5, 3.0])
def test_smooth_is_a_gaussian_with_edges_repeated(sigma):
    volume = np.random.default_rng(0).normal(size=(7, 12, 9)).astype(np.float32)
    radius = max(1, round(3 * sigma))
    expected = ndimage.gaussian_filter(volume, sigma, mode="nearest", radius=radius)
    np.testing.assert_allclose(smooth(jnp.asarray(volume), sigma=sigma), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("core", "oedema", "enhancing", "label"),
    [
        (0.0, 0.0, 0.0, 0),
        (0.4, 0.1, 0.1, 0),
        (0.2, 0.1, 0.2, 0),
        (0.5, 0.3, 0.1, 1),
        (0.3, 0.5, 0.1, 2),
        (0.1, 0.3, 0.5, 3),
        (0.3, 0.1, 0.5, 3),
    ],
)
def test_label_is_the_class_of_the_largest_fraction(core, oedema, enhancing, label):
    parts = dict.fromkeys(Tumour._fields, 0.0)
    # Four tissues count as one core.
    parts |= dict.fromkeys(("necrosis", "solid", "mucinous", "calcium"), core / 4)
    parts |= {"oedema": oedema, "enhancing": enhancing}
    tumour = Tumour(**{name: jnp.full((1, 1, 1), value) for name, value in parts.items()})
    assert tumour.label().dtype == jnp.int32
    assert int(tumour.label()[0, 0, 0]) == label
