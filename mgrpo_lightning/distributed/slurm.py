"""StepEnvironment: the ranks of one SLURM step, which are those of one role.

Several roles share an allocation, each started by an ``srun`` of its own. Lightning's environment reads the
allocation's variables: all roles would meet at one address and port, and the first to be told of the time limit would
requeue the job while the others save.
"""

from __future__ import annotations

import os
import signal

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from typing_extensions import override

from mgrpo_lightning.errors import ConfigurationError

ROLE_INDEX, ADDRESS = "MGRPO_ROLE_INDEX", "MGRPO_MASTER_ADDR"
"""Variables of the batch script: which role of the job it is; and where its ranks meet, if not on its first node."""
PORTS = range(15000, 31000)
"""Below those that the system gives to outgoing connections."""
ROLES = 16
"""Ports that a job has for itself."""


class StepEnvironment(SLURMEnvironment):
    """Address, port and size from the step; the batch script requeues the job, once, when all roles have stopped."""

    def __init__(self) -> None:
        self.auto_requeue = False
        self.requeue_signal = signal.SIGUSR1  # Lightning wants one, and leaves it alone without auto_requeue

    @staticmethod
    @override
    def detect() -> bool:
        """Whether ``srun`` has started this process, and not for an interactive shell."""
        interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
        return "SLURM_STEP_ID" in os.environ and "SLURM_PROCID" in os.environ and not interactive

    @property
    @override
    def main_address(self) -> str:
        """The first node of the step, whatever an inherited MASTER_ADDR says."""
        nodes = os.environ.get("SLURM_STEP_NODELIST", "127.0.0.1")
        return os.environ.get(ADDRESS) or self.resolve_root_node_address(nodes)

    @property
    @override
    def main_port(self) -> int:
        """One for each role of each job."""
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
            ConfigurationError: It has not.
        """
        nodes = int(os.environ.get("SLURM_STEP_NUM_NODES") or os.environ.get("SLURM_NNODES", "1"))
        if (self.world_size(), nodes) != (num_devices * num_nodes, num_nodes):
            raise ConfigurationError(
                f"the SLURM step has {self.world_size()} tasks on {nodes} nodes, the trainer {num_devices} devices on "
                f"each of {num_nodes} nodes.",
                hint="start it with srun --nodes=N --ntasks-per-node=DEVICES, or set trainer.devices and num_nodes.",
            )
