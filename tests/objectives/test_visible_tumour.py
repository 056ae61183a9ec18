"""`tasks_see_tumour`: a type is learned only from patches in which there is something to see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmmas_jax.objectives.combine import VISIBLE_TUMOUR, make_objective

SIDE = 10  # 1000 voxels: the threshold of 0.002 is two of them
TASKS = ("idh",)


def _batch(tumour_voxels, *, label_valid):
    """One example per number of tumour voxels, every one with a label of the task."""
    count = len(tumour_voxels)
    label = np.zeros((count, SIDE**3), np.int32)
    for row, voxels in zip(label, tumour_voxels, strict=True):
        row[:voxels] = 1 + np.arange(voxels) % 3
    return {
        "label": label.reshape(count, SIDE, SIDE, SIDE),
        "whole_label": np.zeros((count, 2, 2, 2), np.int32),
        "label_valid": np.asarray(label_valid, np.float32),
        "targets": {"idh": np.eye(2, dtype=np.float32)[np.arange(count) % 2]},
        "target_valid": {"idh": np.ones(count, np.float32)},
    }


def _outputs(count):
    generator = np.random.default_rng(0)
    return {
        "segmentation": jnp.zeros((count, SIDE, SIDE, SIDE, 4)),
        "segmentation_deep": (),
        "segmentation_whole": jnp.zeros((count, 2, 2, 2, 4)),
        "tasks": {"idh": jnp.asarray(generator.normal(size=(count, 2)), jnp.float32)},
    }


def _objective(**changes):
    arguments = {"tasks": TASKS, "weighting": "fixed", "tasks_see_tumour": True}
    return make_objective(**arguments | changes)


def _task_loss(objective, batch):
    """Returns the task's (sum, count, gradient to its logits [b 2])."""
    outputs = _outputs(len(batch["label"]))

    def total(logits):
        loss, metrics = objective({"log_variance": {}}, outputs | {"tasks": {"idh": logits}}, batch)
        return loss, metrics["loss/idh"]

    gradient, (value, count) = jax.grad(total, has_aux=True)(outputs["tasks"]["idh"])
    return float(value), float(count), np.asarray(gradient)


def test_a_labelled_patch_without_tumour_teaches_no_task():
    batch = _batch([0, 500], label_valid=[1, 1])
    value, count, gradient = _task_loss(_objective(), batch)
    logits = np.asarray(_outputs(2)["tasks"]["idh"][1], np.float64)
    assert count == 1
    np.testing.assert_allclose(value, np.log(np.exp(logits).sum()) - logits[1], rtol=1e-5)
    assert not gradient[0].any()
    assert gradient[1].any()


def test_an_unlabelled_patch_counts_whatever_stands_in_its_label():
    batch = _batch([0, 0], label_valid=[0, 1])
    value, count, gradient = _task_loss(_objective(), batch)
    assert count == 1
    assert value > 0
    assert gradient[0].any()
    assert not gradient[1].any()


@pytest.mark.parametrize(("voxels", "seen"), [(1, 0), (2, 0), (3, 1)])
def test_more_than_two_in_a_thousand_voxels_are_seen(voxels, seen):
    assert VISIBLE_TUMOUR * SIDE**3 == 2
    value, count, gradient = _task_loss(_objective(), _batch([voxels], label_valid=[1]))
    assert count == seen
    assert (value > 0) == bool(seen)
    assert gradient.any() == bool(seen)


def test_without_the_option_every_labelled_task_counts():
    batch = _batch([0, 500], label_valid=[1, 1])
    _, count, gradient = _task_loss(_objective(tasks_see_tumour=False), batch)
    assert count == 2
    assert gradient.any(axis=1).all()


def test_a_batch_that_shows_no_tumour_moves_no_weight_of_the_task():
    objective = _objective(weighting="uncertainty")
    outputs, batch = _outputs(2), _batch([0, 1], label_valid=[1, 1])

    def loss(params, logits):
        return objective(params, outputs | {"tasks": {"idh": logits}}, batch)[0]

    own, through = jax.grad(loss, argnums=(0, 1))(objective.init(), outputs["tasks"]["idh"])
    assert own["log_variance"]["idh"] == 0
    assert not through.any()
    assert own["log_variance"]["segmentation"] != 0


def test_seen_and_missing_labels_are_counted_alike_by_counts_and_loss():
    batch = _batch([0, 500, 500, 0], label_valid=[1, 1, 1, 0])
    batch["target_valid"]["idh"][1] = 0
    objective = _objective()
    assert float(objective.counts(batch)["idh"]) == 2
    assert float(objective.counts(batch)["segmentation"]) == 3
    assert _task_loss(objective, batch)[1] == 2
