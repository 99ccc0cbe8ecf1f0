"""``mgrpo launch``: start a process for each role on this machine, divide its GPUs and cores, restart and stop them.

Each process is ``mgrpo fit ... --role ROLE``. Its output goes to ``log.txt`` in the role's folder and to the terminal,
where each line starts with the role's name. A role that fails is restarted from its last checkpoint, at most
``--restarts`` times for all roles together. After that, the launcher stops the other roles. It also stops them when it
receives a signal. All roles share one grace period to stop. If the launcher dies, its roles stop too and can be
resumed. With ``--slurm``, the roles are one job of a cluster instead: see ``commands/slurm_job.py``.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from mgrpo_lightning.commands.config_files import composed
from mgrpo_lightning.commands.options import split
from mgrpo_lightning.commands.slurm_job import read_cluster, submit
from mgrpo_lightning.errors import STOPPED, ConfigurationError, MgrpoError
from mgrpo_lightning.names import check_roles
from mgrpo_lightning.persistence.run_lock import RunLock
from mgrpo_lightning.process.stopping import LAUNCHER, MARK, heard
from mgrpo_lightning.roles.team_file import roles_of
from mgrpo_lightning.store.layout import STOP, writer_name

FIT = (sys.executable, "-m", "mgrpo_lightning", "fit")
GRACE = 10.0
"""Grace period in seconds, shared by all roles, from SIGTERM to SIGKILL; a role normally ends within five."""
POLL = 0.1
"""Seconds between two polls of the processes."""


def main(args: Sequence[str]) -> None:
    """Entry point of ``mgrpo launch``.

    Args:
        args: Command line after ``mgrpo launch``.

    Raises:
        SystemExit: With 1 if a role failed and no restart is left, with ``STOPPED`` if a role was stopped.
        ConfigurationError: No config file names roles.
    """
    # Unknown options belong to `mgrpo fit`; a prefix match would steal one.
    parser = argparse.ArgumentParser("mgrpo launch", allow_abbrev=False)
    parser.add_argument("--restarts", type=int, default=0, help="restarts of failed roles, for all roles together")
    parser.add_argument("--ckpt_path", choices=["last"], help="resume the roles that have a checkpoint")
    parser.add_argument("--slurm", type=Path, metavar="CLUSTER", help="YAML file that says where each role runs")
    parser.add_argument("--write_only", action="store_true", help="with --slurm: write the script but do not submit it")
    arguments, rest = parser.parse_known_args(args)
    roles, folder = team_of(rest)
    for role in roles:
        writer_name(role, 0)  # raises for an invalid role name, before any folder exists
    if arguments.slurm is not None:
        submit(read_cluster(arguments.slurm, roles), folder, rest, write_only=arguments.write_only)
        return
    lock = RunLock(folder, "launch")
    lock.take()
    try:
        (folder / STOP).unlink(missing_ok=True)  # left by an earlier attempt; it would stop this one at once
        launch = Launch(roles, folder, rest, resume=arguments.ckpt_path is not None)
        with heard(launch.ask, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            failed = launch.run(arguments.restarts)
    finally:
        lock.release()
    if failed:
        print(f"mgrpo: error: {_failure(failed, launch.status, folder)}", file=sys.stderr)
        raise SystemExit(1)
    if launch.stopped:
        print(f"mgrpo: {', '.join(launch.stopped)} stopped. HINT: resume with --ckpt_path last.", file=sys.stderr)
        raise SystemExit(STOPPED)


def team_of(args: Sequence[str]) -> tuple[list[str], Path]:
    """Read the local roles (those without an endpoint) and the folder of a run from its config files and options.

    Args:
        args: Command-line words, as for ``mgrpo fit``.

    Raises:
        ConfigurationError: No config file names roles, or a role has an invalid name.
    """
    settings = composed(args)
    blocks = roles_of(settings)
    check_roles(blocks)
    roles = [name for name, block in blocks.items() if not (block or {}).get("endpoint")]
    if not roles:
        raise ConfigurationError("no config file defines roles.", hint="give a team file: mgrpo launch --config TEAM.")
    run = settings.get("run") or {}
    _, _, words = split(args)
    run |= {word.key.removeprefix("run."): word.text for word in words if word.key in ("run.root", "run.name")}
    return roles, Path(run.get("root", "runs")) / run.get("name", "run")


class Launch:
    """The processes of one run, one for each role.

    Args:
        roles: Names of the roles to start.
        folder: Folder of the run; each role writes into a subfolder.
        options: Command-line options for ``mgrpo fit``.
        resume: Whether roles that have a checkpoint resume from the last one.
        command: Program to start; the options and the role are appended.
    """

    def __init__(
        self,
        roles: Sequence[str],
        folder: Path,
        options: Sequence[str],
        *,
        resume: bool = False,
        command: Sequence[str] = FIT,
    ) -> None:
        self._command = command
        self._folder = folder
        self._resume = resume
        self._options = options
        self._roles = roles
        self.stopped: list[str] = []
        """Roles that stopped on request, in a state that can be resumed."""
        self.status = 0
        """Exit status of the role that failed when no restart was left; negative: the signal that killed it."""
        self._gpus = shared_out(_visible_gpus(), roles)
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._followers: dict[str, threading.Thread] = {}
        self._asked = 0
        self._deadline: float | None = None
        """Time on the monotonic clock at which roles that have not ended are killed; None: no role was told to end."""

    def ask(self, signum: int, frame: object) -> None:
        """Signal handler: the first signal ends all roles within the grace period, the second kills them."""
        self._asked += 1

    def run(self, restarts: int) -> str | None:
        """Start all roles and wait until all have ended.

        Args:
            restarts: Number of restarts of failed roles, for all roles together.

        Returns:
            The role that failed when no restart was left, or None.
        """
        failed: str | None = None
        try:
            for role in self._roles:
                self._start(role, resume=self._resume)
            while self._running:
                if self._asked:
                    self._tell_to_end(at_once=self._asked > 1)
                for role, process in list(self._running.items()):
                    if process.poll() is None:
                        continue
                    code = self._ended(role)
                    if code == STOPPED:
                        self.stopped.append(role)
                        if not (self._folder / STOP).exists():  # with the file, each role stops by itself after a step
                            self._tell_to_end()
                    elif code != 0 and restarts > 0 and self._deadline is None:
                        restarts -= 1
                        print(f"{role} | {_end(code)}; restarting it, {restarts} restarts left", flush=True)
                        self._start(role, resume=True)
                    elif code != 0:
                        if failed is None:
                            failed, self.status = role, code
                        self._tell_to_end()
                if self._deadline is not None and time.monotonic() > self._deadline:
                    self._tell_to_end(at_once=True)
                time.sleep(POLL)  # polling, not threading.Event: its lock is not safe to take in a signal handler
        finally:
            self._kill()
        return failed

    def _ended(self, role: str) -> int:
        """Remove an ended process; return its exit status, or ``STOPPED`` if a signal that we sent ended it."""
        code = self._running.pop(role).returncode
        self._followers.pop(role).join(POLL * 20)  # limited: a child that a tool left behind may keep the pipe open
        if code == -signal.SIGKILL and self._mark(role).exists():
            return STOPPED  # asked to stop, but a tool blocked its interpreter, so its guard killed it
        if code in (-signal.SIGTERM, -signal.SIGINT) or (code == -signal.SIGKILL and self._deadline is not None):
            return STOPPED  # the signal came before its handler was installed, or it missed the deadline
        return code

    def _tell_to_end(self, *, at_once: bool = False) -> None:
        """Send SIGTERM to all roles and start the grace period; with ``at_once``, send SIGKILL."""
        if at_once:
            self._deadline = time.monotonic()
            for process in self._running.values():
                process.kill()
        elif self._deadline is None:
            self._deadline = time.monotonic() + GRACE
            for process in self._running.values():
                process.terminate()

    def _kill(self) -> None:
        """Kill all remaining processes, for example after an error in the launcher."""
        for process in self._running.values():
            process.kill()
            process.wait()

    def _mark(self, role: str) -> Path:
        return (self._folder / role / "killed").absolute()

    def _start(self, role: str, *, resume: bool) -> None:
        folder = self._folder / role
        folder.mkdir(parents=True, exist_ok=True)
        last = ["--ckpt_path=last"] if resume and any((folder / "checkpoints").glob("*.ckpt")) else []
        command = [*self._command, *self._options, "--role", role, *last]
        self._mark(role).unlink(missing_ok=True)
        process = subprocess.Popen(
            command,
            env=self._environment(role),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
            process_group=0,  # else the terminal sends Ctrl-C to the roles too, and they would get it twice
        )
        self._running[role] = process
        assert process.stdout is not None
        self._followers[role] = threading.Thread(target=self._follow, args=(role, process.stdout), daemon=True)
        self._followers[role].start()

    def _environment(self, role: str) -> Mapping[str, str]:
        """Environment of a role's process. Roles divide the cores, because more threads than cores slow all down."""
        share = max(1, _cores() // len(self._roles))
        gpus = {"CUDA_VISIBLE_DEVICES": ",".join(mine)} if (mine := self._gpus[role]) else {}
        own = {LAUNCHER: str(os.getpid()), MARK: str(self._mark(role)), "PYTHONUNBUFFERED": "1"}
        return {"OMP_NUM_THREADS": str(share), **os.environ, **gpus, **own}

    def _follow(self, role: str, output: IO[str]) -> None:
        width = max(map(len, self._roles))
        with open(self._folder / role / "log.txt", "a", encoding="utf-8") as log, _closing(output):
            for line in output:
                log.write(line)
                log.flush()
                with suppress(BrokenPipeError):  # the reader of the terminal output is gone; the log file goes on
                    print(f"{role:<{width}} | {line}", end="", flush=True)


def _failure(role: str, status: int, folder: Path) -> MgrpoError:
    """Make the error for a role that ended, with how to go on."""
    fix = (
        "if nobody sent it, memory ran out: see `mgrpo fit --dry_run`" if status == -signal.SIGKILL else "read the log"
    )
    return MgrpoError(
        f"role {role!r} {_end(status)}; its log is {folder / role / 'log.txt'}.",
        hint=f"{fix}; then resume with --ckpt_path last.",
    )


def _end(status: int) -> str:
    """Say how a process ended, from its exit status as ``Popen`` gives it."""
    if status >= 0:
        return f"failed with status {status}"
    with suppress(ValueError):  # real-time signals have no name
        return f"was killed by {signal.Signals(-status).name}"
    return f"was killed by signal {-status}"


def _cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shared_out(gpus: Sequence[str], roles: Sequence[str]) -> dict[str, Sequence[str]]:
    """Divide GPUs among roles: adjacent ones to each role; with fewer GPUs than roles, roles share them in turn.

    Args:
        gpus: Names of all visible GPUs, as in ``CUDA_VISIBLE_DEVICES``.
        roles: Names of the roles.
    """
    if len(gpus) < len(roles):
        return {role: gpus[i % len(gpus) :][:1] if gpus else () for i, role in enumerate(roles)}
    ends = [len(gpus) * i // len(roles) for i in range(len(roles) + 1)]
    return {role: gpus[start:end] for role, start, end in zip(roles, ends[:-1], ends[1:], strict=True)}


def _visible_gpus() -> Sequence[str]:
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in named.split(",") if name.strip()]
    import torch  # here, because the import takes seconds and `mgrpo launch --help` does not need it

    return [str(index) for index in range(torch.cuda.device_count())]


@contextmanager
def _closing(output: IO[str]) -> Iterator[None]:
    try:
        yield
    finally:
        output.close()
