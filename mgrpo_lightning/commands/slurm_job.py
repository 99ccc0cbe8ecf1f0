"""``mgrpo launch --slurm CLUSTER``: write and submit a job of one ``srun`` a role; stop before the time limit, requeue.

CLUSTER is a YAML file with the resources of each role; the team file defines the roles:

    job: {time: "04:00:00", account: lab, setup: ["module load cuda", "source .venv/bin/activate"]}
    roles:
      main: {cpus_per_task: 8, gpus_per_node: 1}
      searcher: {nodes: 2, tasks_per_node: 4, cpus_per_task: 8, gpus_per_node: 4}

Roles share one allocation. With ``heterogeneous: true``, each role is a component of the job and can have its own
partition. The script stays in the run folder; users may edit it and submit it again with ``sbatch``. Before the time
limit, it asks all roles to stop. Then it requeues the job, which resumes from the last checkpoints. If a role fails,
the others stop and the job ends with the failed role's status. A job that was stopped and is not requeued ends with
status 75: the run can be resumed.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from jsonargparse import ArgumentError, ArgumentParser

from mgrpo_lightning.errors import STOPPED, ConfigurationError, MgrpoError
from mgrpo_lightning.persistence.atomic import atomic_path
from mgrpo_lightning.process.stopping import MARK
from mgrpo_lightning.store.layout import STOP

SCRIPT = "job.sbatch"
"""File name of the batch script in the run folder."""
JOB = "job.id"
"""File in the run folder that holds the id of the job that owns the run."""
RANK = (
    f'trap : TERM; export {MARK}="$1-$$"; rm -f "${MARK}"; "${{@:2}}"; code=$?; '
    f'[ -e "${MARK}" ] && rm "${MARK}" && code={STOPPED}; '
    f'[ "$code" -eq {STOPPED} ] && code=0 && touch "$1"; exit "$code"'
)
"""Shell code of a rank. $1 is a file that it creates if the command stopped, by itself or killed by its guard; the
command follows. The no-op trap lets the shell outlive SIGTERM and write the file; the command does not inherit it."""
TEMPLATE = f"""#!/bin/bash
@header@

run=@run@ requeue=@requeue@
mkdir -p "$run"
# If two jobs start at once, only one creates the file. The run's own locks come too late: this script removes files.
if ! (set -o noclobber; echo "$SLURM_JOB_ID" >"$run/{JOB}") 2>/dev/null; then
  other=$(cat "$run/{JOB}")
  state=$([ "$other" = "$SLURM_JOB_ID" ] || squeue --noheader --jobs="$other" --format=%T 2>&1)
  case $state in
    "" | *"Invalid job id"*) echo "$SLURM_JOB_ID" >"$run/{JOB}" ;;  # this job was requeued, or the other has ended
    *)
      echo "mgrpo: error: job $other ($state) uses the run folder $run. HINT: wait until it ends, or cancel it with" \
        "scancel; if there is no such job, remove $run/{JOB}; then submit again." >&2
      exit 2 ;;
  esac
fi
cd @place@ || exit 1
@setup@
rm -f "$run/{STOP}"  # left by an earlier attempt
stopped=
trap 'stopped=1; touch "$run/{STOP}"' USR1  # the time limit is near

names=()
role() {{  # name, index, options of srun, --, options of mgrpo fit
  local name=$1 index=$2 srun=() last=()
  shift 2
  while [ "$1" != -- ]; do srun+=("$1"); shift; done
  shift
  mkdir -p "$run/$name"
  rm -f "$run/$name/status" "$run/$name/stopped"
  compgen -G "$run/$name/checkpoints/step=*.ckpt" >/dev/null && last=(--ckpt_path=last)
  (
    # A rank that stopped creates a file and exits with 0: any other status would make srun kill the other ranks.
    MGRPO_ROLE_INDEX=$index srun "${{srun[@]}}" --kill-on-bad-exit=1 --open-mode=append --output="$run/$name/log.txt" \\
      bash -c '{RANK}' bash "$run/$name/stopped" \\
      @fit@ --role "$name" "$@" "${{last[@]}}"
    code=$?
    [ "$code" -eq 0 ] && [ -e "$run/$name/stopped" ] && code={STOPPED}
    case $code in 0 | {STOPPED}) ;; *) touch "$run/{STOP}" ;; esac  # it failed: the others save and stop
    echo "$code" >"$run/$name/status"
  ) &
  names+=("$name")
}}
@roles@

