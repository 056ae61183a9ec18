"""A batch of two views through a compiled step, on as many devices as the process has.

As a program: prints one JSON object, what the step saw of the second view.
"""

import json
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import optax

from data_pipelines.pipeline import train_batches
from gmmas_jax.augment.patch import make_augmentation
from gmmas_jax.config import base_config, to_dict
from gmmas_jax.train.sharding import make_mesh, state_shardings, to_global
from gmmas_jax.train.state import TrainState
from gmmas_jax.train.step import accumulated_gradient, compile_train_step, make_train_step
from tests.data_pipelines.memory_cases import two_classes

BATCH = 8


def batch_of_two_views():
    """Returns a batch as a process gets it."""
    stream = train_batches(
        two_classes(),
        seed=5,
        batch_size=BATCH,
        patch=(8, 8, 8),
        foreground=0.5,
        sequence_drop="none",
        tasks=("grade",),
        cutmix=0.5,
        cutmix_task=("grade",),
        views=2,
        view_overlap=0.5,
    )
    (batch,) = islice(stream, 1)
    return batch


class _Mean:
    """As an objective, for its counts alone."""

    def counts(self, batch):
        return {}


def _loss(params, batch_stats, batch, key, *, counts=None, share=1.0):
    """Compares the two views, with noise of the second view's own key."""
    keys = jax.random.wrap_key_data(batch["view_keys"])[:, 1]
    noise = jax.vmap(lambda own: jax.random.normal(own, (4,)))(keys)
    first, second = (batch[name].mean((1, 2, 3)) for name in ("image", "view_image"))
    values = ((params["model"]["w"][None] * (second + noise) - first) ** 2).sum(-1)
    metrics = {
        name: (batch[name].astype(jnp.float32).sum(), jnp.asarray(float(batch[name].shape[0])))
        for name in ("view_image", "view_whole", "view_label", "view_present", "view_box")
    }
    assert batch["view_image"].dtype == batch["view_whole"].dtype == jnp.float32
    assert batch["view_label"].dtype == jnp.int32
    assert batch["view_keys"].dtype == jnp.uint32
    return values.mean() * share, (batch_stats, metrics | {"loss/views": (values.sum(), 1.0)})


class _Descent:
    transformation = optax.sgd(0.1)
    schedule = staticmethod(lambda step: 0.1)


def run(batch, *, microbatches=2):
    """Returns the metrics of a step, as floats, and the parameter after it."""
    mesh = make_mesh()
    params = {"model": {"w": jnp.ones(4)}, "objective": {}}
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(zero, zero.copy(), params, {}, _Descent.transformation.init(params), None)
    gradient_fn = accumulated_gradient(_loss, objective=_Mean(), microbatches=microbatches)
    step = compile_train_step(
        make_train_step(gradient_fn=gradient_fn, optimizer=_Descent, seed=0),
        mesh=mesh,
        shardings=state_shardings(state, mesh),
        seed=0,
        transform=make_augmentation(**to_dict(base_config())["augment"]),
    )
    with jax.set_mesh(mesh):
        state, metrics = step(state, to_global(batch, mesh))
    seen = {name: float(total) for name, (total, _) in metrics.items()}
    return seen | {"w": np.asarray(state.params["model"]["w"]).tolist()}


if __name__ == "__main__":
    print(json.dumps({"devices": jax.device_count(), "seen": run(batch_of_two_views())}))
