"""The device mesh, where each array of the state lies on it, and how a batch gets there."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from gmmas_jax.errors import UserError

AXES = ("data", "fsdp")
"""A batch is split over both axes; large arrays of the state are split over `fsdp` as well."""


def make_mesh(*, data: int = -1, fsdp: int = 1) -> Mesh:
    """Makes the mesh of all devices of all processes.

    Args:
        data: Devices along the axis that holds copies of the state; -1 for all that `fsdp` leaves.
        fsdp: Devices that share one copy of the state.

    Raises:
        UserError: If the two do not multiply to the number of devices.
    """
    devices = jax.device_count()
    if data == -1 and fsdp > 0:
        data = devices // fsdp
    if min(data, fsdp) < 1 or data * fsdp != devices:
        raise UserError(
            f"mesh.data × mesh.fsdp is {data} × {fsdp}, but there are {devices} devices. "
            "Set mesh.data=-1 and mesh.fsdp to a number that divides the devices."
        )
    # Auto: with JAX's default, explicit axes, Linen's Dropout does not trace.
    return jax.make_mesh((data, fsdp), AXES, axis_types=(AxisType.Auto,) * 2)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of every array of a batch: the first axis over all devices."""
    return NamedSharding(mesh, P(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of what each device holds whole."""
    return NamedSharding(mesh, P())


def state_shardings(abstract: Any, mesh: Mesh, *, split_above_bytes: int = 2**20) -> Any:
    """Decides where each array of the state lies.

    An array of at least `split_above_bytes` is split along its longest axis that `fsdp` divides;
    the others are held whole, since gathering them would cost more than the memory saved. The rule
    sees only shapes, so a parameter and its moments always lie alike.

    Args:
        abstract: Any tree with `.shape` and `.dtype` leaves.
        mesh: From `make_mesh`.
        split_above_bytes: Size from which an array is split.

    Returns:
        The tree with a `NamedSharding` in place of each leaf.
    """
    parts = mesh.shape["fsdp"]

    def rule(leaf: Any) -> NamedSharding:
        if parts > 1 and leaf.size * leaf.dtype.itemsize >= split_above_bytes:
            for axis in np.argsort(leaf.shape, kind="stable")[::-1]:
                if leaf.shape[axis] % parts == 0:
                    names: list[str | None] = [None] * len(leaf.shape)
                    names[axis] = "fsdp"
                    return NamedSharding(mesh, P(*names))
        return replicated(mesh)

    return jax.tree.map(rule, abstract)


def with_shardings(abstract: Any, shardings: Any) -> Any:
    """Returns the tree of `jax.ShapeDtypeStruct`s that carry their shardings."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract,
        shardings,
    )


def check_batch_size(batch_size: int, mesh: Mesh, *, microbatches: int = 1) -> None:
    """Checks that every device gets the same number of examples in every microbatch.

    Raises:
        UserError: If not.
    """
    if batch_size % (mesh.size * microbatches):
        raise UserError(
            f"data.batch_size is {batch_size}, but it must be a multiple of {mesh.size} devices × "
            f"{microbatches} microbatches = {mesh.size * microbatches}."
        )


def to_global(batch: Mapping[str, Any], mesh: Mesh) -> dict[str, Any]:
    """Puts each process's part of a batch on its devices, as one global batch.

    Args:
        batch: Arrays [b / processes, …] of this process.
        mesh: From `make_mesh`.

    Returns:
        The same tree of global arrays [b, …].
    """
    sharding = batch_sharding(mesh)
    processes = jax.process_count()

    def place(local: np.ndarray) -> jax.Array:
        # The shape is given: JAX would guess it otherwise, and wrongly where the axis is not split
        # across processes.
        shape = (local.shape[0] * processes, *local.shape[1:])
        return jax.make_array_from_process_local_data(sharding, local, shape)

    return jax.tree.map(place, dict(batch))
