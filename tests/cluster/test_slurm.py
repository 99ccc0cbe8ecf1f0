"""Roles as one job of a real SLURM of two nodes, on this machine's loopback address.

Left out unless asked for, as it installs SLURM and needs root: MGRPO_TEST_SLURM=1 pytest tests/cluster
The real time limit takes minutes more: MGRPO_TEST_SLURM=1 pytest -m slow tests/cluster
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mgrpo_lightning.commands.launch import main as launch
from mgrpo_lightning.store.layout import STOP
from tests.support.started import Started
from tests.support.teams import QUICKSTART, Team, release, tiny_team
from tests.test_decoupled import assert_same

pytestmark = pytest.mark.skipif(os.environ.get("MGRPO_TEST_SLURM") != "1", reason="MGRPO_TEST_SLURM is not 1")
LONG = 40
"""Steps of a run that is longer than the shortest time limit that SLURM has, less the warning before it."""
MINUTES = 8


@pytest.fixture(scope="module")
def slurm(root: Path) -> Iterator[None]:
    script = str(root / "tests" / "cluster" / "slurm.sh")
    started = subprocess.run([script, "start", "2"], check=True, capture_output=True, text=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", started.stdout.strip().splitlines()[-1].partition("=")[2])
        yield
        subprocess.run(["scancel", "--full", "--user=root"], check=False)
        subprocess.run([script, "stop"], check=True, capture_output=True)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Team:
    return tiny_team(tmp_path_factory.mktemp("team"))


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, tiny: Team) -> Path:
    folder = tmp_path_factory.mktemp("straight")
    Started(tiny.command("fit", folder, "run")).finish()
    return folder / "run"


@pytest.fixture
def submit(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, slurm: None) -> Callable[..., str]:
    """Submits a run of a team with more options; the number of the job."""
    monkeypatch.chdir(root)
    cluster = tmp_path / "cluster.yaml"

    def submitted(team: Team, *options: str, job: str = "") -> str:
        cluster.write_text(f"job: {{setup: ['export OMP_NUM_THREADS=1']{job}}}\n")
        launch(["--slurm", str(cluster), *team.command("fit", tmp_path, "run", *options)[1:]])
        return squeue("%A").split()[0].partition("+")[0]

    return submitted


def squeue(form: str) -> str:
    return subprocess.run(["squeue", "-h", "-o", form], check=True, capture_output=True, text=True).stdout


def until(found: Callable[[], bool], folder: Path) -> None:
    give_up = time.monotonic() + MINUTES * 60
    while not found():
        assert time.monotonic() < give_up, logs(folder)
        time.sleep(0.2)


def in_a_step(team: Team, folder: Path) -> list[str]:
    """Options under which the run stays in its second step, until it is released."""
    return team.hanging(folder, since=folder / "run" / "searcher" / "checkpoints" / "step=000001.ckpt")


def logs(folder: Path) -> str:
    paths = [*folder.rglob("log.txt"), *folder.rglob("slurm-*.txt")]
    return "\n".join(f"== {path}\n{path.read_text()[-3000:]}" for path in paths)


def ended(job: str) -> str:
    """How the job has ended, as SLURM says: ``JobState`` and ``ExitCode``."""
    told = subprocess.run(["scontrol", "show", "job", job], check=True, capture_output=True, text=True).stdout
    fields = dict(word.partition("=")[::2] for word in told.split())
    return f"{fields['JobState']} {fields['ExitCode']} after {fields['Restarts']} restarts"


@pytest.mark.parametrize("job", ["", ", heterogeneous: true"], ids=["plain", "heterogeneous"])
def test_a_job_runs_to_the_end_of_the_same_run(
    tmp_path: Path, submit: Callable[..., str], tiny: Team, straight: Path, job: str
) -> None:
    number = submit(tiny, job=job)
    until(lambda: not squeue("%A"), tmp_path)
    assert ended(number) == "COMPLETED 0:0 after 0 restarts", logs(tmp_path)
    assert_same(tmp_path / "run", straight)


def test_a_job_near_its_time_limit_saves_and_is_requeued_and_goes_on(
    tmp_path: Path, submit: Callable[..., str], tiny: Team, straight: Path
) -> None:
    number = submit(tiny, *in_a_step(tiny, tmp_path))
    until((tmp_path / "hangs").exists, tmp_path)
    subprocess.run(["scancel", "--signal=USR1", "--batch", number], check=True)  # what the time limit sends
    until((tmp_path / "run" / STOP).exists, tmp_path)
    release(tmp_path)
    until(lambda: not squeue("%A"), tmp_path)
    assert ended(number) == "COMPLETED 0:0 after 1 restarts", logs(tmp_path)
    for role in ("main", "searcher"):
        log = (tmp_path / "run" / role / "log.txt").read_text()
        assert "mgrpo: " in log
        assert "stop" in log
    assert_same(tmp_path / "run", straight)


@pytest.mark.slow
def test_a_real_time_limit_is_no_more_than_a_pause(tmp_path: Path, submit: Callable[..., str]) -> None:
    steps = f"--trainer.max_steps={LONG}"
    Started(QUICKSTART.command("fit", tmp_path / "straight", "run", steps)).finish()
    number = submit(QUICKSTART, steps, job=", time: '00:02:00', stop_before: 60")
    until(lambda: not squeue("%A"), tmp_path)
    state, restarts = ended(number).split(" after ")
    assert state == "COMPLETED 0:0", logs(tmp_path)
    assert int(restarts.split()[0]) >= 1, "the run was shorter than the limit"
    assert_same(tmp_path / "run", tmp_path / "straight" / "run", LONG)


def test_a_role_that_dies_ends_the_job_and_the_others_can_go_on(
    tmp_path: Path, submit: Callable[..., str], tiny: Team, straight: Path
) -> None:
    number = submit(tiny, *in_a_step(tiny, tmp_path))
    until((tmp_path / "hangs").exists, tmp_path)
    (victim,) = subprocess.run(
        ["pgrep", "-f", f"fit .*--run.root={tmp_path} .*--role searcher"], check=True, capture_output=True, text=True
    ).stdout.split()[-1:]
    os.kill(int(victim), signal.SIGKILL)
    release(tmp_path)
    until(lambda: not squeue("%A"), tmp_path)
    assert ended(number) == "FAILED 137:0 after 0 restarts", logs(tmp_path)
    assert "HINT: remove the file" in (tmp_path / "run" / "main" / "log.txt").read_text()
    subprocess.run(["sbatch", str(tmp_path / "run" / "job.sbatch")], check=True)
    until(lambda: not squeue("%A"), tmp_path)
    assert_same(tmp_path / "run", straight)
