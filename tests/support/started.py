"""Commands in processes of their own that begin behind the imports, which take a processor seven seconds.

They are forked from a server that has imported everything and done nothing else (``tests.support.preloaded``).
Each then runs as ``python -m mgrpo_lightning`` does, with its own process id, folder, words, environment and output.
Two things are the server's: the hash seed, and the environment that the imports saw. So tests of the start itself start
Python, and so does one of two runs that have to be bitwise the same.
"""

from __future__ import annotations

import atexit
import functools
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Started:
    """``python -m mgrpo_lightning`` with some words, with one thread for OpenMP.

    Args:
        words: Behind ``mgrpo``.
        cwd: Its folder.
        env: Its environment; None takes that of this process.
        module: What ``-m`` names.
    """

    def __init__(
        self,
        words: Sequence[str],
        *,
        cwd: Path = ROOT,
        env: Mapping[str, str] | None = None,
        module: str = "mgrpo_lightning",
    ) -> None:
        descriptor, name = tempfile.mkstemp(dir=_folder().name)
        os.close(descriptor)
        self._said = Path(name)
        environment = {**(os.environ if env is None else env), "OMP_NUM_THREADS": "1"}
        given = (module, list(words), str(cwd), environment, name)
        self._process = server().Process(target=_begin, args=given)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Its status, minus a signal's number if one has ended it; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended.

        Args:
            number: Of the signal.
        """
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL, and wait until it is gone."""
        self.send_signal(signal.SIGKILL)
        self.wait()

    def wait(self, timeout: float = 900) -> int:
        """Its status, once it has ended.

        Args:
            timeout: Seconds after which it is killed.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
            pytest.fail(f"it ran for more than {timeout} s: {self.said()}")
        return self._process.exitcode

    def said(self) -> str:
        """What it has written to standard output and standard error so far."""
        return self._said.read_text(encoding="utf-8", errors="replace")

    def finish(self) -> str:
        """Wait for its end, which has to be a success, and return what it said."""
        assert self.wait() == 0, self.said()
        return self.said()


@functools.cache
def server() -> ForkServerContext:
    """The server of this process, also for torch's ``start_processes`` with the start method ``forkserver``."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.preloaded"])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("JE_ARROW_MALLOC_CONF", "background_thread:false")  # no thread to be lost in a fork
        forkserver.ensure_running()
    return context


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """What processes say; it goes with this one."""
    return tempfile.TemporaryDirectory(prefix="started-")


@atexit.register
def _end_all() -> None:
    """What a test that failed has left, before multiprocessing waits for it."""
    for process in multiprocessing.active_children():
        process.kill()


def _begin(module: str, words: list[str], cwd: str, environment: dict[str, str], said: str) -> None:
    """In the new process."""
    assert "mgrpo_lightning.commands.fit" in sys.modules, "the server could not import it"
    threads = Path(f"/proc/{os.getppid()}/task")
    assert not threads.exists() or len(list(threads.iterdir())) == 1, "a fork of a process with threads is not safe"
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *words]
    sys.path.insert(0, cwd)
    file = os.open(said, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
