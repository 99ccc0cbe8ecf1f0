"""StepEnvironment: address, port and world size of one role's ranks, from its SLURM step instead of the whole job.

Several roles share one allocation, and one ``srun`` starts each role. Lightning's own environment reads the variables
of the allocation. With it, all roles would use one address and port, and the first role that hears of the time limit
would requeue the job while the others still save.
"""

from __future__ import annotations

import os
import signal

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from typing_extensions import override

from mgrpo_lightning.errors import ConfigurationError

ROLE_INDEX, ADDRESS = "MGRPO_ROLE_INDEX", "MGRPO_MASTER_ADDR"
"""Variables that the batch script sets: index of the role in the job; address of its rank 0, if not the step's first
node."""
PORTS = range(15000, 31000)
"""Ports below the range that the system assigns to outgoing connections."""
ROLES = 16
"""Number of ports reserved for each job."""


class StepEnvironment(SLURMEnvironment):
    """Take address, port and size from the SLURM step.

    The batch script requeues the job, once, after all roles have stopped.
    """

    def __init__(self) -> None:
        self.auto_requeue = False
        # Lightning requires a signal, but installs no handler without auto_requeue.
        self.requeue_signal = signal.SIGUSR1

    @staticmethod
    @override
    def detect() -> bool:
        """Whether ``srun`` started this process, outside of an interactive shell."""
        interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
        return "SLURM_STEP_ID" in os.environ and "SLURM_PROCID" in os.environ and not interactive

    @property
    @override
    def main_address(self) -> str:
        """The first node of the step; an inherited MASTER_ADDR is ignored."""
        nodes = os.environ.get("SLURM_STEP_NODELIST", "127.0.0.1")
        return os.environ.get(ADDRESS) or self.resolve_root_node_address(nodes)

    @property
    @override
    def main_port(self) -> int:
        """A port that depends on job and role, so that two roles on a node do not collide."""
        # Every rank must derive the same port without communication, so it is computed from the job id.
        role = int(os.environ.get(ROLE_INDEX, "0"))
        job = int(os.environ.get("SLURM_JOB_ID", "0"))
        return PORTS[(job * ROLES + role % ROLES) % len(PORTS)]

    @override
    def world_size(self) -> int:
        return int(os.environ.get("SLURM_STEP_NUM_TASKS") or os.environ["SLURM_NTASKS"])

    @override
    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Require that the step has as many tasks and nodes as the trainer.

        Args:
            num_devices: ``trainer.devices``.
            num_nodes: ``trainer.num_nodes``.

        Raises:
            ConfigurationError: The numbers differ.
        """
        nodes = int(os.environ.get("SLURM_STEP_NUM_NODES") or os.environ.get("SLURM_NNODES", "1"))
        if (self.world_size(), nodes) != (num_devices * num_nodes, num_nodes):
            raise ConfigurationError(
                f"the SLURM step has {self.world_size()} tasks on {nodes} nodes, but the trainer has {num_devices} "
                f"devices on each of {num_nodes} nodes.",
                hint="start it with srun --nodes=N --ntasks-per-node=DEVICES, or set trainer.devices and num_nodes.",
            )
