"""The batch script of a job: what it asks SLURM for, what it starts, and what becomes of signals and failures."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from mgrpo_lightning.commands.launch import main
from mgrpo_lightning.commands.slurm_job import RANK, ClusterConfig, JobConfig, PlaceConfig, read_cluster, render, submit
from mgrpo_lightning.errors import STOPPED, ConfigurationError, MgrpoError

ROLES = ["main", "searcher"]
PLACES = {
    "main": PlaceConfig(cpus_per_task=8, gpus_per_node=1),
    "searcher": PlaceConfig(nodes=2, tasks_per_node=4, cpus_per_task=6, gpus_per_node=4, options=["--cpu-bind=cores"]),
}


def asked(script: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]


def started(script: str) -> list[str]:
    return [line for line in script.splitlines() if line.startswith("role ")]


def test_a_plain_job_has_the_nodes_of_all_roles_and_each_gets_its_own() -> None:
    job = JobConfig(time="04:00:00", account="lab", partition="gpu", memory="64G", options=["--qos=long"])
    script = render(ClusterConfig(job, PLACES), Path("/shared/run"), ["--config", "my team.yaml"], ["mgrpo", "fit"])
    assert asked(script) == [
        *("--job-name=run", "--time=04:00:00", "--account=lab", "--output=/shared/run/slurm-%j.txt"),
        *("--open-mode=append", "--signal=B:USR1@300", "--requeue", "--qos=long"),
        *("--nodes=3", "--ntasks-per-node=4", "--cpus-per-task=8", "--gpus-per-node=4", "--mem=64G", "--partition=gpu"),
    ]
    assert started(script) == [
        "role main 0 --exact --nodes=1 --ntasks-per-node=1 --cpus-per-task=8 --gpus-per-node=1 --ntasks=1 --",
        "role searcher 1 --exact --nodes=2 --ntasks-per-node=4 --cpus-per-task=6 --gpus-per-node=4 --ntasks=8 "
        "--cpu-bind=cores -- --trainer.num_nodes=2 --trainer.devices=4",
    ]
    assert "mgrpo fit --config 'my team.yaml' --role \"$name\"" in script


def test_a_folder_and_a_name_with_spaces_are_one_word_each() -> None:
    script = render(ClusterConfig(JobConfig(name="a b"), PLACES), Path("/shared/my runs/c"), [], ["mgrpo", "fit"])
    assert asked(script)[:2] == ['"--job-name=a b"', '"--output=/shared/my runs/c/slurm-%j.txt"']


def test_a_heterogeneous_job_has_a_component_for_each_role() -> None:
    job = JobConfig(heterogeneous=True, partition="cpu", requeue=False)
    places = PLACES | {"searcher": PlaceConfig(partition="gpu", memory="32G", gpus_per_node=1)}
    script = render(ClusterConfig(job, places), Path("/shared/run"), [], ["mgrpo", "fit"])
    assert asked(script)[4:] == [
        *("--no-requeue", "--nodes=1", "--ntasks-per-node=1", "--cpus-per-task=8", "--gpus-per-node=1"),
        "--partition=cpu",
        "hetjob",
        *("--nodes=1", "--ntasks-per-node=1", "--gpus-per-node=1", "--mem=32G", "--partition=gpu"),
    ]
    assert ["--het-group=0" in line for line in started(script)] == [True, False]
    assert "--het-group=1" in started(script)[1]


FAKE = {
    # A rank that fails makes it end the others; its own status is theirs then.
    "srun": """#!/bin/bash
