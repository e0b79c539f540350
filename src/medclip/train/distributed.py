"""Which devices there are, and what lies on them: one axis splits the batch, and with FSDP the parameters."""

from __future__ import annotations

import os
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from medclip.errors import UserError

_AXIS = "data"


def start_distributed() -> None:
    """Join the other processes of this job, before anything else is asked of JAX.

    SLURM, Open MPI, TPU pods and Kubernetes say who and where to JAX itself. Elsewhere JAX_COORDINATOR_ADDRESS
    (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID do. UserError where nobody says.
    """
    said = {at: os.environ.get(f"JAX_{at.upper()}") for at in ("num_processes", "process_id")}
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(**{at: int(value) for at, value in said.items() if value is not None})
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"--distributed: {str(error).splitlines()[0]} Start one process a host under SLURM, Open MPI or Kubernetes "
            "or on a TPU pod, or set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID in each."
        ) from None


def all_devices() -> Mesh:
    """Every device of every process in a row; those of one process lie together."""
    return jax.make_mesh((jax.device_count(),), (_AXIS,), axis_types=(AxisType.Auto,))


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def wait_for_all(what: str) -> None:
    """Go on when every process has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def stop_asked(step: int) -> bool:
    """Whether the scheduler has told any process to stop (SIGTERM); all processes hear it at the same step."""
    return jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step)


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def everywhere(tree: Any, mesh: Mesh) -> Any:
    """The arrays with a copy of each on every device."""
    return jax.jit(lambda x: x, out_shardings=replicated(mesh))(tree)


def by_blocks(arrays: Any, mesh: Mesh) -> Any:
    """This process's blocks (n / processes, …) as its part of global arrays (n, …) split on their first axis."""
    sharding = NamedSharding(mesh, PartitionSpec(_AXIS))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), arrays)


def shardings(tree: Any, mesh: Mesh, fsdp: bool) -> Any:
    """Where each array of a state lies: everywhere, or with FSDP split on its largest axis that divides evenly."""

    def one(x: Any) -> NamedSharding:
        even = [(n, -axis) for axis, n in enumerate(x.shape) if n % mesh.size == 0 and n >= mesh.size]
        if not (fsdp and even):
            return replicated(mesh)
        return NamedSharding(mesh, PartitionSpec(*[None] * -max(even)[1], _AXIS))

    return jax.tree.map(one, tree)
