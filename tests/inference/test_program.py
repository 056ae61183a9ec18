"""A function compiled before its arguments are there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmmas_jax.inference.program import Program

OPTIMISATION = "xla_backend_optimization_level"


def test_begun_it_is_traced_once_and_says_what_it_will_return():
    traced = []

    def double(tree: dict[str, jax.Array]) -> dict[str, jax.Array]:
        traced.append(tree["x"].shape)
        return {"y": 2 * tree["x"]}

    program = Program(double)
    coming = program.begin({"x": jax.ShapeDtypeStruct((3,), jnp.float32)})
    assert coming == {"y": jax.ShapeDtypeStruct((3,), jnp.float32)}
    for _ in range(2):
        found = program({"x": np.arange(3, dtype=np.float32)})
        np.testing.assert_array_equal(found["y"], [0, 2, 4])
    # Jitted, it would be compiled anew for this.
    with pytest.raises(TypeError, match="compiled"):
        program({"x": np.arange(4, dtype=np.float32)})
    assert traced == [(3,)]


def test_not_begun_it_takes_every_shape():
    program = Program(lambda x: x.sum())
    assert [int(program(np.ones(length))) for length in (2, 5)] == [2, 5]


def test_what_cannot_be_traced_is_told_where_it_begins():
    with pytest.raises(TypeError, match="incompatible shapes"):
        Program(lambda x: x + jnp.ones(2)).begin(jax.ShapeDtypeStruct((3,), jnp.float32))


@pytest.mark.parametrize(("backend", "asked"), [("cpu", {OPTIMISATION: 1}), ("gpu", None)])
def test_fewer_passes_are_asked_for_on_a_cpu_alone(backend, asked, monkeypatch: pytest.MonkeyPatch):
    """On an accelerator the same option would slow its kernels."""
    seen = []
    monkeypatch.setattr(jax, "jit", lambda _, compiler_options: seen.append(compiler_options))
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    Program(len)
    assert seen == [asked]