while [ -n "$(jobs -rp)" ]; do wait; done  # the trap ends a wait
status=0 again=
for name in "${{names[@]}}"; do
  code=$(cat "$run/$name/status" || echo 1)
  if [ "$code" -eq {STOPPED} ]; then again=1; elif [ "$code" -ne 0 ]; then status=$code; fi
done
if [ -n "$again" ] && [ "$status" -eq 0 ]; then  # stopped early: the job succeeds only if it is requeued
  [ -n "$requeue" ] && [ -n "$stopped" ] && scontrol requeue "$SLURM_JOB_ID" || status={STOPPED}
fi
exit "$status"
"""
"""The batch script; ``render`` replaces the names between @."""


@dataclass(frozen=True)
class JobConfig:
    """Settings of the whole job."""

    name: str | None = None
    """Name of the job; None: the name of the run."""
    time: str | None = None
    """Time limit in SLURM's format, such as 04:00:00."""
    account: str | None = None
    partition: str | None = None
    memory: str | None = None
    """Memory of each node, such as ``64G``."""
    heterogeneous: bool = False
    """Whether each role is its own component of a heterogeneous job."""
    stop_before: int = 300
    """Seconds before the time limit at which roles are asked to stop; must be longer than a step."""
    requeue: bool = True
    """Whether a job that its time limit stopped is queued again."""
    options: list[str] = field(default_factory=list)
    """More options of sbatch, such as ``--qos=long``."""
    setup: list[str] = field(default_factory=list)
    """Shell lines that run before the roles start."""


@dataclass(frozen=True)
class PlaceConfig:
    """Resources of one role."""

    nodes: int = 1
    tasks_per_node: int = 1
    """Ranks on each node; each rank uses one device."""
    cpus_per_task: int | None = None
    gpus_per_node: int = 0
    memory: str | None = None
    """Memory of each node of the role's component; needs a heterogeneous job."""
    partition: str | None = None
    """Partition of the role's component; needs a heterogeneous job."""
    options: list[str] = field(default_factory=list)
    """More options of the role's srun, such as ``--cpu-bind=cores``."""


@dataclass(frozen=True)
class ClusterConfig:
    """Content of a cluster file."""

    job: JobConfig = field(default_factory=JobConfig)
    roles: dict[str, PlaceConfig] = field(default_factory=dict)


