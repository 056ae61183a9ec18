"""Tumor-CutMix's labels in proportion, from the stream into the loss."""

from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.pipeline import train_batches
from gmmas_jax.augment.examples import widen
from gmmas_jax.cases.tasks import TASKS
from gmmas_jax.objectives.combine import make_objective
from tests.data_pipelines.memory_cases import two_classes

USED = ("grade", "idh", "codel_1p19q")


@pytest.fixture(name="batch", scope="module")
def _batch():
    """Eight examples, all of which are composites where their case has a tumour and a grade."""
    stream = train_batches(
        two_classes(),
        seed=3,
        batch_size=8,
        patch=(8, 8, 8),
        foreground=1.0,
        sequence_drop="none",
        tasks=USED,
        balance=("grade",),
        cutmix=1.0,
        cutmix_task=("grade",),
    )
    (batch,) = islice(stream, 1)
    return batch


def _outputs(batch):
    generator = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(generator.normal(size=shape), jnp.float32)

    return {
        "segmentation": draw(*batch["label"].shape, 4),
        "segmentation_deep": (),
        "segmentation_whole": draw(*batch["whole_label"].shape, 4),
        "tasks": {task: draw(8, len(TASKS[task])) for task in USED},
    }


def _expected(logits, targets, valid, weights):
    """−Σ w q log p over the examples with a label, by their number: the definition, in float64."""
    logits = np.asarray(logits, np.float64)
    log_probability = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    values = -(np.asarray(weights) / np.mean(weights) * targets * log_probability).sum(-1)
    return values[valid > 0].sum() / max((valid > 0).sum(), 1)


def test_the_batch_holds_composites_and_halves_that_are_not_known(batch):
    mixed = (batch["targets"]["grade"] > 0).sum(-1) == 2
    assert 4 <= mixed.sum() < 8
    np.testing.assert_allclose(batch["targets"]["grade"][mixed].sum(-1), 1, rtol=1e-6)
    unknown = batch["target_valid"]["codel_1p19q"] == 0
    assert (mixed & unknown).any()
    assert not batch["targets"]["codel_1p19q"][unknown].any()
    # Two mutants make a mutant, whatever the proportion.
    same = mixed & (batch["targets"]["idh"].max(-1) == 1)
    assert same.any()


@pytest.mark.parametrize("weights", [{}, {"grade": (1.0, 2.0, 5.0)}], ids=["plain", "weighted"])
def test_the_loss_of_mixed_labels_equals_numpy(batch, weights):
    objective = make_objective(
        tasks=USED, weighting="fixed", whole_weight=0.0, class_weights=weights
    )
    outputs = _outputs(batch)
    loss, metrics = objective(objective.init(), outputs, widen(batch))
    parts = {
        task: _expected(
            outputs["tasks"][task],
            batch["targets"][task],
            batch["target_valid"][task],
            weights.get(task, np.ones(len(TASKS[task]))),
        )
        for task in USED
    }
    for task, part in parts.items():
        total, count = metrics[f"loss/{task}"]
        np.testing.assert_allclose(total / count, part, rtol=1e-5)
        assert count == (batch["target_valid"][task] > 0).sum()
    total, count = metrics["loss/segmentation"]
    np.testing.assert_allclose(loss, total / count + sum(parts.values()), rtol=1e-5)


def test_the_gradient_pulls_towards_the_proportion(batch):
    """Softmax minus target: 0 where the network says exactly the proportion of the composite."""
    objective = make_objective(tasks=("grade",), weighting="fixed", whole_weight=0.0)
    wide, outputs = widen(batch), _outputs(batch)
    valid, targets = batch["target_valid"]["grade"], batch["targets"]["grade"]

    def loss(logits):
        tasks = {"grade": logits}
        return objective(objective.init(), outputs | {"tasks": tasks}, wide)[0]

    logits = outputs["tasks"]["grade"]
    gradient = jax.grad(loss)(logits)
    expected = (jax.nn.softmax(logits) - targets) * valid[:, None] / valid.sum()
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
