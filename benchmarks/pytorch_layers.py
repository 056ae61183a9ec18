"""The parts of the mini network in PyTorch; `pytorch_mini.py` puts them together.

Modules bear the names of the Linen modules, whose docstrings say what they compute. Volumes are
[b c d h w] here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gmmas_jax.models.transformer import sincos_positions

LEAKY_SLOPE = 0.01


def conv(inputs: int, outputs: int, *, size: int = 3, stride: int = 1) -> nn.Conv3d:
    """A convolution that keeps, or with stride 2 halves, the volume."""
    return nn.Conv3d(inputs, outputs, size, stride=stride, padding=size // 2)


def group_norm(width: int, group_size: int = 8) -> nn.GroupNorm:
    """Group normalisation with groups of at most `group_size` channels."""
    return nn.GroupNorm(width // min(group_size, width), width, eps=1e-5)


def activate(x: Tensor) -> Tensor:
    """The rectifier of both networks."""
    return F.leaky_relu(x, LEAKY_SLOPE)


def space_to_depth(x: Tensor, s: int) -> Tensor:
    """Folds cubes of voxels into channels, the voxels of a channel contiguous."""
    b, c, d, h, w = x.shape
    x = x.reshape(b, c, d // s, s, h // s, s, w // s, s).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return x.reshape(b, c * s**3, d // s, h // s, w // s)


def depth_to_space(x: Tensor, s: int) -> Tensor:
    """Unfolds channels into cubes of voxels, the channels of a voxel contiguous."""
    b, channels, d, h, w = x.shape
    c = channels // s**3
    x = x.reshape(b, s, s, s, c, d, h, w).permute(0, 4, 5, 1, 6, 2, 7, 3)
    return x.reshape(b, c, d * s, h * s, w * s)


def interpolation_matrix(lower: Tensor, upper: Tensor, source: int, target: int) -> Tensor:
    """Weights [b target source] of linear interpolation inside an interval of one axis."""
    centres = torch.arange(target, dtype=torch.float32) + 0.5
    step = (upper - lower) * (source / target)
    position = lower[:, None] * source + centres * step[:, None] - 0.5
    position = position.clamp(0, source - 1)[:, :, None]
    return (1 - (position - torch.arange(source, dtype=torch.float32)).abs()).clamp(min=0)


def crop_resample(x: Tensor, box: Tensor, shape: Sequence[int]) -> Tensor:
    """Samples features inside a box on a new grid."""
    for axis, formula in enumerate(("bid,bcdhw->bcihw", "bjh,bcdhw->bcdjw", "bkw,bcdhw->bcdhk")):
        matrix = interpolation_matrix(
            box[:, 0, axis], box[:, 1, axis], x.shape[axis + 2], shape[axis]
        )
        x = torch.einsum(formula, matrix, x)
    return x


class Residual(nn.Module):
    """Twice norm, rectifier, convolution; plus the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_0, self.conv_0 = group_norm(width), conv(width, width)
        self.norm_1, self.conv_1 = group_norm(width), conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape."""
        y = self.conv_0(activate(self.norm_0(x)))
        return x + self.conv_1(activate(self.norm_1(y)))


class Stem(nn.Module):
    """The sequences, weighted by learned shares, through one convolution."""

    def __init__(self, width: int, *, sequences: int = 4, stride: int) -> None:
        super().__init__()
        self.stride, channels = stride, sequences * stride**3
        self.kernel = nn.Parameter(torch.zeros(width, channels, 3, 3, 3))
        self.bias = nn.Parameter(torch.zeros(sequences, width))
        self.strength = nn.Parameter(torch.ones(sequences))

    def forward(self, image: Tensor, present: Tensor) -> Tensor:
        """Maps [b s d h w] to [b width d/stride h/stride w/stride]."""
        weight = torch.where(present > 0, torch.exp(self.strength - 1), 0.0)
        share = weight / weight.sum(-1, keepdim=True).clamp(min=1e-6)
        image = torch.where(present[:, :, None, None, None] > 0, image, 0.0)
        weighted = space_to_depth(image * share[:, :, None, None, None], self.stride)
        return (
            F.conv3d(weighted, self.kernel, padding=1) + (share @ self.bias)[..., None, None, None]
        )


class Pyramid(nn.Module):
    """Stem, then levels of residual blocks, each half as fine as the one before."""

    def __init__(self, widths: Sequence[int], *, stride: int) -> None:
        super().__init__()
        self.stem = Stem(widths[0], stride=stride)
        for level, width in enumerate(widths):
            if level:
                setattr(self, f"down_{level}", conv(widths[level - 1], width, stride=2))
            setattr(self, f"level_{level}_block_0", Residual(width))
        self.levels = len(widths)

    def forward(self, image: Tensor, present: Tensor) -> list[Tensor]:
        """Returns the features of every level, finest first."""
        x, found = self.stem(image, present), []
        for level in range(self.levels):
            x = getattr(self, f"down_{level}")(x) if level else x
            x = getattr(self, f"level_{level}_block_0")(x)
            found.append(x)
        return found


class Fusion(nn.Module):
    """Channel attention over two feature maps."""

    def __init__(self, width: int, other: int) -> None:
        super().__init__()
        channels = width + other
        self.squeeze = nn.Linear(channels, channels // 8, bias=False)
        self.expand = nn.Linear(channels // 8, channels, bias=False)
        self.gate = nn.Linear(2 * channels, channels, bias=False)
        self.project = nn.Linear(channels, width, bias=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Fuses y into x."""
        z = torch.cat([x, y.expand(len(x), *y.shape[1:])], 1)
        pooled = [
            self.expand(F.relu(self.squeeze(part)))
            for part in (z.mean((2, 3, 4)), z.amax((2, 3, 4)))
        ]
        scale = torch.sigmoid(self.gate(torch.cat(pooled, -1)))
        matrix = self.project.weight * scale[:, None]
        return x + (matrix @ z.flatten(2)).view(x.shape)


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, dim: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = nn.ModuleDict(
            {"qkv": nn.Linear(dim, 3 * dim, bias=False), "project": nn.Linear(dim, dim)}
        )
        self.mlp_0, self.mlp_1 = nn.Linear(dim, mlp_dim), nn.Linear(mlp_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [b n c] to [b n c]."""
        b, n, c = x.shape
        qkv = self.attention["qkv"](self.norm_attention(x)).view(b, n, 3, self.heads, -1)
        y = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))
        x = x + self.attention["project"](y.transpose(1, 2).reshape(b, n, c))
        return x + self.mlp_1(F.gelu(self.mlp_0(self.norm_mlp(x))))


class Transformer(nn.Module):
    """Features to tokens and back."""

    def __init__(self, width: int, options: Mapping[str, Any]) -> None:
        super().__init__()
        dim = options["dim"]
        self.norm_in, self.conv_in = group_norm(width), conv(width, dim)
        self.layers = options["layers"]
        for layer in range(self.layers):
            block = Block(dim, options["heads"], options["mlp_dim"])
            setattr(self, f"block_{layer}", block)
        self.norm_out = nn.LayerNorm(dim)
        self._positions: dict[torch.Size, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Maps [b c d h w] to [b dim d h w]."""
        x = self.conv_in(activate(self.norm_in(x)))
        grid = x.shape[2:]
        if grid not in self._positions:
            table = np.array(sincos_positions(tuple(grid), x.shape[1]))
            self._positions[grid] = torch.from_numpy(table).flatten(0, 2)
        tokens = x.flatten(2).transpose(1, 2) + self._positions[grid]
        for layer in range(self.layers):
            tokens = getattr(self, f"block_{layer}")(tokens)
        return self.norm_out(tokens).transpose(1, 2).unflatten(2, grid)


class MergeSkip(nn.Module):
    """Narrows and doubles the coarser features, joins them with the encoder's."""

    def __init__(self, width: int, skip: int) -> None:
        super().__init__()
        self.narrow, self.merge = conv(width, skip, size=1), conv(2 * skip, skip, size=1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Returns features on the skip's grid."""
        x = F.interpolate(self.narrow(x), scale_factor=2, mode="trilinear", align_corners=False)
        return self.merge(torch.cat([skip, x], 1))


class DetailHead(nn.Module):
    """Logits from unfolded features and intensities."""

    def __init__(self, width: int, classes: int, stride: int, detail: int) -> None:
        super().__init__()
        self.stride = stride
        self.unfold = conv(width, detail * stride**3, size=1)
        self.hidden = conv(detail + 4, 2 * detail, size=1)
        self.logits = conv(2 * detail, classes, size=1)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        """Returns [b classes d h w] on the image's grid."""
        x = torch.cat([depth_to_space(self.unfold(x), self.stride), image], 1)
        return self.logits(activate(self.hidden(x)))


class Decoder(nn.Module):
    """From the bottleneck to voxels."""

    def __init__(
        self,
        middle: int,
        widths: Sequence[int],
        classes: int,
        stride: int,
        *,
        others: Sequence[int] = (),
        detail: int = 0,
        deep: int = 0,
    ) -> None:
        super().__init__()
        self.last, self.stride, width = len(widths) - 1, stride, widths[-1]
        self.norm_0, self.conv_0 = group_norm(middle), conv(middle, width)
        self.norm_1, self.conv_1 = group_norm(width), conv(width, width)
        for level in range(self.last, -1, -1):
            if level < self.last:
                setattr(self, f"up_{level}", MergeSkip(widths[level + 1], widths[level]))
            setattr(self, f"block_{level}", Residual(widths[level]))
            if level and others:
                fusion = Fusion(widths[level], others[self.last - level])
                setattr(self, f"fusion_{level}", fusion)
        self.detail, self.deep = detail, deep
        for level in range(1, deep + 1):
            setattr(self, f"head_{level}", conv(widths[level], classes, size=1))
        if detail:
            self.head = DetailHead(widths[0], classes, stride, detail)
        else:
            self.head = conv(widths[0], classes * stride**3, size=1)

    def forward(
        self, x: Tensor, skips: Sequence[Tensor], others: Sequence[Tensor], image: Tensor
    ) -> tuple[list[Tensor], Tensor, list[Tensor]]:
        """Returns features of the levels but the finest, coarsest first, logits, and deep ones."""
        x = self.conv_0(activate(self.norm_0(x)))
        x = self.conv_1(activate(self.norm_1(x)))
        levels = []
        for level in range(self.last, -1, -1):
            if level < self.last:
                x = getattr(self, f"up_{level}")(x, skips[level])
            x = getattr(self, f"block_{level}")(x)
            if level:
                if others:
                    x = getattr(self, f"fusion_{level}")(x, others[self.last - level])
                levels.append(x)
        deep = [
            getattr(self, f"head_{level}")(levels[self.last - level])
            for level in range(1, self.deep + 1)
        ]
        if self.detail:
            return levels, self.head(x, image), deep
        return levels, depth_to_space(self.head(x), self.stride), deep
