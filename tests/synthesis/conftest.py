"""The coarse head as an anatomy, and the compiled generator."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import pytest

from gmmas_jax.synthesis.anatomy import Anatomy
from gmmas_jax.synthesis.generator import generate
from tests.synthesis.coarse_head import SPACING, coarse_maps


@pytest.fixture(name="broadcasting", scope="package", autouse=True)
def _broadcasting() -> Iterator[None]:
    """The generator is written with NumPy's broadcasting; the tests look at what it makes."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="package")
def anatomy() -> Anatomy:
    return Anatomy(jnp.asarray(coarse_maps()), SPACING)


@pytest.fixture(scope="package")
def compiled(anatomy, broadcasting):
    """Returns the generator, compiled: key to patient as NumPy arrays."""
    lowered = jax.jit(generate).lower(jax.random.key(0), anatomy)
    function = lowered.compile(compiler_options={"xla_backend_optimization_level": 0})
    return lambda key: jax.device_get(function(key, anatomy))
