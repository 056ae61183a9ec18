"""The objective of multi-task training: segmentation, whole-volume segmentation, tasks."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array

from gmmas_jax.cases.tasks import TASKS
from gmmas_jax.errors import UserError
from gmmas_jax.objectives import classification, uncertainty
from gmmas_jax.objectives.segmentation import SegmentationLoss, groups

Metrics = dict[str, tuple[Array, Array]]
"""Name to (total, count), scalars float32. Totals and counts add up over batches; the mean is
total / count, and a count of 0 says that nothing was measured."""

WEIGHTINGS = ("uncertainty", "fixed")
VISIBLE_TUMOUR = 0.002
"""Share of a patch that must be tumour for the patch to see it: 0.5 mL of 64 mm cubed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """A multi-task loss. Made by `make_objective`, which says what the fields mean.

    Every term is Σ valid·value / max(Σ valid, 1) over the global batch. A task of which the batch
    holds no label contributes a loss of 0 and a gradient of exactly 0, to the network and to its
    own log-variance. (An optimiser with momentum or decoupled weight decay still moves parameters
    at a gradient of 0.)

    Attributes:
        views: How many views of an example it compares: what `data.views` must be.
    """

    views: ClassVar[int] = 1

    tasks: tuple[str, ...]
    segmentation: SegmentationLoss
    whole_segmentation: SegmentationLoss
    whole_weight: float
    class_weights: Mapping[str, Sequence[float] | None]
    weighting: str
    fixed_weights: Mapping[str, float]
    tasks_see_tumour: bool

    def init(self) -> dict[str, dict[str, Array]]:
        """Returns the objective's own parameters: a log-variance s of 0 for each weighted term."""
        names = self._terms() if self.weighting == "uncertainty" else ()
        return {"log_variance": {name: jnp.zeros((), jnp.float32) for name in names}}

    def counts(self, batch: Mapping[str, Any]) -> dict[str, Array]:
        """Returns how many examples of the batch are labelled, per term: scalars float32."""
        valid = {"segmentation": batch["label_valid"]}
        valid |= {task: self._task_valid(batch, task) for task in self.tasks}
        return {name: jnp.sum(mask > 0, dtype=jnp.float32) for name, mask in valid.items()}

    def __call__(
        self,
        params: Mapping[str, Mapping[str, Array]],
        outputs: Mapping[str, Any],
        batch: Mapping[str, Any],
        *,
        counts: Mapping[str, Array] | None = None,
        share: float = 1.0,
    ) -> tuple[Array, Metrics]:
        """Computes the loss of a batch.

        Args:
            params: As returned by `init`.
            outputs: segmentation [b d h w k], segmentation_deep (tuple of [b d' h' w' k]),
                segmentation_whole [b D H W k], tasks {task: [b classes]}: logits.
            batch: label [b d h w] int, whole_label [b D H W] int, label_valid [b],
                targets {task: [b classes]}, target_valid {task: [b]}.
            counts: The denominators, when `batch` is one microbatch of a larger batch: the larger
                batch's `counts`. The losses of all microbatches then add up to that batch's.
            share: This batch's part of that larger batch.

        Returns:
            loss: Scalar float32.
            metrics: loss/<term>, dice/<label or region> (soft), accuracy/<task>,
                log_variance/<term>.

        Raises:
            UserError: While tracing, if the network lacks a head for one of the tasks, or does not
                have as many lower-resolution outputs as there are `deep_weights`.
        """
        counts = self.counts(batch) if counts is None else counts
        totals, metrics = self._segment(outputs, batch)
        for task in self.tasks:
            if task not in outputs["tasks"]:
                raise UserError(
                    f"objective.tasks names {task!r}, but the network has heads for "
                    f"{', '.join(outputs['tasks']) or 'no task'}. Name the same tasks in both."
                )
            logits, targets = outputs["tasks"][task], batch["targets"][task]
            valid = self._task_valid(batch, task)
            count = jnp.sum(valid > 0, dtype=jnp.float32)
            values = classification.cross_entropy(logits, targets, valid, self.class_weights[task])
            totals[task] = values.sum()
            metrics[f"loss/{task}"] = (totals[task], count)
            correct = classification.hits(logits, targets, valid).sum()
            metrics[f"accuracy/{task}"] = (correct, count)
        labelled_as = {name: name for name in totals} | {"segmentation_whole": "segmentation"}
        losses = {
            name: total / jnp.maximum(counts[labelled_as[name]], 1.0)
            for name, total in totals.items()
        }
        part = jnp.asarray(share, jnp.float32)
        for name, value in params["log_variance"].items():
            metrics[f"log_variance/{name}"] = (part * value, part)
        return self._combine(params, losses, counts, share), metrics

    def _task_valid(self, batch: Mapping[str, Any], task: str) -> Array:
        """Returns [b] float32: 1 where the example teaches the task."""
        valid = batch["target_valid"][task]
        if not self.tasks_see_tumour:
            return valid
        visible = jnp.mean(batch["label"] > 0, axis=(1, 2, 3), dtype=jnp.float32) > VISIBLE_TUMOUR
        return jnp.where((batch["label_valid"] > 0) & ~visible, 0.0, valid)

    def _terms(self) -> tuple[str, ...]:
        return ("segmentation", *self.tasks)

    def _segment(
        self, outputs: Mapping[str, Any], batch: Mapping[str, Any]
    ) -> tuple[dict[str, Array], Metrics]:
        valid = batch["label_valid"]
        count = jnp.sum(valid > 0, dtype=jnp.float32)
        deep = tuple(outputs["segmentation_deep"])
        values, dice = self.segmentation(outputs["segmentation"], batch["label"], valid, deep)
        totals = {"segmentation": values.sum()}
        metrics = {f"dice/{name}": (value.sum(), count) for name, value in dice.items()}
        if self.whole_weight:
            values, _ = self.whole_segmentation(
                outputs["segmentation_whole"], batch["whole_label"], valid
            )
            totals["segmentation_whole"] = values.sum()
        return totals, metrics | {f"loss/{name}": (t, count) for name, t in totals.items()}

    def _combine(
        self,
        params: Mapping[str, Mapping[str, Array]],
        losses: Mapping[str, Array],
        counts: Mapping[str, Array],
        share: float,
    ) -> Array:
        terms = {name: losses[name] for name in self._terms()}
        if self.weighting == "uncertainty":
            loss = uncertainty.weighted_sum(terms, params["log_variance"], counts, share=share)
        else:
            loss = jnp.zeros((), jnp.float32)
            for name, value in terms.items():
                loss = loss + self.fixed_weights[name] * value
        if self.whole_weight:
            # Outside the learned weights, as published: the global branch is only a helper.
            loss = loss + self.whole_weight * losses["segmentation_whole"]
        return loss


