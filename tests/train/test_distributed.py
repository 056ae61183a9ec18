"""Starting processes: which way is chosen, and the messages for mistakes."""

import jax
import pytest

from gmmas_jax.errors import UserError
from gmmas_jax.train import distributed


@pytest.fixture(name="calls")
def _calls(monkeypatch):
    """Records how JAX would have been initialised, in an environment without a cluster."""
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    for name in (*names, *distributed._CLUSTER_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    calls = []
    monkeypatch.setattr(
        jax.distributed, "initialize", lambda *args, **kwargs: calls.append((args, kwargs))
    )
    return calls


def test_none_leaves_jax_alone(calls):
    distributed.initialize("none")
    assert calls == []


@pytest.mark.parametrize("mode", ["local", "auto"])
def test_alone_a_process_listens_to_itself_only(calls, mode):
    distributed.initialize(mode)
    ((address, count, number), options) = calls[0]
    assert address.startswith("127.0.0.1:")
    assert (count, number) == (1, 0)
    assert options == {"coordinator_bind_address": address}


def test_environment_names_the_others(calls, monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "host:1234")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "4")
    with pytest.raises(UserError, match="JAX_PROCESS_ID is ''; expected a number"):
        distributed.initialize("auto")
    monkeypatch.setenv("JAX_PROCESS_ID", "3")
    distributed.initialize("auto")
    assert calls == [(("host:1234", 4, 3), {})]


def test_cluster_is_left_to_jax(calls, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NODELIST", "node[1-2]")
    distributed.initialize("auto")
    assert calls == [((), {})]


def test_tpu_machine_is_a_cluster(calls, monkeypatch, tmp_path):
    monkeypatch.setattr(distributed, "_TPU_DEVICES", (str(tmp_path),))
    monkeypatch.setattr(distributed.importlib.util, "find_spec", lambda name: name == "libtpu")
    distributed.initialize("auto")
    assert calls == [((), {})]


def test_unknown_mode_is_named():
    with pytest.raises(UserError, match="mode is 'many'; expected one of auto, none, local"):
        distributed.initialize("many")


def test_banner():
    assert distributed.process_banner().startswith("process 1 of 1: 1 of 1 devices (")
