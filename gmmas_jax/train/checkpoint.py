"""Checkpoints on disk: asynchronous, complete or absent, and resumed exactly.

A checkpoint is a folder of separate items, so that a reader loads only what it needs: `params`
(the parameters and BatchNorm's statistics), `ema` (where kept), `opt` (the optimizer's state and
the step counters) and `meta` (JSON: the config and what the log needs to go on). Orbax writes into
a temporary folder and renames it when all is there; an interrupted write leaves the latest good
checkpoint as it was, and its remains are removed at the next start.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from gmmas_jax.errors import UserError
from gmmas_jax.train.state import TrainState

Meta = dict[str, Any]

_UNREADABLE = (OSError, ValueError, KeyError)


class Checkpoints:
    """The checkpoints of one run. Use as a context manager: leaving waits for unfinished writes."""

    def __init__(
        self, directory: str | Path, *, every: int, keep: int = 2, best_metric: str | None = None
    ):
        """Opens a folder of checkpoints, making it if need be.

        Args:
            directory: The folder.
            every: Steps between checkpoints; a SIGTERM adds one (see `distributed.initialize`).
            keep: How many of the latest to keep.
            best_metric: Also keep the checkpoint in which this evaluation metric is highest.
        """
        decide, preserve = ocp.training.save_decision_policies, ocp.training.preservation_policies
        preservation: Any = preserve.LatestN(keep)
        if best_metric is not None:
            best = preserve.BestN(
                get_metric_fn=lambda metrics: metrics[best_metric],
                n=1,
                keep_checkpoints_without_metrics=False,
            )
            preservation = preserve.AnyPreservationPolicy([preservation, best])
        self._directory = Path(directory).absolute()
        self._checkpointer = ocp.training.Checkpointer(
            self._directory,
            save_decision_policy=decide.AnySavePolicy(
                [decide.FixedIntervalPolicy(every), decide.PreemptionCheckpointingPolicy()]
            ),
            preservation_policy=preservation,
            cleanup_tmp_directories=True,
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def latest_step(self) -> int | None:
        """The step of the latest complete checkpoint, or None."""
        latest = self._checkpointer.latest
        return None if latest is None else int(latest.step)

    def due(self, step: int) -> bool:
        """Says whether a checkpoint is due at a step; every process must ask at every step."""
        return bool(self._checkpointer.should_save(step))

    def save(
        self, step: int, state: TrainState, meta: Meta, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Starts to write a checkpoint and returns as soon as the state may be overwritten.

        Args:
            step: The state's step.
            state: Global arrays; may be donated to the next step afterwards.
            meta: JSON-able.
            metrics: Of an evaluation at this step, for `best_metric`.
        """
        self._checkpointer.save_checkpointables_async(
            step,
            _items(state) | {"meta": meta},
            force=True,
            metrics=None if metrics is None else dict(metrics),
        )

    def wait(self) -> None:
        """Waits until what was started is on disk."""
        self._checkpointer.wait()

    def restore(self, abstract: TrainState, *, model: Mapping[str, Any]) -> tuple[TrainState, Meta]:
        """Loads the latest checkpoint.

        Args:
            abstract: The state as `jax.ShapeDtypeStruct`s with shardings; the mesh may differ from
                the one that the checkpoint was written on.
            model: The config's model section; it must be the checkpoint's.

        Raises:
            UserError: If there is none, it is of another network, or it cannot be read.
        """
        step = self.latest_step
        if step is None:
            raise UserError(f"{self._directory} holds no checkpoint to continue from.")
        where = self._directory / str(step)
        meta = self._load(where, {"meta": None})["meta"]
        _check_model(where, meta["config"]["model"], model)
        wanted = _items(abstract)
        for name, tree in wanted.items():
            if not (where / name).exists():
                raise UserError(
                    f"{where} has no item {name!r}: train.ema_decay was off when it was written "
                    "and is on now. Set it to none, or begin in another folder."
                )
            _check_tree(where / name, _metadata(where, name), tree)
        loaded = self._load(where, wanted)
        if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(loaded)):
            raise _unreadable(where, ValueError("some of its arrays are missing"))
        return _state(loaded), meta

    def close(self) -> None:
        """Waits for unfinished writes and releases what is held."""
        self._checkpointer.close()

    def _load(self, where: Path, wanted: dict[str, Any]) -> dict[str, Any]:
        try:
            return dict(self._checkpointer.load_checkpointables(int(where.name), wanted))
        except _UNREADABLE as error:
            raise _unreadable(where, error) from error


