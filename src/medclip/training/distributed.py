"""Devices and processes: one mesh axis shards the batch, and with FSDP the parameters; when all should stop."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Shaped

from medclip.errors import UserError
from medclip.stop_signals import handle_stop_signals

LOG = logging.getLogger("medclip.training")
_AXIS = "data"


def start_distributed() -> None:
    """Join the other processes of this job, before anything else uses JAX.

    JAX detects SLURM, Open MPI, TPU pods and Kubernetes. Elsewhere JAX_COORDINATOR_ADDRESS (host:port of process 0),
    JAX_NUM_PROCESSES and JAX_PROCESS_ID say it. UserError where nothing does.
    """
    num_processes, process_id = (os.environ.get(name) for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"))
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            num_processes=int(num_processes) if num_processes else None,
            process_id=int(process_id) if process_id else None,
            local_device_ids=local_device_ids(os.environ),
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"--distributed: {str(error).splitlines()[0]} Start one process a host under SLURM, Open MPI or Kubernetes "
            "or on a TPU pod, or set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID in each."
        ) from None


def local_device_ids(environ: Mapping[str, str]) -> list[int] | None:
    """[], all devices, where SLURM or Open MPI started one process on this host; JAX gives it the first GPU alone.

    None: as JAX chooses, which is a GPU for each of several processes.
    """
    tasks, nodes = environ.get("SLURM_NTASKS"), environ.get("SLURM_STEP_NUM_NODES")
    is_alone = environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", "1" if tasks and tasks == nodes else "") == "1"
    return [] if is_alone and "JAX_LOCAL_DEVICE_IDS" not in environ else None


def all_devices() -> Mesh:
    """Every device of every process in a row; those of one process lie together."""
    return jax.make_mesh((jax.device_count(),), (_AXIS,), axis_types=(AxisType.Auto,))


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Return when every process has called this."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def process_slice(count: int) -> slice:
    """Of so many things, equally many for each process, those of this one; those of one process lie together."""
    size = count // jax.process_count()
    return slice(size * jax.process_index(), size * (jax.process_index() + 1))


def gather(part: Shaped[np.ndarray, "n ..."]) -> Shaped[np.ndarray, "m ..."]:
    """The parts of all processes, of one shape, one after another."""
    return np.asarray(multihost_utils.process_allgather(part, tiled=True))


@contextmanager
def stop_requests() -> Iterator[Callable[[int], int | None]]:
    """Yield `stop_requested(step)`: the signal that was received, of STOP_SIGNALS. A second one stops at once.

    With several processes only JAX hears SIGTERM, and answers all of them at the same step.
    """
    if jax.process_count() > 1:
        yield lambda step: signal.SIGTERM if multihost_utils.reached_preemption_sync_point(step) else None
        return
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        LOG.warning(
            f"Ctrl-C (SIGINT) is ignored here, as in a background job: kill {os.getpid()} stops this run and saves."
        )
    received: list[int] = []
    handlers: dict[signal.Signals, Any] = {}

    def handle(kind: int, frame: object) -> None:
        received.append(kind)
        signal.signal(kind, handlers[signal.Signals(kind)])

    with handle_stop_signals(handle) as before:
        handlers |= before
        yield lambda step: received[0] if received else None


def replicated_sharding(mesh: Mesh) -> NamedSharding:
    """A copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def replicate(tree: Any, mesh: Mesh) -> Any:
    """The arrays with a copy of each on every device."""
    return jax.jit(lambda x: x, out_shardings=replicated_sharding(mesh))(tree)


def shard_blocks(arrays: Any, mesh: Mesh) -> Any:
    """This process's blocks (n / processes, …) as its part of global arrays (n, …) sharded on their first axis."""
    sharding = NamedSharding(mesh, PartitionSpec(_AXIS))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), arrays)


def shardings(tree: Any, mesh: Mesh, fsdp: bool) -> Any:
    """The sharding of each array of a state: replicated, or with FSDP on its largest axis that divides evenly."""

    def sharding(x: Any) -> NamedSharding:
        even = [(n, -axis) for axis, n in enumerate(x.shape) if n % mesh.size == 0 and n >= mesh.size]
        if not (fsdp and even):
            return replicated_sharding(mesh)
        return NamedSharding(mesh, PartitionSpec(*[None] * -max(even)[1], _AXIS))

    return jax.tree.map(sharding, tree)