def make_objective(
    *,
    tasks: Sequence[str],
    dice_over: str = "labels",
    sum_classes: bool = False,
    batch_sums: bool = False,
    cross_entropy_weight: float = 0.0,
    label_weights: Sequence[float] | None = None,
    smooth: float = 1e-5,
    epsilon: float = 0.0,
    deep_weights: Sequence[float] = (),
    whole_weight: float = 1.0,
    class_weights: Mapping[str, Sequence[float]] | None = None,
    weighting: str = "uncertainty",
    fixed_weights: Mapping[str, float] | None = None,
    tasks_see_tumour: bool = False,
) -> Objective:
    """Makes the objective of multi-task training.

    Args:
        tasks: Names of `cases.tasks.TASKS`; may be empty.
        dice_over: See `SegmentationLoss`, as for the next seven.
        sum_classes: Add the classes' losses instead of averaging them.
        batch_sums: Dice over the batch instead of per example.
        cross_entropy_weight: Weight of the voxel-wise cross-entropy.
        label_weights: Weight of each class's voxels in it.
        smooth: Added to both sides of Dice's fraction.
        epsilon: Added to its denominator.
        deep_weights: One per lower-resolution output.
        whole_weight: Weight of the global branch's segmentation of the whole volume, which stands
            outside the learned weights; 0 leaves it out.
        class_weights: Task to one relative weight per class.
        weighting: "uncertainty" (learned, see `objectives.uncertainty`) or "fixed".
        fixed_weights: With "fixed": term ("segmentation" or a task) to weight; 1 where not named.
        tasks_see_tumour: Leave the tasks out of labelled patches that show no tumour: a type cannot
            be told from healthy brain, and inference averages over windows that see tumour.

    Raises:
        UserError: On an unknown word, task, or number of class weights.
    """
    class_weights, fixed_weights = dict(class_weights or {}), dict(fixed_weights or {})
    _check_tasks(tasks, class_weights)
    groups(2, dice_over)
    if weighting not in WEIGHTINGS:
        raise UserError(
            f"objective.weighting is {weighting!r}; expected one of {', '.join(WEIGHTINGS)}."
        )
    if weighting != "fixed" and fixed_weights:
        raise UserError(
            f"objective.fixed_weights is given, but objective.weighting is {weighting!r}. "
            "Set objective.weighting=fixed, or remove the weights."
        )
    for name in set(fixed_weights) - {"segmentation", *tasks}:
        raise UserError(
            f"objective.fixed_weights names {name!r}; expected one of "
            f"{', '.join(('segmentation', *tasks))}."
        )
    loss = SegmentationLoss(
        dice_over=dice_over,
        sum_classes=sum_classes,
        batch_sums=batch_sums,
        cross_entropy_weight=cross_entropy_weight,
        label_weights=tuple(label_weights) if label_weights else None,
        smooth=smooth,
        epsilon=epsilon,
        deep_weights=tuple(deep_weights),
    )
    return Objective(
        tasks=tuple(tasks),
        segmentation=loss,
        whole_segmentation=dataclasses.replace(loss, deep_weights=()),
        whole_weight=whole_weight,
        class_weights=dict.fromkeys(tasks) | class_weights,
        weighting=weighting,
        fixed_weights=dict.fromkeys(("segmentation", *tasks), 1.0) | fixed_weights,
        tasks_see_tumour=tasks_see_tumour,
    )


def _check_tasks(tasks: Sequence[str], class_weights: Mapping[str, Sequence[float]]) -> None:
    for task in tasks:
        if task not in TASKS:
            raise UserError(
                f"objective.tasks names {task!r}; expected names among {', '.join(TASKS)}."
            )
    for task, weights in class_weights.items():
        if task not in tasks:
            raise UserError(
                f"objective.class_weights names {task!r}, which is none of objective.tasks "
                f"({', '.join(tasks)})."
            )
        if len(weights) != len(TASKS[task]) or min(weights) <= 0:
            raise UserError(
                f"objective.class_weights.{task} is {tuple(weights)}; expected "
                f"{len(TASKS[task])} positive numbers, one for each of {', '.join(TASKS[task])}."
            )
