"""U-Net and MU-Net written in PyTorch, to be timed against: the same layers and parameters.

Modules bear the names of the Linen modules in `gmmas_jax/models/unet.py` and `fusion.py`, whose
docstrings say what they compute. Images are [b c h w] here.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvPair(nn.Module):
    """Twice a 3x3 convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.conv_0 = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
        self.conv_1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm_0, self.norm_1 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [b c h w] to [b width h w]."""
        x = F.relu(self.norm_0(self.conv_0(x)))
        return F.relu(self.norm_1(self.conv_1(x)))


class Widen(nn.Module):
    """A transposed 2x2 convolution of stride 2, to half the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(width // 2, width, 2, 2))
        self.bias = nn.Parameter(torch.zeros(width // 2))

    def forward(self, x: Tensor) -> Tensor:
        """Maps [b c h w] to [b c/2 2h 2w]."""
        return F.conv_transpose2d(x, self.kernel.transpose(0, 1), self.bias, stride=2)


class MultiScaleFusion(nn.Module):
    """Channel and spatial attention over the weighted sum of two feature maps."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.tensor([1.0, 1.0, 0.0]))
        self.squeeze, self.expand = nn.Linear(width, width // 8), nn.Linear(width // 8, width)
        self.places = nn.Conv2d(2, 1, 7, padding=3, padding_mode="reflect")

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Fuses x and y [b c h w]."""
        info = self.mix[0] * x + self.mix[1] * y + self.mix[2]
        channels = self.expand(F.relu(self.squeeze(info.mean((2, 3)))))
        places = self.places(torch.stack([info.mean(1), info.amax(1)], 1))
        weight = torch.sigmoid(channels[:, :, None, None] + places)
        return info + weight * x + (1 - weight) * y


class UNet(nn.Module):
    """The network of `configs/unet2d.py` or, with fusion 'msf', of `configs/munet.py`."""

    def __init__(self, sequences: int, classes: int, widths: Sequence[int], fusion: str) -> None:
        super().__init__()
        self.levels, self.fusion = len(widths), fusion
        for level, width in enumerate(widths):
            inputs = widths[level - 1] if level else sequences
            setattr(self, f"down_{level}", ConvPair(inputs, width))
        for level, width in enumerate(widths[:-1]):
            setattr(self, f"widen_{level}", Widen(2 * width))
            if fusion == "msf":
                setattr(self, f"fusion_{level}", MultiScaleFusion(width))
            inputs = width if fusion == "msf" else 2 * width
            setattr(self, f"up_{level}", ConvPair(inputs, width))
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [b s h w] to logits [b k h w]."""
        skips = []
        for level in range(self.levels):
            x = F.max_pool2d(x, 2) if level else x
            x = getattr(self, f"down_{level}")(x)
            skips.append(x)
        for level in range(self.levels - 2, -1, -1):
            x = getattr(self, f"widen_{level}")(x)
            if self.fusion == "msf":
                x = getattr(self, f"fusion_{level}")(skips[level], x)
            else:
                x = torch.cat([skips[level], x], 1)
            x = getattr(self, f"up_{level}")(x)
        return self.head(x)
