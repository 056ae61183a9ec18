"""The cross-task classifier: every task sees the features of every other (GMMAS)."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from gmmas_jax.errors import UserError
from gmmas_jax.models.fusion import average_pool, max_pool
from gmmas_jax.models.layers import NORM_EPSILON, convolution, dense
from gmmas_jax.models.options import ClassifierOptions, LayerOptions

Tasks = tuple[tuple[str, int], ...]
"""Names of tasks and their numbers of classes, sorted by name."""


class TaskFeatures(nn.Module):
    """Pooled features of every task.

    Each task has a convolution on the last level of the encoder and one on the fused bottleneck;
    the results of all tasks are stitched together and mixed anew for each task. The convolutions
    of all tasks share their input and are computed as one with more channels; so is the mixing.

    Attributes:
        tasks: Tasks and their numbers of classes.
        classifier: Widths and padding.
        options: How layers are built.
    """

    tasks: Tasks
    classifier: ClassifierOptions
    options: LayerOptions

    @nn.compact
    def __call__(self, local: jax.Array, deep: jax.Array) -> dict[str, jax.Array]:
        """Pools features for every task.

        Args:
            local: [b d h w c] last level of the convolutional encoder.
            deep: [b d h w c'] fused bottleneck, on the same grid.

        Returns:
            {task: [b 2·mixed_width] f32}: global averages, then global maxima.
        """
        classifier, count = self.classifier, len(self.tasks)
        grid = local.shape[1:4]
        if classifier.padding == "valid" and min(grid) < 3:
            raise UserError(
                f"model.classifier.padding is 'valid', but the last level has only {grid} voxels; "
                "choose larger patches, or 'same'."
            )
        stitched = [
            convolution(
                x, count * width, options=self.options, name=name, padding=classifier.padding
            )
            for x, width, name in (
                (local, classifier.local_width, "local"),
                (deep, classifier.deep_width, "deep"),
            )
        ]
        mixed = dense(
            jnp.concatenate(stitched, axis=-1),
            count * classifier.mixed_width,
            options=self.options,
            name="mix",
        )
        average = jnp.split(average_pool(mixed), count, axis=-1)
        maximum = jnp.split(max_pool(mixed), count, axis=-1)
        return {
            task: jnp.concatenate([average[index], maximum[index]], axis=-1)
            for index, (task, _) in enumerate(self.tasks)
        }


FEW_VOXELS = 30.0
"""Classes of fewer voxels are mostly stray ones; added to counts, and what means are damped by."""


def tumour_evidence(logits: jax.Array, image: jax.Array) -> jax.Array:
    """Measures the tumour that the network sees: size, composition, brightness and evenness.

    The type of a glioma shows in such numbers (is there a ring, is its core bright on t2w and dark
    on t2f), and they are learned from far fewer labels than a pattern of voxels is. Only voxels
    that are likelier tumour than not count: so a tumour has the same numbers in a small patch, in
    training, as in a window over the whole brain. No gradient flows back into the segmentation.

    Args:
        logits: [b d h w k] segmentation, class 0 background.
        image: [b d h w s] z-scores, absent sequences 0.

    Returns:
        [b 1 + (k - 1)·(1 + 2·s)] f32: log10 of the tumour's thousands of voxels; per tumour
        class log10 of its share of the tumour, and the mean and standard deviation of every
        sequence in it. `FEW_VOXELS` damps what a class of few voxels says.
    """
    probabilities = jax.lax.stop_gradient(jax.nn.softmax(logits.astype(jnp.float32)))
    parts = jnp.where(probabilities[..., :1] < 0.5, probabilities[..., 1:], 0.0)
    batch, classes = parts.shape[0], parts.shape[-1]
    parts = parts.reshape(batch, -1, classes)
    values = image.astype(jnp.float32).reshape(batch, -1, image.shape[-1])
    size = parts.sum(axis=1)
    tumour = size.sum(axis=-1, keepdims=True)
    total = jnp.maximum(size, 1e-3)[..., None]
    mean = jnp.einsum("bnk,bns->bks", parts, values) / total
    square = jnp.einsum("bnk,bns->bks", parts, jnp.square(values)) / total
    deviation = jnp.sqrt(jnp.maximum(square - jnp.square(mean), 0.0) + 1e-6)
    trust = (size / (size + FEW_VOXELS))[..., None]
    numbers = (
        jnp.log10(tumour + FEW_VOXELS) - 3.0,
        # Whether a twentieth of a tumour enhances or none of it says most: a logarithm tells.
        jnp.log10(size + FEW_VOXELS) - jnp.log10(tumour + FEW_VOXELS),
        (trust * mean).reshape(batch, -1),
        (trust * deviation).reshape(batch, -1),
    )
    return jnp.concatenate(numbers, axis=-1)


class TaskHead(nn.Module):
    """Dropout and a small perceptron in float32: pooled features to the logits of one task.

    Attributes:
        classes: Classes of the task.
        classifier: Hidden widths, activation, dropout.
        options: How layers are built.
    """

    classes: int
    classifier: ClassifierOptions
    options: LayerOptions

    @nn.compact
    def __call__(self, pooled: jax.Array, train: bool) -> jax.Array:
        """Maps [b c] to [b classes] f32."""
        x = nn.Dropout(self.classifier.dropout, deterministic=not train)(pooled)
        x = x.astype(jnp.float32)
        for layer, width in enumerate(self.classifier.hidden):
            name = f"hidden_{layer}"
            x = dense(x, width, options=self.options, name=name, dtype=jnp.float32)
            x = activate(x, self.classifier.activation)
        return dense(x, self.classes, options=self.options, name="logits", dtype=jnp.float32)


def activate(x: jax.Array, activation: str) -> jax.Array:
    """Applies the non-linearity of the heads; 'none' leaves an affine map, as published."""
    if activation == "relu":
        return nn.relu(x)
    if activation == "gelu":
        return nn.gelu(x, approximate=False)
    return x


class Classifier(nn.Module):
    """Features and heads of all tasks.

    Attributes:
        tasks: Tasks and their numbers of classes.
        classifier: Hyper-parameters of features and heads.
        options: How layers are built.
    """

    tasks: Tasks
    classifier: ClassifierOptions
    options: LayerOptions

    def setup(self) -> None:
        """Names the parts, and so the parameters."""
        self.features = TaskFeatures(self.tasks, self.classifier, self.options)
        if self.classifier.normalize:
            # The heads begin with the evidence, if they read it: pooled features are many and say
            # little at first. Their scale grows as they are found to help.
            init = nn.initializers.zeros if self.classifier.evidence else nn.initializers.ones
            self.norms = {
                task: nn.LayerNorm(epsilon=NORM_EPSILON, dtype=jnp.float32, scale_init=init)
                for task, _ in self.tasks
            }
        self.heads = {
            task: TaskHead(classes, self.classifier, self.options) for task, classes in self.tasks
        }

    def pool(
        self, local: jax.Array, deep: jax.Array, logits: jax.Array, image: jax.Array
    ) -> dict[str, jax.Array]:
        """Pools features of every task: `TaskFeatures` and what the options add."""
        pooled = self.features(local, deep)
        if self.classifier.normalize:
            pooled = {task: self.norms[task](x) for task, x in pooled.items()}
        if not self.classifier.evidence:
            return pooled
        evidence = tumour_evidence(logits, image)
        return {task: jnp.concatenate([x, evidence], axis=-1) for task, x in pooled.items()}

    def classify(self, pooled: Mapping[str, jax.Array], train: bool) -> dict[str, jax.Array]:
        """Maps {task: [b c]} to logits {task: [b classes]} f32; dropout only in training."""
        return {task: self.heads[task](pooled[task], train) for task, _ in self.tasks}
