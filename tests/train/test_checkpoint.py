"""Checkpoints: what comes back, what is refused, and what an interruption leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmmas_jax.errors import UserError
from gmmas_jax.train.checkpoint import Checkpoints, differences, load_for_inference, preempted
from gmmas_jax.train.optimizer import make_optimizer
from gmmas_jax.train.sharding import make_mesh, state_shardings, with_shardings
from gmmas_jax.train.state import TrainState

MODEL = {"width": 3, "inner": {"scales": (1, 2)}}
META = {"config": {"model": {"width": 3, "inner": {"scales": [1, 2]}}, "seed": 1}}


def _state(value=1.0, *, ema=True, width=3, batch_stats=True):
    kernel = jnp.full((2, width), value)
    params = {"model": {"conv": {"kernel": kernel}}, "objective": {"log_variance": {}}}
    optimizer = make_optimizer(name="adamw", learning_rate=0.1, steps=9, clip_norm=1.0)
    state = TrainState(
        step=jnp.asarray(int(value), jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats={"norm": {"mean": kernel[0] + 1}} if batch_stats else {},
        opt_state=optimizer.transformation.init(params),
        ema={"conv": {"kernel": kernel + 2}} if ema else None,
    )
    return jax.device_put(state, state_shardings(state, make_mesh()))


def _abstract(state):
    return with_shardings(state, state_shardings(state, make_mesh()))


def _equal(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    return jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), one, other))


def _save(directory, *values, **arguments):
    with Checkpoints(directory, every=1) as checkpoints:
        for value in values:
            checkpoints.save(value, _state(float(value), **arguments), META)


@pytest.mark.parametrize("rich", [True, False])
def test_state_comes_back_whole(tmp_path, rich):
    state = _state(2.0, ema=rich, batch_stats=rich)
    with Checkpoints(tmp_path / "c", every=1) as checkpoints:
        checkpoints.save(2, state, META | {"totals": {"loss": [0.1, 2.0]}})
    with Checkpoints(tmp_path / "c", every=1) as checkpoints:
        assert checkpoints.latest_step == 2
        restored, meta = checkpoints.restore(_abstract(state), model=MODEL)
    assert _equal(state, restored)
    assert meta["totals"] == {"loss": [0.1, 2.0]}
    variables, meta = load_for_inference(tmp_path / "c")
    expected = state.ema if rich else state.params["model"]
    np.testing.assert_array_equal(variables["params"]["conv"]["kernel"], expected["conv"]["kernel"])
    assert isinstance(variables["params"]["conv"]["kernel"], np.ndarray)
    assert ("batch_stats" in variables) == rich
    assert meta["config"]["seed"] == 1


def test_state_may_be_overwritten_while_it_is_written(tmp_path):
    overwrite = jax.jit(lambda x: jax.tree.map(lambda a: -a, x), donate_argnums=0)
    probe = jnp.ones((1024, 1024))
    overwrite(probe)
    assert probe.is_deleted()
    with Checkpoints(tmp_path / "c", every=1, keep=5) as checkpoints:
        for step in range(1, 5):
            state = {"kernel": jnp.full((1024, 1024), float(step))}
            big = _state(float(step)).replace(
                params={"model": state, "objective": {"log_variance": {}}}
            )
            checkpoints.save(step, big, META)
            overwrite(state)
    for step in range(1, 5):
        variables, _ = load_for_inference(tmp_path / "c", step)
        assert variables["params"]["conv"]["kernel"][0, 0] == step + 2
        saved = _params_of(tmp_path / "c" / str(step))
        assert (saved == step).all()


def _params_of(path):
    from orbax.checkpoint import v1 as ocp

    metadata = ocp.checkpointables_metadata(path).metadata["params"]
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), metadata
    )
    return ocp.load_checkpointables(path, {"params": abstract})["params"]["params"]["model"][
        "kernel"
    ]


def test_latest_and_best_are_kept(tmp_path):
    with Checkpoints(tmp_path / "c", every=1, keep=1, best_metric="dice") as checkpoints:
        for step, dice in ((1, 0.5), (2, 0.9), (3, 0.6), (4, None)):
            metrics = None if dice is None else {"dice": dice}
            checkpoints.save(step, _state(float(step)), META, metrics)
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["2", "4"]


def test_interval():
    assert not preempted(3)


def test_due_at_the_interval(tmp_path):
    with Checkpoints(tmp_path / "c", every=3) as checkpoints:
        assert [checkpoints.due(step) for step in (1, 2, 3, 4, 6)] == [
            False,
            False,
            True,
            False,
            True,
        ]


def test_interrupted_write_leaves_the_good_one(tmp_path):
    _save(tmp_path / "c", 1)
    # What a process leaves that was killed while it wrote: a temporary folder without the mark.
    left = tmp_path / "c" / "2.orbax-checkpoint-tmp"
    (left / "params").mkdir(parents=True)
    (left / "params" / "d").write_bytes(b"half")
    with Checkpoints(tmp_path / "c", every=1) as checkpoints:
        assert checkpoints.latest_step == 1
        restored, _ = checkpoints.restore(_abstract(_state()), model=MODEL)
        checkpoints.save(2, _state(2.0), META)
    assert _equal(restored, _state(1.0))
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["1", "2"]
    assert load_for_inference(tmp_path / "c")[0]["params"]["conv"]["kernel"][0, 0] == 4


def _restore(directory, state, model=MODEL):
    with Checkpoints(directory, every=1) as checkpoints:
        return checkpoints.restore(_abstract(state), model=model)


def test_another_network_is_refused(tmp_path):
    _save(tmp_path / "c", 1)
    with pytest.raises(UserError, match=r"another network: model\.width was 3 and is 4"):
        _restore(tmp_path / "c", _state(), model=MODEL | {"width": 4})
    with pytest.raises(UserError, match=r"conv/kernel was \(2, 3\) and is \(2, 5\)"):
        _restore(tmp_path / "c", _state(width=5))


def test_another_ema_setting_is_refused(tmp_path):
    _save(tmp_path / "c", 1, ema=False)
    with pytest.raises(UserError, match="ema_decay was off"):
        _restore(tmp_path / "c", _state())


@pytest.mark.parametrize("pattern", ["opt/_METADATA", "opt/d/*", "meta/*"])
def test_damage_is_told(tmp_path, pattern):
    _save(tmp_path / "c", 1)
    files = [path for path in (tmp_path / "c" / "1").glob(pattern) if path.is_file()]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"(?s)c/1.* cannot be read: .*Remove \S*c/1 to continue"):
        _restore(tmp_path / "c", _state())


def test_nothing_to_load(tmp_path):
    with pytest.raises(UserError, match="no checkpoint; found steps none"):
        load_for_inference(tmp_path)
    _save(tmp_path / "c", 1)
    with pytest.raises(UserError, match=r"no checkpoint of step 7; found steps \[1\]"):
        load_for_inference(tmp_path / "c", 7)
    with (
        Checkpoints(tmp_path / "d", every=1) as checkpoints,
        pytest.raises(UserError, match="no checkpoint to continue from"),
    ):
        checkpoints.restore(_abstract(_state()), model=MODEL)


def test_differences_name_the_fields():
    assert differences({"a": {"b": 1, "c": [1]}}, {"a": {"b": 2, "c": (1,)}, "d": 3}) == [
        "a.b was 1 and is 2",
        "d was absent and is 3",
    ]
