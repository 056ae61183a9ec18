"""The combined objective: NumPy references, missing labels, learned weights, microbatches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmmas_jax.errors import UserError
from gmmas_jax.objectives import classification, uncertainty
from gmmas_jax.objectives.combine import make_objective

TASKS = ("idh", "histology")
NUM_CLASSES = {"idh": 2, "histology": 3}


def _batch(count=4, *, seed=0):
    generator = np.random.default_rng(seed)
    targets = {
        task: np.eye(k, dtype=np.float32)[generator.integers(0, k, count)]
        for task, k in NUM_CLASSES.items()
    }
    return {
        "label": generator.integers(0, 4, (count, 4, 4, 4)).astype(np.int32),
        "whole_label": generator.integers(0, 4, (count, 2, 2, 2)).astype(np.int32),
        "label_valid": np.asarray([1, 1, 0, 1], np.float32)[:count],
        "targets": targets,
        "target_valid": {
            "idh": np.asarray([1, 0, 1, 1], np.float32)[:count],
            "histology": np.asarray([0, 1, 1, 0], np.float32)[:count],
        },
    }


def _outputs(count=4, *, seed=1):
    generator = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(generator.normal(size=shape), jnp.float32)

    return {
        "segmentation": draw(count, 4, 4, 4, 4),
        "segmentation_deep": (),
        "segmentation_whole": draw(count, 2, 2, 2, 4),
        "tasks": {task: draw(count, k) for task, k in NUM_CLASSES.items()},
    }


def _rows(tree, index):
    return jax.tree.map(lambda array: array[index], tree)


def _log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_cross_entropy_equals_numpy_with_weights_and_soft_targets():
    logits = np.asarray(_outputs()["tasks"]["histology"])
    targets = np.asarray(
        [[1, 0, 0], [0.2, 0.5, 0.3], [np.nan, np.nan, np.nan], [0, 0, 1]], np.float32
    )
    valid = np.asarray([1, 1, 0, 1], np.float32)
    weights = (100.0, 200.0, 600.0)
    values = classification.cross_entropy(logits, targets, valid, weights)
    expected = -(targets * np.asarray(weights) / 300.0 * _log_softmax(logits)).sum(-1)
    np.testing.assert_allclose(values, np.where(valid > 0, expected, 0), rtol=1e-5)
    assert values[2] == 0
    assert values.dtype == jnp.float32


def test_scale_of_class_weights_does_not_matter():
    logits, batch = _outputs()["tasks"]["idh"], _batch()
    targets, valid = batch["targets"]["idh"], batch["target_valid"]["idh"]
    one = classification.cross_entropy(logits, targets, valid, (112.0, 245.0))
    other = classification.cross_entropy(logits, targets, valid, (1.12, 2.45))
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_uncertainty_weighting_rests_at_half_the_loss():
    losses = {"a": jnp.asarray(0.7), "b": jnp.asarray(3.0)}
    present = {"a": jnp.asarray(1.0), "b": jnp.asarray(5.0)}

    def total(s):
        return uncertainty.weighted_sum(losses, s, present)

    rest = {name: jnp.log(0.5 * loss) for name, loss in losses.items()}
    gradient = jax.grad(total)(rest)
    np.testing.assert_allclose([gradient["a"], gradient["b"]], 0.0, atol=1e-6)
    np.testing.assert_allclose(total(rest), sum(1 + np.log(x / 2) for x in (0.7, 3.0)), rtol=1e-6)
    s = {"a": jnp.asarray(0.3), "b": jnp.asarray(-1.0)}
    expected = 0.5 * np.exp(-0.3) * 0.7 + 0.3 + 0.5 * np.exp(1.0) * 3.0 - 1.0
    np.testing.assert_allclose(total(s), expected, rtol=1e-6)


def test_objective_equals_its_parts():
    objective = make_objective(
        tasks=TASKS, dice_over="regions", whole_weight=2.0, class_weights={"idh": (1.0, 3.0)}
    )
    params = {
        "log_variance": {
            "segmentation": jnp.asarray(0.5),
            "idh": jnp.asarray(-0.2),
            "histology": jnp.asarray(0.1),
        }
    }
    outputs, batch = _outputs(), _batch()
    loss, metrics = objective(params, outputs, batch)
    dice, _ = objective.segmentation(outputs["segmentation"], batch["label"], batch["label_valid"])
    whole, _ = objective.segmentation(
        outputs["segmentation_whole"], batch["whole_label"], batch["label_valid"]
    )
    parts = {"segmentation": dice.sum() / 3}
    for task, weights in (("idh", (1.0, 3.0)), ("histology", None)):
        valid = batch["target_valid"][task]
        values = classification.cross_entropy(
            outputs["tasks"][task], batch["targets"][task], valid, weights
        )
        parts[task] = values.sum() / valid.sum()
    expected = 2.0 * whole.sum() / 3
    for name, part in parts.items():
        s = params["log_variance"][name]
        expected += 0.5 * np.exp(-s) * part + s
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    for name, part in parts.items():
        total, count = metrics[f"loss/{name}"]
        np.testing.assert_allclose(total / count, part, rtol=1e-6)
    assert float(metrics["accuracy/idh"][1]) == 3
    assert float(metrics["dice/WT"][1]) == 3
    assert loss.dtype == jnp.float32


def test_fixed_weights():
    objective = make_objective(
        tasks=TASKS, weighting="fixed", fixed_weights={"idh": 0.25}, whole_weight=0.0
    )
    assert objective.init() == {"log_variance": {}}
    loss, metrics = objective(objective.init(), _outputs(), _batch())
    means = {name: float(total / count) for name, (total, count) in metrics.items()}
    expected = means["loss/segmentation"] + 0.25 * means["loss/idh"] + means["loss/histology"]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert "loss/segmentation_whole" not in metrics


def test_batch_is_the_mean_of_its_examples():
    objective = make_objective(
        tasks=("idh",), weighting="fixed", cross_entropy_weight=1.0, class_weights={"idh": (1, 4)}
    )
    outputs, batch = _outputs(), _batch()
    batch["label_valid"] = batch["target_valid"]["idh"] = np.ones(4, np.float32)
    together, _ = objective(objective.init(), outputs, batch)
    apart = [
        objective(objective.init(), *_rows((outputs, batch), slice(i, i + 1)))[0] for i in range(4)
    ]
    np.testing.assert_allclose(together, np.mean(apart), rtol=1e-6)


@pytest.mark.parametrize("weighting", ["uncertainty", "fixed"])
def test_task_without_labels_changes_nothing(weighting):
    objective = make_objective(tasks=TASKS, weighting=weighting)
    without = make_objective(tasks=("idh",), weighting=weighting)
    outputs, batch = _outputs(), _batch()
    batch["target_valid"]["histology"] = np.zeros(4, np.float32)
    batch["targets"]["histology"][:] = np.nan
    params = objective.init()

    def loss_of(params, outputs):
        return objective(params, outputs, batch)[0]

    loss, (own, through) = jax.value_and_grad(loss_of, argnums=(0, 1))(params, outputs)
    kept = {"log_variance": {k: s for k, s in params["log_variance"].items() if k != "histology"}}
    expected, _ = without(kept, outputs, batch)
    np.testing.assert_allclose(loss, expected, rtol=1e-7)
    assert not through["tasks"]["histology"].any()
    assert through["tasks"]["idh"].any()
    if weighting == "uncertainty":
        assert own["log_variance"]["histology"] == 0
        assert own["log_variance"]["idh"] != 0
    count = objective(params, outputs, batch)[1]["loss/histology"][1]
    assert count == 0


def test_no_label_at_all_is_zero_and_not_nan():
    objective = make_objective(tasks=TASKS, cross_entropy_weight=1.0)
    outputs, batch = _outputs(), _batch()
    batch["label_valid"] = np.zeros(4, np.float32)
    batch["target_valid"] = {task: np.zeros(4, np.float32) for task in TASKS}

    def loss_of(params, outputs):
        return objective(params, outputs, batch)[0]

    loss, gradients = jax.value_and_grad(loss_of, argnums=(0, 1))(objective.init(), outputs)
    assert loss == 0
    assert all(not leaf.any() for leaf in jax.tree.leaves(gradients))


def test_microbatches_add_up_to_the_batch():
    objective = make_objective(tasks=TASKS, cross_entropy_weight=0.5)
    params = jax.tree.map(lambda _: jnp.asarray(0.4), objective.init())
    outputs, batch = _outputs(), _batch()
    loss, metrics = objective(params, outputs, batch)
    counts = objective.counts(batch)
    parts = [
        objective(params, *_rows((outputs, batch), rows), counts=counts, share=0.5)
        for rows in (slice(0, 2), slice(2, 4))
    ]
    np.testing.assert_allclose(loss, sum(part[0] for part in parts), rtol=1e-6)
    for name, (total, count) in metrics.items():
        np.testing.assert_allclose(total, sum(part[1][name][0] for part in parts), rtol=1e-5)
        assert count == sum(part[1][name][1] for part in parts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": ("idhh",)}, "names 'idhh'; expected names among idh"),
        ({"tasks": (), "dice_over": "x"}, "dice_over is 'x'"),
        ({"tasks": (), "weighting": "x"}, "weighting is 'x'"),
        ({"tasks": (), "fixed_weights": {"segmentation": 1.0}}, "weighting=fixed"),
        ({"tasks": (), "weighting": "fixed", "fixed_weights": {"mgmt": 1.0}}, "names 'mgmt'"),
        ({"tasks": ("idh",), "class_weights": {"mgmt": (1, 1)}}, "none of objective.tasks"),
        ({"tasks": ("idh",), "class_weights": {"idh": (1, 1, 1)}}, "expected 2 positive numbers"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        make_objective(**arguments)
