"""`configs/gmmas_mini.py` written in PyTorch, to be timed against: the same layers and parameters.

Modules bear the names of the Linen modules, so that `torch_layout` can bring a tree of JAX
parameters, or of gradients, to PyTorch's layout; `mini_vs_pytorch.py` checks by it that both are
one and the same function. Only what the mini configuration uses is written. PyTorch is no
dependency of the project: see `README.md`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.pytorch_layers import (
    Decoder,
    Fusion,
    Pyramid,
    Transformer,
    activate,
    conv,
    crop_resample,
    group_norm,
)
from gmmas_jax.models.heads import FEW_VOXELS


class GlobalUNet(nn.Module):
    """The U-Net over the whole brain."""

    def __init__(self, options: Mapping[str, Any], classes: int) -> None:
        super().__init__()
        widths, middle = options["widths"], options["middle"]
        self.pyramid = Pyramid(widths, stride=options["stem_stride"])
        self.norm_middle = group_norm(widths[-1])
        self.conv_middle_0 = conv(widths[-1], middle[0])
        self.conv_middle_1 = conv(middle[0], middle[1])
        self.decoder = Decoder(middle[1], widths, classes, options["stem_stride"])

    def forward(self, whole: Tensor, present: Tensor) -> tuple[list[Tensor], Tensor]:
        """Returns the bottleneck and the decoder's levels, coarsest first; and the logits."""
        skips = self.pyramid(whole, present)
        middle = self.conv_middle_1(self.conv_middle_0(activate(self.norm_middle(skips[-1]))))
        levels, logits, _ = self.decoder(middle, skips, (), whole)
        return [middle, *levels], logits


