"""Where arrays lie: the rule for the state, the batch, and mistakes in the mesh."""

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from gmmas_jax.errors import UserError
from gmmas_jax.train.sharding import (
    check_batch_size,
    make_mesh,
    state_shardings,
    to_global,
    with_shardings,
)


def _spec(shape, *, above=1024, fsdp=4):
    mesh = AbstractMesh((2, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    leaf = jax.ShapeDtypeStruct(shape, np.float32)
    return state_shardings({"x": leaf}, mesh, split_above_bytes=above)["x"].spec


def test_large_arrays_are_split_along_the_longest_axis_that_divides():
    assert _spec((3, 3, 3, 16, 32)) == P(None, None, None, None, "fsdp")
    assert _spec((3, 3, 3, 16, 34)) == P(None, None, None, "fsdp", None)


def test_other_arrays_are_held_whole():
    assert _spec((8, 8)) == P()
    assert _spec((33, 35)) == P()
    assert _spec(()) == P()
    assert _spec((64, 64), fsdp=1) == P()


def test_mesh_takes_all_devices():
    mesh = make_mesh()
    assert mesh.axis_names == ("data", "fsdp")
    assert mesh.size == jax.device_count()
    assert set(mesh.axis_types) == {AxisType.Auto}
    with pytest.raises(UserError, match=r"3 × 1, but there are 1 devices"):
        make_mesh(data=3)
    with pytest.raises(UserError, match=r"0 × 2"):
        make_mesh(fsdp=2)
    with pytest.raises(UserError, match=r"× 0"):
        make_mesh(fsdp=0)


def test_batch_is_global_and_nested():
    batch = {"image": np.ones((4, 2), np.float32), "targets": {"idh": np.zeros((4, 3))}}
    placed = to_global(batch, make_mesh())
    assert placed["image"].shape == (4, 2)
    assert placed["targets"]["idh"].sharding.spec == P(("data", "fsdp"))


def test_batch_size_must_divide():
    check_batch_size(4, make_mesh(), microbatches=2)
    with pytest.raises(UserError, match=r"batch_size is 3, .* 1 devices × 2 microbatches = 2"):
        check_batch_size(3, make_mesh(), microbatches=2)


def test_abstract_state_carries_shardings():
    mesh = make_mesh()
    tree = {"x": jax.ShapeDtypeStruct((2,), np.float32)}
    leaf = with_shardings(tree, state_shardings(tree, mesh))["x"]
    assert (leaf.shape, leaf.dtype, leaf.sharding.spec) == ((2,), np.float32, P())