def preempted(step: int) -> bool:
    """Says whether a SIGTERM asks all processes to save at this step and stop.

    Every process must ask at every step. False where `distributed.initialize` was not called.
    """
    return multihost_utils.reached_preemption_sync_point(step)


def differences(
    saved: Mapping[str, Any], given: Mapping[str, Any], *, prefix: str = ""
) -> list[str]:
    """Lists the fields in which two configs differ, one sentence each.

    Args:
        saved: Nested dicts, as read from a checkpoint.
        given: Nested dicts.
        prefix: Put before the names of the fields.
    """
    theirs, ours = _flat(saved, prefix), _flat(given, prefix)
    return [
        f"{name} was {theirs.get(name, 'absent')} and is {ours.get(name, 'absent')}"
        for name in sorted(theirs.keys() | ours.keys())
        if theirs.get(name) != ours.get(name)
    ]


def load_for_inference(directory: str | Path, step: int | None = None) -> tuple[dict, Meta]:
    """Loads what a checkpoint says about the network, without knowing its shapes beforehand.

    Args:
        directory: A folder that `Checkpoints` wrote.
        step: Which; None for the latest.

    Returns:
        variables: {"params": …} and, if any, "batch_stats", NumPy arrays; the moving average of the
            parameters if the run kept one.
        meta: Of the checkpoint; meta["config"] is the run's config.

    Raises:
        UserError: If there is no such checkpoint.
    """
    root = Path(directory).absolute()
    steps = sorted(int(path.name) for path in root.glob("*") if path.name.isdigit())
    if not steps or (step is not None and step not in steps):
        raise UserError(
            f"{root} holds no checkpoint{'' if step is None else f' of step {step}'}; "
            f"found steps {steps or 'none'}."
        )
    where = root / str(steps[-1] if step is None else step)
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = {
        name: jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
            _metadata(where, name),
        )
        for name in ("params", "ema")
        if (where / name).exists()
    }
    try:
        loaded = ocp.load_checkpointables(where, wanted | {"meta": None})
    except _UNREADABLE as error:
        raise _unreadable(where, error) from error
    params, statistics = loaded["params"]["params"]["model"], loaded["params"]["batch_stats"]
    variables = {"params": loaded.get("ema", params)}
    if statistics:
        variables["batch_stats"] = statistics
    return jax.tree.map(np.asarray, variables), loaded["meta"]


def _items(state: TrainState) -> dict[str, Any]:
    items = {
        "params": {"params": state.params, "batch_stats": state.batch_stats},
        "opt": {"opt_state": state.opt_state, "step": state.step, "skipped": state.skipped},
    }
    return items if state.ema is None else items | {"ema": state.ema}


def _state(items: Mapping[str, Any]) -> TrainState:
    return TrainState(**items["opt"], **items["params"], ema=items.get("ema"))


def _check_model(where: Path, saved: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    different = differences(saved, given, prefix="model.")
    if different:
        raise UserError(
            f"{where} is a checkpoint of another network: {'; '.join(different[:5])}. Use the "
            "config that the run was begun with, or begin in another folder."
        )


def _check_tree(where: Path, saved: Any, wanted: Any) -> None:
    theirs, ours = _shapes(saved), _shapes(wanted)
    if theirs == ours:
        return
    lines = [
        f"{name} was {theirs.get(name, 'absent')} and is {ours.get(name, 'absent')}"
        for name in sorted(theirs.keys() | ours.keys())
        if theirs.get(name) != ours.get(name)
    ]
    more = f" and {len(lines) - 5} more" if len(lines) > 5 else ""
    raise UserError(
        f"{where} does not fit this config: {'; '.join(lines[:5])}{more}. Use the config that the "
        "run was begun with, or begin in another folder."
    )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in leaves
    }


def _flat(section: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            # JSON knows no tuples.
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def _metadata(where: Path, name: str) -> Any:
    """Returns the shapes that an item of a checkpoint holds, as a tree."""
    tree = ocp.metadata(where, checkpointable_name=name).metadata
    if tree is None:
        # Orbax has logged why.
        raise _unreadable(where / name, ValueError("its description is damaged"))
    return tree


def _unreadable(where: Path, error: Exception) -> UserError:
    folder = where if where.name.isdigit() else where.parent
    # The first line: the rest is the storage library's own specification.
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(
        f"{where} cannot be read: {reason[:300]}. Remove {folder} to continue from the checkpoint "
        "before it, if there is one."
    )
