"""The transformer at the bottleneck: tokens of a volume attend to each other."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gmmas_jax.errors import UserError
from gmmas_jax.models.layers import NORM_EPSILON, convolution, dense, normalize_activate
from gmmas_jax.models.options import LayerOptions, TransformerOptions


def sincos_positions(grid: tuple[int, int, int], dim: int) -> jax.Array:
    """Fixed sine and cosine positions of a grid of tokens, counted from its centre.

    Each axis has dim // 6 frequencies from 1 to 1/10000 (Vaswani et al. 2017, on three axes);
    channels that remain are zero. Any grid has positions, and a token keeps its own when the
    grid grows on both sides.

    Args:
        grid: Tokens along (d, h, w).
        dim: Channels of a token, at least 6.

    Returns:
        [d h w dim] f32.
    """
    count = dim // 6
    frequency = 10000.0 ** (-np.arange(count) / max(count, 1))
    parts = []
    for axis, size in enumerate(grid):
        angle = (np.arange(size) - (size - 1) / 2)[:, None] * frequency
        table = np.concatenate([np.sin(angle), np.cos(angle)], axis=-1).astype(np.float32)
        shape = [1, 1, 1, 2 * count]
        shape[axis] = size
        parts.append(jnp.broadcast_to(table.reshape(shape), (*grid, 2 * count)))
    rest = jnp.zeros((*grid, dim - 6 * count), jnp.float32)
    return jnp.concatenate([*parts, rest], axis=-1)


class SelfAttention(nn.Module):
    """Multi-head self-attention; queries, keys and values without bias.

    Attributes:
        transformer: Heads, implementation, dropout of the weights.
        options: How layers are built.
    """

    transformer: TransformerOptions
    options: LayerOptions

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [b n c] to [b n c]."""
        batch, tokens, dim = x.shape
        heads = self.transformer.heads
        qkv = dense(x, 3 * dim, options=self.options, name="qkv", use_bias=False)
        qkv = qkv.reshape(batch, tokens, 3, heads, dim // heads)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        if train and self.transformer.attention_dropout > 0:
            y = self._with_dropped_weights(query, key, value)
        else:
            y = jax.nn.dot_product_attention(
                query,
                key,
                value,
                implementation=self.transformer.attention,
            )
        return dense(y.reshape(batch, tokens, dim), dim, options=self.options, name="project")

    def _with_dropped_weights(
        self, query: jax.Array, key: jax.Array, value: jax.Array
    ) -> jax.Array:
        """Attention whose float32 softmax weights pass through dropout: [b n heads c/heads]."""
        scores = jnp.einsum("bqhc,bkhc->bhqk", query, key, preferred_element_type=jnp.float32)
        weights = nn.softmax(scores * query.shape[-1] ** -0.5, axis=-1).astype(value.dtype)
        drop = nn.Dropout(self.transformer.attention_dropout, deterministic=False)
        return jnp.einsum("bhqk,bkhc->bqhc", drop(weights), value)


class TransformerBlock(nn.Module):
    """Pre-norm transformer block with exact GELU.

    Attributes:
        transformer: Dimensions and rates.
        options: How layers are built.
    """

    transformer: TransformerOptions
    options: LayerOptions

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [b n c] to [b n c]."""
        rate, dtype = self.transformer.dropout, self.options.compute_dtype
        # Published as two dropouts in a row, after the projection and on the branch: as one.
        rate_attention = 1.0 - (1.0 - rate) ** 2

        def drop(y: jax.Array, rate: float) -> jax.Array:
            return nn.Dropout(rate, deterministic=not train)(y)

        y = nn.LayerNorm(epsilon=NORM_EPSILON, dtype=dtype, name="norm_attention")(x)
        y = SelfAttention(self.transformer, self.options, name="attention")(y, train)
        x = x + drop(y, rate_attention)
        y = nn.LayerNorm(epsilon=NORM_EPSILON, dtype=dtype, name="norm_mlp")(x)
        y = dense(y, self.transformer.mlp_dim, options=self.options, name="mlp_0")
        y = drop(nn.gelu(y, approximate=False), rate)
        y = dense(y, x.shape[-1], options=self.options, name="mlp_1")
        return x + drop(y, rate)


class VolumeTransformer(nn.Module):
    """Features to tokens, positions, transformer blocks, and back to a volume.

    Attributes:
        transformer: Dimensions, rates, kind of positions.
        options: How layers are built.
    """

    transformer: TransformerOptions
    options: LayerOptions

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps [b d h w c] to [b d h w dim] in the compute dtype."""
        dim = self.transformer.dim
        x = normalize_activate(x, options=self.options, train=train, name="norm_in")
        x = convolution(x, dim, options=self.options, name="conv_in")
        batch, *grid, _ = x.shape
        tokens = x.reshape(batch, -1, dim)
        positions = self._positions((grid[0], grid[1], grid[2]))
        tokens = tokens + positions[None].astype(tokens.dtype)
        tokens = nn.Dropout(self.transformer.dropout, deterministic=not train)(tokens)
        block = TransformerBlock
        if self.options.remat != "none":
            block = nn.remat(TransformerBlock, static_argnums=(2,))
        for layer in range(self.transformer.layers):
            tokens = block(self.transformer, self.options, name=f"block_{layer}")(tokens, train)
        dtype = self.options.compute_dtype
        tokens = nn.LayerNorm(epsilon=NORM_EPSILON, dtype=dtype, name="norm_out")(tokens)
        return tokens.reshape(batch, *grid, dim)

    def _positions(self, grid: tuple[int, int, int]) -> jax.Array:
        """Position of every token: [n dim] f32."""
        dim = self.transformer.dim
        if self.transformer.positions == "sincos":
            return sincos_positions(grid, dim).reshape(-1, dim)
        stored: jax.Array | None = self.get_variable("params", "positions")
        if stored is not None and stored.shape != (*grid, dim):
            raise UserError(
                f"model.transformer.positions is 'learned' for {stored.shape[:3]} tokens, but the "
                f"patch has {grid}; use patches of the size seen in training, or 'sincos'."
            )
        learned = self.param("positions", nn.initializers.zeros, (*grid, dim), jnp.float32)
        return learned.reshape(-1, dim)
