"""Stopping: what SIGINT and SIGTERM do to a command, whatever a tool does, and that it ends with its parent.

seconds   what happens
0         a fit goes on with the step at hand, to save it; any other command is interrupted
GRACE     a fit is interrupted as well: what is in play is cancelled, what is finished of it is on the disk
LAST      the process ends without waiting for threads, as a tool's may never return
KILL      the guard kills it, as a tool may hold the interpreter (``process/guard.py``)

A second signal interrupts at once. Every state of a run on disk is one that it can go on from, so the later stages cost
time and nothing else.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from mgrpo_lightning.errors import STOPPED, Interrupted
from mgrpo_lightning.process import guard

GRACE = 2.5
LAST = 4.0
AT_ONCE = 0.5
"""Seconds in which a second signal is the first one again: a terminal signals all ranks, and rank zero does too."""
MARK, LAUNCHER, RANK_ZERO = "MGRPO_STOPPED_MARK", "MGRPO_LAUNCHER", "MGRPO_RANK_ZERO"
"""Variables: the file that the guard makes; the process ids of ``mgrpo launch``, and of who started this rank."""
_PR_SET_PDEATHSIG = 1


class Stopping:
    """Hears signals, in the main thread."""

    current: Stopping | None = None
    """That of this process, if it is a command of its own."""

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        """The first signal."""
        self.patient = False
        """Whether the step at hand may end before the process does."""
        self.forward: Callable[[signal.Signals], object] | None = None
        """Passes the first signal on, to ranks that were started here."""
        self._heard = 0.0
        self._interrupted = False

    def listen(self, *numbers: signal.Signals) -> None:
        """Handle signals, but for those that whoever started the process has it ignore.

        Args:
            numbers: Which ones.
        """
        for number in numbers:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self.hear)

    def hear(self, signum: int, frame: object) -> None:
        """The handler.

        Args:
            signum: Of the signal.
            frame: Where it was heard.

        Raises:
            Interrupted: No step at hand may end, or this is not the first signal.
        """
        now = time.monotonic()
        if self.asked is None:
            self.asked, self._heard = signal.Signals(signum), now
            if self.forward is not None:
                self.forward(self.asked)
            if self.patient:
                return
        elif self._interrupted or now - self._heard < AT_ONCE:
            return
        self._interrupted = True
        raise Interrupted(self.asked)

    def start(self) -> None:
        """Make this process one that ends within ``KILL`` seconds of a signal, and with whoever launched it."""
        Stopping.current = self
        self.listen(signal.SIGINT, signal.SIGTERM)
        _end_with_parent()
        signals, wakeup = os.pipe()
        told, tell = os.pipe()
        os.set_blocking(wakeup, False)
        # without site-packages: it starts in a few hundredths of a second
        command = [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), str(guard.KILL)]
        if mark := os.environ.pop(MARK, None):
            command.append(mark)
        self._guard = subprocess.Popen(command, stdin=signals, stdout=tell, start_new_session=True)
        os.close(signals)
        os.close(tell)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        os.register_at_fork(before=_hold_back, after_in_parent=_let_come, after_in_child=_forget)
        threading.Thread(target=self._count_down, args=(told,), name="stopping", daemon=True).start()

    def _count_down(self, told: int) -> None:
        """The later stages; in a thread, as the main one may be in a computation that no signal reaches."""
        if not os.read(told, 1):
            return  # the guard has gone
        if self.patient:
            _tell(f"mgrpo: the step at hand has {GRACE} s to end; another signal ends it now.\n")
        time.sleep(GRACE)
        if not self._interrupted:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        time.sleep(LAST - GRACE)
        _tell(f"mgrpo: stopped by {(self.asked or signal.SIGTERM).name}, without waiting for what still ran.\n")
        self.leave(STOPPED)

    def leave(self, status: int) -> NoReturn:
        """End the process now: the interpreter would join the threads of tools, and take its time to clear up.

        Args:
            status: Of the process.
        """
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)


@contextmanager
def unwrapped() -> Iterator[None]:
    """The block in which an error that a signal led to counts as the signal.

    Interrupted code may raise an error of its own instead: Python 3.11 makes a RuntimeError of whatever is raised
    while a class is made, so also of a signal during an import.

    Raises:
        Interrupted: The error has one among its causes.
    """
    try:
        yield
    except Exception as error:
        inner: BaseException | None = error
        while inner is not None and not isinstance(inner, Interrupted):
            inner = inner.__cause__ or inner.__context__
        if inner is None:
            raise
        raise inner from None


def _tell(text: str) -> None:
    with suppress(OSError):  # whoever reads may be gone
        os.write(2, text.encode())


@contextmanager
def heard(handler: Callable[[int, object], None], *numbers: signal.Signals) -> Iterator[None]:
    """The block in which signals have a handler, but for those that whoever started the process has it ignore.

    Args:
        handler: Of all of them.
        *numbers: Which ones.
    """
    before = {number: signal.getsignal(number) for number in numbers}
    wanted = [number for number in numbers if before[number] != signal.SIG_IGN]
    for number in wanted:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in wanted:
            signal.signal(number, before[number])


_held = threading.local()


def _hold_back() -> None:
    """Before a tool forks: no signal may reach the new process while it still has the command's handlers and pipe."""
    _held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, guard.ASKED)


def _let_come() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _held.mask)


def _forget() -> None:
    """In a process that a tool has forked: its signals are none of the command's."""
    signal.set_wakeup_fd(-1)
    for number in guard.ASKED:
        signal.signal(number, signal.SIG_DFL)
    _let_come()


def _end_with_parent() -> None:
    """Have the system end this process when the one that launched it is killed; Linux only.

    A role is asked to end as by hand. A rank is killed: without rank zero it can finish nothing.
    """
    if launcher := os.environ.pop(LAUNCHER, None):
        _die_with(int(launcher), signal.SIGTERM)
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        os.environ[RANK_ZERO] = str(os.getpid())
    elif first := os.environ.get(RANK_ZERO):
        _die_with(int(first), signal.SIGKILL)


def _die_with(parent: int, signum: signal.Signals) -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
    if os.getppid() != parent:  # it was killed before
        os._exit(STOPPED)
