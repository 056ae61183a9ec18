"""Convolution, lowered for the platform it runs on. The only place that calls the primitive.

XLA's CPU backend runs 3D convolutions through a generic path; its 2D convolutions go through
Eigen's blocked matrix product. A 3D kernel is a sum over depth taps of 2D kernels, so on a CPU the
same sum is computed as 2D convolutions over depth slices (measured in `benchmarks/results`). GPU
and TPU have native 3D kernels and use them. The choice is made when the program is lowered, so that
one exported program holds the right form for each platform.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

Padding = Sequence[tuple[int, int]]

_LARGE = 2**14
"""Voxels of a batch from which a kernel's gradient is worth its own form on a CPU."""

_SLAB = 1200
"""Voxels whose shifted copies fit a core's cache."""


def conv(x: jax.Array, kernel: jax.Array, *, strides: Sequence[int], padding: Padding) -> jax.Array:
    """Cross-correlates images or volumes with a kernel of their rank.

    Args:
        x: [b h w cin] or [b d h w cin].
        kernel: [kh kw cin cout] or [kd kh kw cin cout], dtype of `x`.
        strides: Per axis.
        padding: (before, after) per axis.

    Returns:
        x's axes with cout channels, dtype of `x`.
    """
    if kernel.ndim == 4:
        return lax.conv_general_dilated(
            x, kernel, strides, list(padding), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    along, across, deep = strides
    return conv3d(x, kernel, strides=(along, across, deep), padding=padding)


def conv3d(
    x: jax.Array, kernel: jax.Array, *, strides: tuple[int, int, int], padding: Padding
) -> jax.Array:
    """Cross-correlates a volume with a kernel.

    Args:
        x: [b d h w cin].
        kernel: [kd kh kw cin cout], dtype of `x`.
        strides: Per axis.
        padding: (before, after) per axis.

    Returns:
        [b d' h' w' cout], dtype of `x`.
    """
    if kernel.shape[:3] == (1, 1, 1) and not any(map(any, padding)):
        x = x[:, :: strides[0], :: strides[1], :: strides[2]]
        return jnp.einsum("bdhwi,io->bdhwo", x, kernel[0, 0, 0])
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, k: conv3d_by_depth_taps(x, k, strides=strides, padding=padding),
        default=lambda x, k: conv3d_native(x, k, strides=strides, padding=padding),
    )


def conv3d_native(
    x: jax.Array, kernel: jax.Array, *, strides: tuple[int, int, int], padding: Padding
) -> jax.Array:
    """`conv3d` as one call of XLA's convolution."""
    return lax.conv_general_dilated(
        x, kernel, strides, list(padding), dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )


def conv3d_by_depth_taps(
    x: jax.Array, kernel: jax.Array, *, strides: tuple[int, int, int], padding: Padding
) -> jax.Array:
    """`conv3d` as a sum of 2D convolutions, one per plane of the kernel.

    bfloat16 products are summed over the planes in float32, as one convolution would. The gradient
    of a large volume's kernel is computed by `_kernel_gradient`.
    """
    voxels = x.shape[0] * x.shape[1] * x.shape[2] * x.shape[3]
    within = all(max(pair) < size for pair, size in zip(padding, kernel.shape, strict=False))
    if strides == (1, 1, 1) and within and voxels >= _LARGE:
        return _large_conv3d(x, kernel, tuple((low, high) for low, high in padding))
    return _sum_depth_taps(x, kernel, strides, padding)


