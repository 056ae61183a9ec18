"""3D convolution, lowered for the platform it runs on. The only place that calls the primitive.

XLA's CPU backend runs 3D convolutions through a generic path; its 2D convolutions go through
Eigen's blocked matrix product. A 3D kernel is a sum over depth taps of 2D kernels, so on a CPU the
same sum is computed as 2D convolutions over depth slices (measured in `benchmarks/results`). GPU
and TPU have native 3D kernels and use them. The choice is made when the program is lowered, so that
one exported program holds the right form for each platform.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

Padding = Sequence[tuple[int, int]]


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

    bfloat16 products are summed over the planes in float32, as one convolution would.
    """
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


class Conv(nn.Module):
    """3D convolution with parameters `kernel` [kd kh kw cin cout] and `bias` [cout].

    Attributes:
        features: Output channels.
        kernel_size: Per axis.
        strides: Per axis.
        padding: (before, after) per axis; None keeps the size at stride 1 and halves it at stride 2
            with (1, 1) for a kernel of 3, as PyTorch's `padding=1` does.
        use_bias: Adds a bias.
        dtype: Compute dtype; parameters are cast to it.
        param_dtype: Dtype of the parameters.
        kernel_init: Initialiser.
        bias_init: Initialiser.
    """

    features: int
    kernel_size: tuple[int, int, int] = (3, 3, 3)
    strides: tuple[int, int, int] = (1, 1, 1)
    padding: Padding | None = None
    use_bias: bool = True
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves x [b d h w cin] -> [b d' h' w' features] in `dtype`."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        padding = self.padding
        if padding is None:
            padding = [((k - 1) // 2, k // 2) for k in self.kernel_size]
        x = conv3d(
            x.astype(self.dtype), kernel.astype(self.dtype), strides=self.strides, padding=padding
        )
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
            x = x + bias.astype(self.dtype)[None, None, None, None]
        return x
