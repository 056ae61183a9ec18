"""Soft Dice and cross-entropy of a segmentation, one value per example.

Sources: soft Dice over V-Net's form (Milletari 2016) with the sums 2·Σpg / (Σp + Σg) that GMMAS and
MTTU-Net use over {NCR, ED, ET}; regions and the added smoothing as in the BraTS entries of nnU-Net
(Isensee 2020); deep supervision weights as in nnU-Net. All sums run in float32: a bfloat16 sum over
two million voxels stops growing after a few hundred.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from gmmas_jax.cases.labels import REGIONS, UNDIVIDED, class_names, class_regions
from gmmas_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class SegmentationLoss:
    """How a segmentation is scored.

    Attributes:
        dice_over: "labels" (each class but the background, the published form) or "regions" (WT,
            TC, ET and, where the network has that class, RC; a region's probability is the sum of
            its labels').
        sum_classes: Add the classes' (1 − Dice), as published, instead of averaging them.
        batch_sums: Sum Dice over the whole batch before dividing, as the published code does,
            instead of one Dice per example. With accumulated gradients: over each microbatch.
        cross_entropy_weight: Weight of the voxel-wise cross-entropy beside Dice; 0 leaves it out.
        label_weights: Relative weight of each class's voxels in that cross-entropy, background
            first; None counts all alike, and so mostly background.
        smooth: Added to numerator and denominator of Dice, in voxels. With 0 a class that is absent
            from an example costs 1 whatever the network says, and passes no gradient.
        epsilon: Added to the denominator alone (the published code's 1e-5, with `smooth` 0).
        deep_weights: One weight per lower-resolution output, finest first, relative to 1 for the
            full-resolution output; the weights are divided by their sum.
    """

    dice_over: str = "labels"
    sum_classes: bool = False
    batch_sums: bool = False
    cross_entropy_weight: float = 0.0
    label_weights: tuple[float, ...] | None = None
    smooth: float = 1e-5
    epsilon: float = 0.0
    deep_weights: tuple[float, ...] = ()

    def __call__(
        self, logits: Array, label: Array, valid: Array, deep: Sequence[Array] = ()
    ) -> tuple[Array, dict[str, Array]]:
        """Scores a batch.

        Args:
            logits: [b d h w k] of any float dtype.
            label: [b d h w] int, codes of `cases.labels.LABELS`. Voxels whose code is negative or
                has no class (a resection cavity before a four-class network) are left out of every
                sum.
            valid: [b] float32, 1 where the example has a label.
            deep: Lower-resolution logits, each [b d/f h/f w/f k] for a whole f.

        Returns:
            values: [b] float32, 0 where `valid` is 0. Their sum over Σ valid is the loss.
            dice: Name to [b] float32: the soft Dice (1 is best) of the full-resolution output per
                label or region, 0 where `valid` is 0.

        Raises:
            UserError: If `deep_weights` does not fit the number of deep outputs.
        """
        if len(deep) != len(self.deep_weights):
            raise UserError(
                f"objective.deep_weights has {len(self.deep_weights)} values, but the network gives"
                f" {len(deep)} lower-resolution outputs. Give one weight for each."
            )
        label = class_of(label, logits.shape[-1])
        values, dice = self._score(logits, label, valid)
        for weight, low in zip(self.deep_weights, deep, strict=True):
            values = values + weight * self._score(low, subsample(label, low.shape[1:4]), valid)[0]
        return values / (1.0 + sum(self.deep_weights)), dice

    def _score(self, logits: Array, label: Array, valid: Array) -> tuple[Array, dict[str, Array]]:
        names = list(groups(logits.shape[-1], self.dice_over))
        dice = self._dice(logits, label, valid)
        missed = 1.0 - dice
        values = missed.sum(axis=-1) if self.sum_classes else missed.mean(axis=-1)
        if self.cross_entropy_weight:
            values = values + self.cross_entropy_weight * voxel_cross_entropy(
                logits, label, self.label_weights
            )
        # `where` and not a product: what stands in an unlabelled example may be anything.
        has_label = valid > 0
        return (
            jnp.where(has_label, values, 0.0),
            {name: jnp.where(has_label, dice[:, i], 0.0) for i, name in enumerate(names)},
        )

    def _dice(self, logits: Array, label: Array, valid: Array) -> Array:
        """Returns the soft Dice per example and group, [b g] float32."""
        overlap, size = overlap_sums(logits, label, self.dice_over)
        if self.batch_sums:
            has_label = (valid > 0)[:, None]
            shape = overlap.shape
            overlap = jnp.where(has_label, overlap, 0.0).sum(0, keepdims=True)
            size = jnp.where(has_label, size, 0.0).sum(0, keepdims=True)
            overlap, size = jnp.broadcast_to(overlap, shape), jnp.broadcast_to(size, shape)
        below = size + (self.smooth + self.epsilon)
        # Without any smoothing an absent class that nothing predicts would be 0/0.
        empty = below <= 0
        return jnp.where(empty, 0.0, (2.0 * overlap + self.smooth) / jnp.where(empty, 1.0, below))


def groups(num_classes: int, dice_over: str) -> dict[str, tuple[int, ...]]:
    """Returns the names that Dice is taken over and the classes that each unites.

    Args:
        num_classes: Classes of the network, the background included.
        dice_over: "labels" or "regions".

    Raises:
        UserError: On another word.
    """
    names = class_names(num_classes)
    if dice_over == "labels":
        return {name: (place,) for place, name in enumerate(names) if place > 0}
    if dice_over == "regions":
        return class_regions(names)
    raise UserError(f"objective.dice_over is {dice_over!r}; expected 'labels' or 'regions'.")


def overlap_sums(logits: Array, label: Array, dice_over: str) -> tuple[Array, Array]:
    """Sums what soft Dice is made of, per example.

    Args:
        logits: [b d h w k] of any float dtype.
        label: [b d h w] int.
        dice_over: "labels" or "regions".

    Returns:
        overlap: [b g] float32, Σ p·g over the voxels.
        size: [b g] float32, Σ p + Σ g.
    """
    num_classes = logits.shape[-1]
    probability = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
    probability = probability * has_class(label, num_classes)[..., None]
    truth = jax.nn.one_hot(label, num_classes, dtype=jnp.float32)
    overlap, size = [], []
    for codes in groups(num_classes, dice_over).values():
        p = sum(probability[..., code] for code in codes)
        g = sum(truth[..., code] for code in codes)
        overlap.append(jnp.sum(p * g, axis=(1, 2, 3)))
        size.append(jnp.sum(p, axis=(1, 2, 3)) + jnp.sum(g, axis=(1, 2, 3)))
    return jnp.stack(overlap, axis=-1), jnp.stack(size, axis=-1)


def voxel_cross_entropy(
    logits: Array, label: Array, label_weights: Sequence[float] | None = None
) -> Array:
    """Averages the cross-entropy over an example's voxels.

    Args:
        logits: [b d h w k] of any float dtype.
        label: [b d h w] int.
        label_weights: k weights, one for the voxels of each class; None for a plain mean.

    Returns:
        [b] float32, in nats; 0 for an example none of whose voxels has a class.
    """
    num_classes = logits.shape[-1]
    log_probability = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    truth = jax.nn.one_hot(label, num_classes, dtype=jnp.float32)
    if label_weights is not None:
        truth = truth * jnp.asarray(label_weights, jnp.float32)[None, None, None, None]
    total = -jnp.sum(truth * log_probability, axis=(1, 2, 3, 4))
    weight = truth.sum(axis=(1, 2, 3, 4))  # a voxel without a class has none
    return total / jnp.where(weight > 0, weight, 1.0)


def class_of(label: Array, num_classes: int) -> Array:
    """Returns the network's class of each voxel, int, -1 where it has none.

    The classes of a network are the first codes; with two they are background and whole tumour.
    """
    if num_classes != len(UNDIVIDED):
        return label
    tumour = functools.reduce(jnp.logical_or, [label == code for code in REGIONS["WT"]])
    return jnp.where(label == 0, 0, jnp.where(tumour, 1, -1))


def has_class(label: Array, num_classes: int) -> Array:
    """Returns [b d h w] float32, 1 where the label's code is a class of the network."""
    return ((label >= 0) & (label < num_classes)).astype(jnp.float32)


def subsample(label: Array, shape: Sequence[int]) -> Array:
    """Takes the label at a lower-resolution output's voxels, the middle one of each block.

    Args:
        label: [b d h w] int.
        shape: The lower (d, h, w), each dividing the label's.

    Returns:
        [b *shape] int.

    Raises:
        ValueError: If a length does not divide the label's.
    """
    lengths = label.shape[1:4]
    if any(full % low for full, low in zip(lengths, shape, strict=True)):
        raise ValueError(f"Output of {tuple(shape)} voxels does not divide a patch of {lengths}.")
    d, h, w = (full // low for full, low in zip(lengths, shape, strict=True))
    return label[:, d // 2 :: d, h // 2 :: h, w // 2 :: w]