tasks=1 ranks=() status=0
while [[ $1 == --* ]]; do
  case $1 in --output=*) log=${1#*=} ;; --ntasks=*) tasks=${1#*=} ;; esac
  shift
done
for ((rank = 0; rank < tasks; rank++)); do
  FAKE_RANK=$rank "$@" >>"$log" &
  ranks+=($!)
done
for pid in "${ranks[@]}"; do wait "$pid" || { status=$?; break; }; done
if [ "$status" -ne 0 ] && [ "$tasks" -gt 1 ]; then kill "${ranks[@]}"; wait; status=143; fi
exit "$status"
""",
    "mgrpo": """#!/bin/bash
role=$(sed 's/.*--role \\([a-z]*\\).*/\\1/' <<<"$*")
[ "$FAKE_RANK" -eq 0 ] && echo "index $MGRPO_ROLE_INDEX: mgrpo $*"
while [ ! -e "$FAKE/$role.code" ]; do
  [ -e "$FAKE/run/stop" ] && { sleep "0.$FAKE_RANK"; exit 75; }
  sleep 0.05
done
exit "$(cat "$FAKE/$role.code")"
""",
    "scontrol": """#!/bin/bash
echo "$*" >>"$FAKE/scontrol.txt"
""",
    "squeue": """#!/bin/bash
[ "$*" = "--noheader --jobs=7 --format=%T" ] || exit 3
cat "$FAKE/squeue.txt" 2>/dev/null || { echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1; }
""",
}


class Job:
    """The script, run by bash with an srun that waits for an exit status or for the file `stop`."""

    def __init__(self, folder: Path, number: int = 7) -> None:
        self.folder = folder
        script = render(ClusterConfig(roles=PLACES), folder / "run", ["--x=1"], ["mgrpo", "fit"])
        for name, text in (FAKE | {"job.sbatch": script}).items():
            # A second job finds those of the first, which bash reads while it runs them.
            if not (folder / name).exists():
                (folder / name).write_text(text)
                (folder / name).chmod(0o755)
        path = f"{folder}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "FAKE": str(folder), "SLURM_JOB_ID": str(number)}
        words = ["bash", str(folder / "job.sbatch")]
        self.process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)

    def logs(self) -> dict[str, str]:
        give_up = time.monotonic() + 20
        paths = {role: self.folder / "run" / role / "log.txt" for role in ROLES}
        while not all(path.exists() and path.read_text().endswith("\n") for path in paths.values()):
            assert time.monotonic() < give_up
            time.sleep(0.02)
        return {role: path.read_text() for role, path in paths.items()}

    def end(self, **codes: int) -> int:
        for role, code in codes.items():
            (self.folder / f"{role}.new").write_text(str(code))
            (self.folder / f"{role}.new").rename(self.folder / f"{role}.code")
        return self.process.wait(timeout=20)

    @property
    def requeued(self) -> bool:
        return (self.folder / "scontrol.txt").exists()


def test_roles_are_started_and_the_job_ends_well_when_all_have(tmp_path: Path) -> None:
    job = Job(tmp_path)
    assert job.logs() == {
        "main": "index 0: mgrpo fit --x=1 --role main\n",
        "searcher": "index 1: mgrpo fit --x=1 --role searcher --trainer.num_nodes=2 --trainer.devices=4\n",
    }
    assert job.end(main=0, searcher=0) == 0
    assert not job.requeued


def test_a_role_with_a_checkpoint_goes_on_from_it_and_an_old_stop_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "run" / "main" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "main" / "checkpoints" / "step=000004.ckpt").touch()
    (tmp_path / "run" / "stop").touch()
    job = Job(tmp_path)
    assert job.logs()["main"].endswith("--role main --ckpt_path=last\n")
    assert "ckpt_path" not in job.logs()["searcher"]
    assert job.end(main=0, searcher=0) == 0


def test_near_the_time_limit_all_stop_and_the_job_is_requeued_once(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.logs()
    job.process.send_signal(10)  # SIGUSR1
    assert job.end() == 0
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 7\n"


def test_a_role_that_ended_before_the_others_stopped_does_not_keep_the_job_from_going_on(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.logs()
    (tmp_path / "searcher.code").write_text("0")
    time.sleep(0.3)
    job.process.send_signal(10)
    assert job.end() == 0
    assert job.requeued


@pytest.mark.parametrize("limit", [False, True])
def test_a_failure_stops_the_others_and_nothing_is_requeued(tmp_path: Path, limit: bool) -> None:
    job = Job(tmp_path)
    job.logs()
    if limit:
        (tmp_path / "main.code").write_text("3")
        job.process.send_signal(10)
    assert job.end(**({} if limit else {"main": 3})) == 3
    assert (tmp_path / "run" / "stop").exists()
    assert not job.requeued


def test_a_job_that_is_stopped_and_not_requeued_has_not_succeeded(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.logs()
    (tmp_path / "run" / "stop").touch()  # by hand
    assert job.end() == STOPPED
    assert not job.requeued


def test_a_job_that_cannot_be_requeued_has_not_succeeded(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.logs()
    (tmp_path / "scontrol").write_text("#!/bin/bash\nexit 1\n")
    job.process.send_signal(10)
    assert job.end() == STOPPED


@pytest.mark.parametrize("state", ["RUNNING", "PENDING", "squeue: error: the controller does not answer"])
@pytest.mark.parametrize("stopping", [False, True])
def test_a_script_that_is_submitted_again_leaves_the_running_job_alone(
    tmp_path: Path, state: str, stopping: bool
) -> None:
    job = Job(tmp_path)
    logs = job.logs()
    (tmp_path / "squeue.txt").write_text(f"{state}\n")
    (tmp_path / "main.code").write_text("0")  # it ends: what is left is the searcher's
    while not (tmp_path / "run" / "main" / "status").exists():
        time.sleep(0.02)
    (kept := tmp_path / "run" / "main" / "stopped").touch()
    if stopping:
        job.process.send_signal(signal.SIGSTOP)
        (tmp_path / "run" / "stop").touch()
    again = Job(tmp_path, 8)
    _, told = again.process.communicate(timeout=20)
    assert again.process.returncode == 2
    assert f"job 7 ({state}) uses the run folder {tmp_path}/run. HINT: wait" in told
    assert (tmp_path / "run" / "stop").exists() == stopping
    assert kept.exists()
    assert (tmp_path / "run" / "main" / "status").exists()
    assert (tmp_path / "run" / "job.id").read_text() == "7\n"
    assert job.logs() == logs
    job.process.send_signal(signal.SIGCONT)
    assert job.end(**({} if stopping else {"searcher": 0})) == (STOPPED if stopping else 0)


@pytest.mark.parametrize("number", [7, 8])
def test_a_job_that_is_requeued_goes_on_and_so_does_another_behind_one_that_is_over(
    tmp_path: Path, number: int
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "job.id").write_text("7\n")
    if number == 7:
        (tmp_path / "squeue.txt").write_text("RUNNING\n")
    job = Job(tmp_path, number)
    job.logs()
    assert job.end(main=0, searcher=0) == 0
    assert (tmp_path / "run" / "job.id").read_text() == f"{number}\n"


def test_a_cluster_file_is_read_with_slurms_own_times(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text("job: {time: 04:00:00, setup: [module load cuda]}\nroles: {searcher: {nodes: 2}}\n")
    assert read_cluster(path, ROLES) == ClusterConfig(
        JobConfig(time="04:00:00", setup=["module load cuda"]),
        {"main": PlaceConfig(), "searcher": PlaceConfig(nodes=2)},
    )


def test_the_examples_can_be_read(root: Path) -> None:
    paths = sorted((root / "configs" / "slurm").glob("*.yaml"))
    assert [read_cluster(path, ROLES).job.heterogeneous for path in paths] == [False, False, True]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("jobs: {time: '1'}", "jobs"),
        ("job: {tim: 1}", "tim"),
        ("roles: {main: {nodes: many}}", "many"),
        ("roles: {reader: {}}", "reader"),
        ("roles: {main: {partition: gpu}}", "share one allocation"),
        ("job: [", "cluster.yaml"),
        ("- a\n- b", "cluster.yaml"),
    ],
)
def test_a_cluster_file_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=rf"cluster.yaml.*{named}.*HINT|{named}.*HINT"):
        read_cluster(path, ROLES)
    with pytest.raises(ConfigurationError, match="nowhere"):
        read_cluster(tmp_path / "nowhere.yaml", ROLES)


def test_the_script_is_kept_and_a_refusal_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sbatch").write_text("#!/bin/bash\necho 'invalid   partition' >&2\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    (tmp_path / "cluster.yaml").write_text("job: {partition: gpu}\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    team = ["--config", str(root / "configs" / "quickstart.yaml"), f"--run.root={tmp_path}"]
    main(["--slurm", str(tmp_path / "cluster.yaml"), "--write_only", *team])
    assert f"wrote {tmp_path}/quickstart/job.sbatch" in capsys.readouterr().out
    with pytest.raises(MgrpoError, match=r"sbatch rejects .*job.sbatch: invalid partition"):
        main(["--slurm", str(tmp_path / "cluster.yaml"), *team])
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(MgrpoError, match="no command `sbatch`"):
        submit(ClusterConfig(roles=PLACES), tmp_path / "run", [], write_only=False)


@pytest.mark.parametrize(
    ("does", "status", "stopped"),
    [
        ("exit 75", 0, True),
        ('touch "$MGRPO_STOPPED_MARK"; kill -9 $$', 0, True),  # its guard
        ("kill -9 $$", 137, False),  # the system, short of memory
        ("exit 3", 3, False),
    ],
)
def test_a_rank_that_its_guard_had_to_kill_has_stopped(tmp_path: Path, does: str, status: int, stopped: bool) -> None:
    words = ["bash", "-c", RANK, "bash", str(tmp_path / "stopped"), "bash", "-c", does]
    assert subprocess.run(words, capture_output=True).returncode == status
    assert [path.name for path in tmp_path.iterdir()] == ["stopped"] * stopped