class Encoder(nn.Module):
    """Pyramid, transformer, fusion with the global bottleneck."""

    def __init__(
        self, options: Mapping[str, Any], transformer: Mapping[str, Any], middle: int
    ) -> None:
        super().__init__()
        self.pyramid = Pyramid(options["widths"], stride=options["stem_stride"])
        self.transformer = Transformer(options["widths"][-1], transformer)
        self.fusion = Fusion(transformer["dim"], middle)

    def forward(
        self, image: Tensor, present: Tensor, middle: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """Returns the levels, finest first, and the fused bottleneck."""
        levels = self.pyramid(image, present)
        return levels, self.fusion(self.transformer(levels[-1]), middle)


class Features(nn.Module):
    """Pooled features of every task."""

    def __init__(self, options: Mapping[str, Any], width: int, dim: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.local = conv(width, count * options["local_width"])
        self.deep = conv(dim, count * options["deep_width"])
        stitched = count * (options["local_width"] + options["deep_width"])
        self.mix = conv(stitched, count * options["mixed_width"], size=1)

    def forward(self, local: Tensor, deep: Tensor) -> list[Tensor]:
        """Returns [b 2·mixed_width] for every task."""
        x = self.mix(torch.cat([self.local(local), self.deep(deep)], 1))
        average = x.mean((2, 3, 4)).chunk(self.count, 1)
        maximum = x.amax((2, 3, 4)).chunk(self.count, 1)
        return [torch.cat(pair, 1) for pair in zip(average, maximum, strict=True)]


def tumour_evidence(logits: Tensor, image: Tensor) -> Tensor:
    """Size, composition, brightness and evenness of the segmented tumour."""
    probabilities = logits.detach().softmax(1).flatten(2)
    parts = probabilities[:, 1:] * (probabilities[:, :1] < 0.5)
    values = image.flatten(2).transpose(1, 2)
    size = parts.sum(2)
    tumour = size.sum(1, keepdim=True)
    total = size.clamp(min=1e-3)[..., None]
    mean, square = parts @ values / total, parts @ values.square() / total
    deviation = ((square - mean.square()).clamp(min=0) + 1e-6).sqrt()
    trust = (size / (size + FEW_VOXELS))[..., None]
    voxels = torch.log10(tumour + FEW_VOXELS)
    shares = torch.log10(size + FEW_VOXELS) - voxels
    numbers = (trust * mean).flatten(1), (trust * deviation).flatten(1)
    return torch.cat([voxels - 3, shares, *numbers], 1)


class Classifier(nn.Module):
    """Features and heads of all tasks."""

    def __init__(
        self, tasks: Mapping[str, int], options: Mapping[str, Any], width: int, dim: int
    ) -> None:
        super().__init__()
        self.tasks = sorted(tasks)
        self.features = Features(options, width, dim, len(tasks))
        self.dropout = nn.Dropout(options["dropout"])
        pooled, hidden = 2 * options["mixed_width"], options["hidden"][0]
        for task in self.tasks:
            setattr(self, f"norms_{task}", nn.LayerNorm(pooled))
            layers = {
                "hidden_0": nn.Linear(pooled + 28, hidden),
                "logits": nn.Linear(hidden, tasks[task]),
            }
            setattr(self, f"heads_{task}", nn.ModuleDict(layers))

    def forward(
        self, local: Tensor, deep: Tensor, logits: Tensor, image: Tensor
    ) -> dict[str, Tensor]:
        """Returns the logits of every task."""
        evidence, found = tumour_evidence(logits, image), {}
        for task, x in zip(self.tasks, self.features(local, deep), strict=True):
            x = torch.cat([getattr(self, f"norms_{task}")(x), evidence], 1)
            head = getattr(self, f"heads_{task}")
            found[task] = head["logits"](F.gelu(head["hidden_0"](self.dropout(x))))
        return found


class MiniGMMAS(nn.Module):
    """The network of `configs/gmmas_mini.py`."""

    def __init__(self, model: Mapping[str, Any]) -> None:
        super().__init__()
        encoder, unet, dim = model["encoder"], model["global_unet"], model["transformer"]["dim"]
        classes, stride = model["num_classes"], encoder["stem_stride"]
        self.reduction = stride * 2 ** (len(encoder["widths"]) - 1)
        self.encoder = Encoder(encoder, model["transformer"], unet["middle"][1])
        self.decoder = Decoder(
            dim,
            encoder["widths"],
            classes,
            stride,
            others=unet["widths"][:0:-1],
            detail=model["detail_width"],
            deep=model["deep_supervision"],
        )
        self.global_unet = GlobalUNet(unet, classes)
        width = encoder["widths"][-1]
        self.classifier = Classifier(model["tasks"], model["classifier"], width, dim)

    def forward(self, image: Tensor, present: Tensor, whole: Tensor, box: Tensor) -> dict[str, Any]:
        """Returns what the network in JAX does, without pooled features."""
        (middle, *others), whole_logits = self.global_unet(whole, present)
        grid = [size // self.reduction for size in image.shape[2:]]
        middle = crop_resample(middle, box, grid)
        others = [
            crop_resample(level, box, [size * 2**index for size in grid])
            for index, level in enumerate(others)
        ]
        image = torch.where(present[:, :, None, None, None] > 0, image, 0.0)
        levels, bottleneck = self.encoder(image, present, middle)
        _, logits, deep = self.decoder(bottleneck, levels, others, image)
        tasks = self.classifier(levels[-1], bottleneck, logits, image)
        return {
            "segmentation": logits,
            "segmentation_deep": deep,
            "segmentation_whole": whole_logits,
            "tasks": tasks,
        }


class Objective(nn.Module):
    """The loss of the mini configuration, for batches in which everything is labelled."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.options = options
        names = ("segmentation", *options["tasks"])
        self.log_variance = nn.ParameterDict({n: nn.Parameter(torch.zeros(())) for n in names})

    def segmentation(self, logits: Tensor, label: Tensor) -> Tensor:
        """Dice over labels and cross-entropy weighted by label, averaged over examples."""
        smooth = self.options["smooth"]
        weights = logits.new_tensor(self.options["label_weights"] or (1.0,) * logits.shape[1])
        probability = logits.softmax(1)
        truth = F.one_hot(label, logits.shape[1]).movedim(-1, 1)
        overlap = (probability * truth).sum((2, 3, 4))[:, 1:]
        size = (probability.sum((2, 3, 4)) + truth.sum((2, 3, 4)))[:, 1:]
        dice = (2 * overlap + smooth) / (size + smooth)
        entropy = F.cross_entropy(logits, label, weights, reduction="none").sum((1, 2, 3))
        entropy = entropy / weights[label].sum((1, 2, 3))
        return ((1 - dice).mean(1) + self.options["cross_entropy_weight"] * entropy).mean()

    def forward(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> Tensor:
        """Returns the scalar loss."""
        label, weights = batch["label"], self.options["deep_weights"]
        own = self.segmentation(outputs["segmentation"], label)
        for weight, logits in zip(weights, outputs["segmentation_deep"], strict=True):
            f = label.shape[1] // logits.shape[2]  # the middle voxel of each block
            coarse = label[:, f // 2 :: f, f // 2 :: f, f // 2 :: f]
            own = own + weight * self.segmentation(logits, coarse)
        losses = {"segmentation": own / (1 + sum(weights))}
        for task in self.options["tasks"]:
            losses[task] = F.cross_entropy(outputs["tasks"][task], batch["targets"][task])
        total = self.options["whole_weight"] * self.segmentation(
            outputs["segmentation_whole"], batch["whole_label"]
        )
        for name, loss in losses.items():
            s = self.log_variance[name]
            total = total + 0.5 * torch.exp(-s) * loss + s
        return total


def torch_layout(module: nn.Module, tree: Mapping[str, Any]) -> dict[str, Tensor]:
    """Brings a tree shaped like the JAX parameters to the names and layout of a PyTorch module.

    Args:
        module: `MiniGMMAS` or `Objective`.
        tree: Of arrays: parameters, or their gradients.

    Raises:
        KeyError: If a module has no counterpart in the tree.
        ValueError: If a shape differs.
    """
    found = {}
    for name, parameter in module.named_parameters():
        *path, leaf = name.split(".")
        node: Any = tree
        for part in path:
            node = node[part]
        if isinstance(node, Mapping):
            norm = leaf == "weight" and "scale" in node
            leaf = {"weight": "scale" if norm else "kernel"}.get(leaf, leaf)
            node = node[leaf]
        values = np.asarray(node)
        if leaf in ("kernel", "weight"):
            if values.ndim == 6:  # one branch of a down-sampling
                values = values[0]
            values = np.moveaxis(values, (-1, -2), (0, 1))
        sizes = [[n for n in shape if n > 1] for shape in (values.shape, parameter.shape)]
        if sizes[0] != sizes[1]:
            raise ValueError(f"{name} is {tuple(parameter.shape)}, in JAX {values.shape}")
        found[name] = torch.tensor(values).reshape(parameter.shape)
    return found