def read_cluster(path: Path, roles: Sequence[str]) -> ClusterConfig:
    """Read and check a cluster file.

    Args:
        path: Path of the YAML file.
        roles: Roles of the team; a role without a block gets one task on its own node.

    Raises:
        ConfigurationError: The file cannot be read, or names an unknown key or role.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ClusterConfig)
    try:
        cluster = ClusterConfig(**parser.instantiate_classes(parser.parse_string(path.read_text(encoding="utf-8"))))
    except (ArgumentError, OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"cluster file {path}: {' '.join(str(error).split())}",
            hint="see the classes in mgrpo_lightning/commands/slurm_job.py for its keys.",
        ) from error
    if strange := sorted(set(cluster.roles) - set(roles)):
        raise ConfigurationError(
            f"cluster file {path} names role {strange[0]!r}, which is not in the team.",
            hint=f"use a role of the team: {sorted(roles)}.",
        )
    cluster = replace(cluster, roles={role: cluster.roles.get(role, PlaceConfig()) for role in roles})
    for role, place in cluster.roles.items():
        if (place.partition or place.memory) and not cluster.job.heterogeneous:
            raise ConfigurationError(
                f"cluster file {path}: role {role!r} sets a partition or memory, but all roles share one allocation.",
                hint="set job.heterogeneous: true, or set partition and memory under `job`.",
            )
    return cluster


def render(cluster: ClusterConfig, folder: Path, options: Sequence[str], command: Sequence[str]) -> str:
    """Return the text of the batch script.

    Args:
        cluster: Resources of the job and its roles.
        folder: Folder of the run, on a filesystem that all nodes share.
        options: Command-line options for ``mgrpo fit``.
        command: Program to start; the options and the role are appended.
    """
    roles = [
        f"role {role} {index} {shlex.join(_srun(where, index, cluster.job))} -- {shlex.join(_ranks(where))}".rstrip()
        for index, (role, where) in enumerate(cluster.roles.items())
    ]
    parts = {
        "header": "\n".join(_header(cluster, folder)),
        "run": shlex.quote(str(folder.absolute())),
        "place": shlex.quote(str(Path.cwd())),
        "setup": "\n".join(cluster.job.setup),
        "fit": shlex.join([*command, *options]),
        "roles": "\n".join(roles),
        "requeue": "1" if cluster.job.requeue else "",
    }
    script = TEMPLATE
    for name, text in parts.items():
        script = script.replace(f"@{name}@", text)
    return script


def _header(cluster: ClusterConfig, folder: Path) -> list[str]:
    job = cluster.job
    common = [
        _whole(f"--job-name={job.name or folder.name}"),
        *([f"--time={job.time}"] if job.time else []),
        *([_whole(f"--account={job.account}")] if job.account else []),
        _whole(f"--output={folder.absolute() / 'slurm-%j.txt'}"),
        "--open-mode=append",
        f"--signal=B:USR1@{job.stop_before}",  # B: only the batch shell gets it, which handles it with a trap
        *(["--requeue"] if job.requeue else ["--no-requeue"]),
        *job.options,
    ]
    places = list(cluster.roles.values())
    if job.heterogeneous:
        blocks = [[*_size(where), *_partition(where.partition or job.partition)] for where in places]
    else:  # one allocation: all nodes together, each large enough for the largest role
        whole = PlaceConfig(
            nodes=sum(where.nodes for where in places),
            tasks_per_node=max(where.tasks_per_node for where in places),
            cpus_per_task=max((where.cpus_per_task or 0) for where in places) or None,
            gpus_per_node=max(where.gpus_per_node for where in places),
            memory=job.memory,
        )
        blocks = [[*_size(whole), *_partition(job.partition)]]
    lines = [f"#SBATCH {option}" for option in [*common, *blocks[0]]]  # common options go with the first component
    for block in blocks[1:]:
        lines += ["#SBATCH hetjob", *(f"#SBATCH {option}" for option in block)]
    return lines


def _whole(option: str) -> str:
    """Quote an option that contains white space, because sbatch splits the lines of a script there."""
    return f'"{option}"' if len(option.split()) > 1 else option


def _size(where: PlaceConfig) -> list[str]:
    return [
        f"--nodes={where.nodes}",
        f"--ntasks-per-node={where.tasks_per_node}",
        *([f"--cpus-per-task={where.cpus_per_task}"] if where.cpus_per_task else []),
        *([f"--gpus-per-node={where.gpus_per_node}"] if where.gpus_per_node else []),
        *([f"--mem={where.memory}"] if where.memory else []),
    ]


def _partition(name: str | None) -> list[str]:
    return [f"--partition={name}"] if name else []


def _srun(where: PlaceConfig, index: int, job: JobConfig) -> list[str]:
    group = [f"--het-group={index}"] if job.heterogeneous else ["--exact"]  # else one srun takes all CPUs of a node
    return [*group, *_size(where), f"--ntasks={where.nodes * where.tasks_per_node}", *where.options]


def _ranks(where: PlaceConfig) -> list[str]:
    ranks = (where.nodes, where.tasks_per_node) != (1, 1)
    return [f"--trainer.num_nodes={where.nodes}", f"--trainer.devices={where.tasks_per_node}"] if ranks else []


def submit(cluster: ClusterConfig, folder: Path, options: Sequence[str], *, write_only: bool) -> None:
    """Write the script into the run folder and submit it.

    Args:
        cluster: Resources of the job and its roles.
        folder: Folder of the run.
        options: Command-line options for ``mgrpo fit``.
        write_only: Only write the script; the user submits it.

    Raises:
        MgrpoError: There is no ``sbatch``, or it refuses the job.
    """
    command = (sys.executable, "-m", "mgrpo_lightning", "fit")
    with atomic_path(folder / SCRIPT) as temporary:  # never a half-written script, even if a job submits it meanwhile
        temporary.write_text(render(cluster, folder, options, command), encoding="utf-8")
    path = folder / SCRIPT
    print(f"wrote {path}", flush=True)
    if write_only:
        return
    try:
        done = subprocess.run(["sbatch", str(path)], capture_output=True, text=True)
    except FileNotFoundError as error:
        raise MgrpoError("there is no command `sbatch`.", hint=f"submit {path} on a cluster's machine.") from error
    if done.returncode:
        raise MgrpoError(f"sbatch rejects {path}: {' '.join(done.stderr.split())}.", hint="correct the cluster file.")
    print(f"{done.stdout.strip()}; logs in {folder}/ROLE/log.txt, status: mgrpo store {folder}", flush=True)
