"""The lowerings of the 3D convolution against each other, and which of them a platform gets."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmmas_jax.models import conv
from gmmas_jax.models.conv import Conv, conv3d, conv3d_by_depth_taps, conv3d_native
from tests.models.small import run

LOWERINGS = {"native": conv3d_native, "platform": conv3d, "depth taps": conv3d_by_depth_taps}
EVEN, NONE, BEFORE = (1, 1), (0, 0), (1, 0)
# kernel, padding per axis, size per axis, channels in and out.
GEOMETRIES = {
    "same": ((3, 3, 3), (EVEN, EVEN, EVEN), (4, 5, 6), (2, 3)),
    "valid": ((3, 3, 3), (NONE, NONE, NONE), (5, 4, 3), (2, 3)),
    "one-sided": ((3, 3, 3), (BEFORE, BEFORE, BEFORE), (5, 4, 5), (2, 3)),
    "unequal": ((3, 3, 3), (EVEN, NONE, BEFORE), (6, 5, 4), (2, 3)),
    "unequal, depth last": ((3, 3, 3), (BEFORE, EVEN, NONE), (4, 3, 5), (2, 3)),
    "one channel": ((3, 3, 3), (EVEN, EVEN, EVEN), (5, 4, 3), (1, 1)),
    "flat kernel": ((1, 3, 3), (NONE, EVEN, EVEN), (3, 5, 4), (3, 2)),
    "deep kernel": ((3, 1, 1), (EVEN, NONE, NONE), (5, 3, 4), (3, 2)),
    "pointwise": ((1, 1, 1), (NONE, NONE, NONE), (4, 5, 3), (3, 2)),
    "padded pointwise": ((1, 1, 1), (EVEN, NONE, BEFORE), (3, 4, 3), (3, 2)),
}
CASES = [(name, strides) for name in GEOMETRIES for strides in ((1, 1, 1), (2, 2, 2))]
CASES += [("unequal", (1, 2, 2)), ("unequal", (2, 1, 2))]


def _draw(*shape, seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _operands(name):
    kernel, padding, size, (inputs, outputs) = GEOMETRIES[name]
    x = _draw(2, *size, inputs, seed=0)
    return x, _draw(*kernel, inputs, outputs, seed=1), padding


@pytest.mark.parametrize(("name", "strides"), CASES, ids=str)
def test_every_lowering_gives_the_same_values_and_gradients(name, strides):
    _check_lowerings(name, strides)


# A slab of one voxel, of a few slices, of the whole volume.
@pytest.mark.parametrize("slab", [1, 80, 1000])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_large_volume_has_the_same_values_and_gradients(name, slab, monkeypatch):
    monkeypatch.setattr(conv, "_LARGE", 0)
    monkeypatch.setattr(conv, "_SLAB", slab)
    _check_lowerings(name, (1, 1, 1))


def _check_lowerings(name, strides):
    x, kernel, padding = _operands(name)

    def values_and_gradients(x, kernel):
        results = {}
        for lowering, convolve in LOWERINGS.items():
            y, pull = jax.vjp(
                lambda *o, f=convolve: f(*o, strides=strides, padding=padding), x, kernel
            )
            results[lowering] = (y, *pull(_draw(*y.shape, seed=2)))
        return results

    results = run(values_and_gradients, x, kernel)
    for lowering in ("platform", "depth taps"):
        for value, expected in zip(results[lowering], results["native"], strict=True):
            assert value.shape == expected.shape
            scale = np.abs(expected).max()
            np.testing.assert_allclose(value, expected, atol=1e-5 * scale, err_msg=lowering)


def test_native_is_cross_correlation_written_out():
    x, kernel, padding = _operands("unequal")
    padded = np.pad(np.asarray(x), ((0, 0), *padding, (0, 0)))
    expected = np.zeros((2, 3, 3, 2, 3), np.float32)
    for d, h, w in np.ndindex(3, 3, 2):
        window = padded[:, 2 * d : 2 * d + 3, h : h + 3, 2 * w : 2 * w + 3]
        expected[:, d, h, w] = np.einsum("bdhwi,dhwio->bo", window, np.asarray(kernel))
    y = conv3d_native(x, kernel, strides=(2, 1, 2), padding=padding)
    assert y.shape == (2, 3, 3, 2, 3)
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize("convolve", LOWERINGS.values(), ids=LOWERINGS)
@pytest.mark.parametrize("strides", [(1, 1, 1), (2, 2, 2)], ids=str)
def test_bfloat16_loses_only_the_rounding_of_operands_and_result(convolve, strides):
    x, kernel = _draw(1, 5, 4, 6, 64, seed=0), _draw(3, 3, 3, 64, 2, seed=1)
    x, kernel = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    padding = (EVEN, EVEN, EVEN)
    y = convolve(x, kernel, strides=strides, padding=padding)
    assert y.dtype == jnp.bfloat16
    exact = conv3d_native(
        x.astype(jnp.float32), kernel.astype(jnp.float32), strides=strides, padding=padding
    )
    # bfloat16 has 8 bits: one rounding of each of three planes, then of the result.
    error = np.abs(np.asarray(y, np.float32) - np.asarray(exact)).max()
    assert error < 1.5 * 2**-8 * float(jnp.abs(exact).max())


def test_planes_are_summed_in_float32():
    # In bfloat16, 256 + 1 is 256: two planes of 1 would be lost beside one of 256.
    x = jnp.ones((1, 3, 1, 1, 1), jnp.bfloat16)
    kernel = jnp.asarray([256.0, 1.0, 1.0], jnp.bfloat16).reshape(3, 1, 1, 1, 1)
    y = conv3d_by_depth_taps(x, kernel, strides=(1, 1, 1), padding=(NONE, NONE, NONE))
    assert float(y.squeeze()) == 258.0


def _program(platform, *, name="same", gradient=False):
    """Returns the StableHLO of a convolution, lowered for another platform than this one."""
    x, kernel, padding = _operands(name)

    def forward(x, kernel):
        return conv3d(x, kernel, strides=(1, 1, 1), padding=padding)

    def backward(x, kernel):
        return jax.grad(lambda *o: jnp.square(forward(*o)).sum(), argnums=(0, 1))(x, kernel)

    function = backward if gradient else forward
    return jax.jit(function).trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()


def _ranks(program):
    """Lists the spatial ranks of the convolutions in a program."""
    inputs = re.findall(r"stablehlo\.convolution\(.*?dim_numbers = \[([^\]]*)\]", program, re.S)
    return [len(axes.split(",")) - 2 for axes in inputs]


@pytest.mark.parametrize("gradient", [False, True])
def test_a_cpu_gets_two_dimensional_convolutions_only(gradient):
    ranks = _ranks(_program("cpu", gradient=gradient))
    assert set(ranks) == {2}
    assert len(ranks) == (9 if gradient else 3)


def test_a_large_volume_has_its_kernel_gradient_from_a_matrix_product(monkeypatch):
    monkeypatch.setattr(conv, "_LARGE", 0)
    program = _program("cpu", gradient=True)
    assert _ranks(program) == [2] * 6  # forward, and back to the input
    assert program.count("stablehlo.dot_general") == 1


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize("gradient", [False, True])
def test_an_accelerator_gets_one_native_convolution(platform, gradient):
    # Backwards there is one more for each operand.
    assert _ranks(_program(platform, gradient=gradient)) == [3] * (3 if gradient else 1)


@pytest.mark.parametrize("platform", ["cpu", "tpu", "cuda"])
def test_a_pointwise_kernel_is_a_matrix_product(platform):
    program = _program(platform, name="pointwise")
    assert _ranks(program) == []
    assert program.count("stablehlo.dot_general") == 1


@pytest.mark.parametrize("use_bias", [True, False])
def test_module_is_the_function_with_a_bias(use_bias):
    x, kernel, padding = _operands("same")
    layer = Conv(3, use_bias=use_bias, strides=(2, 2, 2))
    shapes = jax.eval_shape(layer.init, jax.random.key(0), x)["params"]
    assert set(shapes) == ({"kernel", "bias"} if use_bias else {"kernel"})
    params = {"kernel": kernel, "bias": _draw(3, seed=3)}
    y = layer.apply({"params": {name: params[name] for name in shapes}}, x)
    expected = conv3d_native(x, kernel, strides=(2, 2, 2), padding=padding)
    assert y.shape == (2, 2, 3, 3, 3)  # halved, rounded up
    if use_bias:
        expected = expected + params["bias"].reshape(1, 1, 1, 1, 3)
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_module_computes_in_its_dtype_with_float32_parameters():
    x, _, _ = _operands("valid")
    layer = Conv(3, padding=(NONE, NONE, NONE), dtype=jnp.bfloat16)
    variables = jax.eval_shape(layer.init, jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    y = jax.eval_shape(layer.apply, variables, x)
    assert (y.shape, y.dtype) == ((2, 3, 2, 1, 3), jnp.bfloat16)
