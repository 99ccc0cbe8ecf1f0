"""Address, port, size and rank of a role's ranks, from what SLURM says of its step."""

from __future__ import annotations

import pytest

from mgrpo_lightning.distributed.slurm_step import PORTS, StepEnvironment
from mgrpo_lightning.errors import ConfigurationError

STEP = {
    "SLURM_JOB_ID": "123457",
    "SLURM_JOB_NAME": "team",
    "SLURM_NODELIST": "gpu[3-8]",  # of the whole job
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "8",  # an inherited value of sbatch
    "SLURM_STEP_ID": "1",
    "SLURM_STEP_NODELIST": "gpu[7-8]",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "MASTER_ADDR": "gpu3",
    "MASTER_PORT": "12345",
    "MGRPO_ROLE_INDEX": "1",
}


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MGRPO_MASTER_ADDR", raising=False)
    return monkeypatch


def test_a_role_meets_on_the_first_node_of_its_step(step: pytest.MonkeyPatch) -> None:
    environment = StepEnvironment()
    assert StepEnvironment.detect()
    assert environment.main_address == "gpu7"
    assert (environment.world_size(), environment.global_rank()) == (4, 3)
    assert (environment.local_rank(), environment.node_rank()) == (1, 1)
    assert environment.creates_processes_externally
    assert not environment.auto_requeue
    step.setenv("MGRPO_MASTER_ADDR", "10.0.0.7")
    assert environment.main_address == "10.0.0.7"


@pytest.mark.parametrize("job", ["1", "123457", "99999999"])
def test_roles_of_a_job_and_of_the_next_one_have_ports_of_their_own(step: pytest.MonkeyPatch, job: str) -> None:
    ports = []
    for number in (int(job), int(job) + 1):
        for role in range(16):
            step.setenv("SLURM_JOB_ID", str(number))
            step.setenv("MGRPO_ROLE_INDEX", str(role))
            ports.append(StepEnvironment().main_port)
    assert len(set(ports)) == 32
    assert set(ports) <= set(PORTS)


def test_devices_and_nodes_must_be_those_of_the_step(step: pytest.MonkeyPatch) -> None:
    environment = StepEnvironment()
    environment.validate_settings(num_devices=2, num_nodes=2)
    for devices, nodes in ((4, 2), (2, 1), (1, 4)):
        with pytest.raises(ConfigurationError, match=r"4 tasks on 2 nodes.*HINT: start it with srun --nodes"):
            environment.validate_settings(num_devices=devices, num_nodes=nodes)


@pytest.mark.parametrize(("name", "value"), [("SLURM_STEP_ID", None), ("SLURM_JOB_NAME", "interactive")])
def test_without_srun_it_is_no_step(step: pytest.MonkeyPatch, name: str, value: str | None) -> None:
    step.delenv(name) if value is None else step.setenv(name, value)
    assert not StepEnvironment.detect()
