"""The coarse head as an anatomy, and the generator compiled once for nearly all tests."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import pytest

from gmmas_jax.synthesis import generator
from gmmas_jax.synthesis.anatomy import Anatomy, quantised
from gmmas_jax.synthesis.effects import Effects
from gmmas_jax.synthesis.frame import whole_frame
from tests.synthesis.coarse_head import SPACING, coarse_maps, coarse_priors

NONE = Effects().without(*Effects._fields)


@pytest.fixture(name="broadcasting", scope="package", autouse=True)
def _broadcasting() -> Iterator[None]:
    """The generator is written with NumPy's broadcasting; the tests look at what it makes."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(name="quickly", scope="package", autouse=True)
def _quickly() -> Iterator[None]:
    """Programs of one call take longer to optimise than to run."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="package")
def anatomy() -> Anatomy:
    maps, priors = jnp.asarray(quantised(coarse_maps())), jnp.asarray(coarse_priors())
    return Anatomy(maps, priors, SPACING)


@pytest.fixture(scope="package")
def draw(anatomy, broadcasting, quickly):
    """Returns the generator, compiled: key and options to a patient of NumPy arrays.

    Effects, the frame's place and step, health and the MGMT status are arguments of one program.
    """
    drawn_genotype = generator.draw_genotype

    def make(key, anatomy, frame, effects, healthy, mgmt):
        def with_status(k):
            genotype = drawn_genotype(k)
            return genotype._replace(mgmt=jnp.where(mgmt < 0, genotype.mgmt, mgmt))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(generator, "draw_genotype", with_status)
            traits = generator.draw_traits(key, anatomy, effects, healthy=healthy)
        image, label = generator.show(traits, anatomy, frame, effects)
        tasks, features = traits.genotype.tasks(), traits.genotype.features
        return {"image": image, "label": label, "tasks": tasks, "features": features}

    frame = whole_frame(SPACING)
    # It runs hundreds of times: worth some of the passes that programs of one call go without.
    function = jax.jit(make, compiler_options={"xla_backend_optimization_level": 1})

    def call(key, *, effects=NONE, frame=frame, healthy=False, mgmt=-1):
        return jax.device_get(
            function(jax.random.clone(key), anatomy, frame, effects, healthy, mgmt)
        )

    return call
