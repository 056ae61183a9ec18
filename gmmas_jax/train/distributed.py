"""Starting JAX on one or many processes.

Call `initialize` before anything asks JAX for a device.
"""

import importlib.util
import os
import socket
from pathlib import Path

import jax

from gmmas_jax.errors import UserError

MODES = ("auto", "none", "local")

_CLUSTER_VARIABLES = (
    "TPU_WORKER_HOSTNAMES",  # TPU on Kubernetes
    "MEGASCALE_COORDINATOR_ADDRESS",  # TPU, several slices
    "SLURM_STEP_NODELIST",  # inside `srun`, not in the batch script around it
    "OMPI_MCA_orte_hnp_uri",  # Open MPI
    "JOB_COMPLETION_INDEX",  # a Kubernetes indexed job
)
_TPU_DEVICES = ("/dev/accel0", "/dev/vfio/0")


def initialize(mode: str = "auto") -> None:
    """Connects this process to the others of the run.

    Only a connected process learns of a SIGTERM in time to save a checkpoint, also when it is the
    only one: without, SIGTERM kills it at once.

    Args:
        mode: "auto" joins the cluster that the environment names, be it by JAX_COORDINATOR_ADDRESS,
            JAX_NUM_PROCESSES and JAX_PROCESS_ID or as TPU VM, Slurm step, MPI rank or Kubernetes
            job, and does what "local" does where there is none. "local" is a run of one process.
            "none" leaves JAX alone; SIGTERM then loses what was not saved.

    Raises:
        UserError: On an unknown mode, or an incomplete environment.
    """
    if mode not in MODES:
        raise UserError(f"Process mode is {mode!r}; expected one of {', '.join(MODES)}.")
    if mode == "none":
        return
    if mode == "auto" and "JAX_COORDINATOR_ADDRESS" in os.environ:
        jax.distributed.initialize(
            os.environ["JAX_COORDINATOR_ADDRESS"],
            _integer("JAX_NUM_PROCESSES"),
            _integer("JAX_PROCESS_ID"),
        )
    elif mode == "auto" and _in_cluster():
        jax.distributed.initialize()
    else:
        address = f"127.0.0.1:{_free_port()}"
        # The default would listen on every network interface of a laptop.
        jax.distributed.initialize(address, 1, 0, coordinator_bind_address=address)


def process_banner() -> str:
    """Returns one line on this process and its devices, for the head of every process's log."""
    device = jax.local_devices()[0]
    return (
        f"process {jax.process_index() + 1} of {jax.process_count()}: "
        f"{jax.local_device_count()} of {jax.device_count()} devices ({device.device_kind}), "
        f"jax {jax.__version__}"
    )


def _in_cluster() -> bool:
    # A TPU VM says nothing in its environment. Taken for a lone machine, each worker of a pod
    # would train by itself.
    tpu = importlib.util.find_spec("libtpu") and any(Path(name).exists() for name in _TPU_DEVICES)
    return bool(tpu) or any(name in os.environ for name in _CLUSTER_VARIABLES)


def _integer(variable: str) -> int:
    text = os.environ.get(variable, "")
    if not text.isdigit():
        raise UserError(
            f"JAX_COORDINATOR_ADDRESS is set, but {variable} is {text!r}; expected a number. "
            "Set all three of JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, "
            "or none."
        )
    return int(text)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