def _sum_depth_taps(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, int, int], padding: Padding
) -> jax.Array:
    batch, _, *plane, channels = x.shape
    x = jnp.pad(x, ((0, 0), padding[0], (0, 0), (0, 0), (0, 0)))
    depth = (x.shape[1] - kernel.shape[0]) // strides[0] + 1
    total = None
    for tap in range(kernel.shape[0]):
        slices = x[:, tap : tap + (depth - 1) * strides[0] + 1 : strides[0]]
        part = lax.conv_general_dilated(
            slices.reshape(batch * depth, *plane, channels),
            kernel[tap],
            strides[1:],
            list(padding[1:]),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        ).astype(jnp.float32)
        total = part if total is None else total + part
    assert total is not None
    return total.astype(x.dtype).reshape(batch, depth, *total.shape[1:])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _large_conv3d(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    return _sum_depth_taps(x, kernel, (1, 1, 1), padding)


def _large_forward(
    x: jax.Array, kernel: jax.Array, padding: Padding
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _large_conv3d(x, kernel, padding), (x, kernel)


def _large_backward(
    padding: Padding, operands: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = operands
    mirrored = jnp.flip(kernel, (0, 1, 2)).swapaxes(3, 4)
    taken = [
        (size - 1 - low, size - 1 - high)
        for size, (low, high) in zip(kernel.shape, padding, strict=False)
    ]
    return (
        _sum_depth_taps(gradient, mirrored, (1, 1, 1), taken),
        _kernel_gradient(x, gradient, kernel.shape, padding).astype(kernel.dtype),
    )


_large_conv3d.defvjp(_large_forward, _large_backward)


def _kernel_gradient(
    x: jax.Array, gradient: jax.Array, shape: Sequence[int], padding: Padding
) -> jax.Array:
    """Correlates a convolution's input with its result's gradient: one matrix product per slab.

    XLA would transpose both volumes for each plane of the kernel, and that takes longer than the
    products. Here a few slices at a time, which stay in the cache, are laid out as two matrices:
    the input shifted in the plane, [voxels kh·kw·cin], and the gradient shifted in depth,
    [voxels kd·cout].

    Args:
        x: [b d h w cin].
        gradient: [b d' h' w' cout].
        shape: Of the kernel, [kd kh kw cin cout].
        padding: Of the convolution, whose strides are 1.

    Returns:
        `shape`, float32.
    """
    kd, kh, kw, inputs, outputs = shape
    depth, (height, width) = x.shape[1], gradient.shape[2:4]
    x = jnp.pad(x, ((0, 0), (0, 0), padding[1], padding[2], (0, 0)))
    low, high = padding[0]
    gradient = jnp.pad(gradient, ((0, 0), (kd - 1 - low, kd - 1 - high), *[(0, 0)] * 3))
    slices = max(1, _SLAB // (x.shape[0] * height * width))
    slices = next(size for size in range(min(slices, depth), 0, -1) if depth % size == 0)

    def add_slab(slab: jax.Array, total: jax.Array) -> jax.Array:
        start = slab * slices
        part = lax.dynamic_slice_in_dim(x, start, slices, axis=1)
        shifted = [part[:, :, i : i + height, j : j + width] for i in range(kh) for j in range(kw)]
        near = lax.dynamic_slice_in_dim(gradient, start, slices + kd - 1, axis=1)
        answers = [near[:, kd - 1 - i : kd - 1 - i + slices] for i in range(kd)]
        return total + lax.dot_general(
            jnp.concatenate(shifted, axis=-1).reshape(-1, kh * kw * inputs),
            jnp.concatenate(answers, axis=-1).reshape(-1, kd * outputs),
            (((0,), (0,)), ((), ())),
            preferred_element_type=jnp.float32,
        )

    start = jnp.zeros((kh * kw * inputs, kd * outputs), jnp.float32)
    total = lax.fori_loop(0, depth // slices, add_slab, start)
    return total.reshape(kh, kw, inputs, kd, outputs).transpose(3, 0, 1, 2, 4)


class Conv(nn.Module):
    """Convolution with parameters `kernel` [*kernel_size cin cout] and `bias` [cout].

    Attributes:
        features: Output channels.
        kernel_size: Per axis: three for volumes, two for images.
        strides: Per axis; None for 1.
        padding: (before, after) per axis; None keeps the size at stride 1 and halves it at stride 2
            with (1, 1) for a kernel of 3, as PyTorch's `padding=1` does.
        use_bias: Adds a bias.
        dtype: Compute dtype; parameters are cast to it.
        param_dtype: Dtype of the parameters.
        kernel_init: Initialiser.
        bias_init: Initialiser.
    """

    features: int
    kernel_size: tuple[int, ...] = (3, 3, 3)
    strides: tuple[int, ...] | None = None
    padding: Padding | None = None
    use_bias: bool = True
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves x [b ... cin] -> [b ...' features] in `dtype`."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        padding = self.padding
        if padding is None:
            padding = [((k - 1) // 2, k // 2) for k in self.kernel_size]
        strides = self.strides or (1,) * len(self.kernel_size)
        x = conv(x.astype(self.dtype), kernel.astype(self.dtype), strides=strides, padding=padding)
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
            x = x + bias.astype(self.dtype).reshape((1,) * (x.ndim - 1) + bias.shape)
        return x
