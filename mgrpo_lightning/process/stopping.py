"""Stopping: at SIGINT (Ctrl-C) or SIGTERM let a step finish, then interrupt, exit, be killed; a second one interrupts.

seconds   what happens
0         a fit finishes and saves the current step; any other command is interrupted
GRACE     a fit is interrupted too: running turns are cancelled, finished turns are on disk
LAST      the process exits without joining threads, because a tool's thread may never return
KILL      the guard kills the process, because a tool may hold the GIL (``process/guard.py``)

A second signal interrupts at once. A run can resume from every state on disk, so the later stages cost only time.
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
"""Seconds in which a second signal counts as the first one: a terminal signals all ranks, and rank zero does so too."""
MARK, LAUNCHER, RANK_ZERO = "MGRPO_STOPPED_MARK", "MGRPO_LAUNCHER", "MGRPO_RANK_ZERO"
"""Environment variables: the file that the guard creates; the process id of ``mgrpo launch``; that of rank zero."""
_PR_SET_PDEATHSIG = 1


class Stopping:
    """The signal handlers of a command; they run in the main thread."""

    current: Stopping | None = None
    """The handlers of this process, if it runs a command."""

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        """The first signal; None before it."""
        self.patient = False
        """Whether the current step may finish before the process ends."""
        self.forward: Callable[[signal.Signals], object] | None = None
        """Passes the first signal on to ranks that this process started."""
        self._heard = 0.0
        self._interrupted = False

    def listen(self, *numbers: signal.Signals) -> None:
        """Install the handler, except for signals that the parent process made this process ignore.

        Args:
            *numbers: The signals to handle.
        """
        for number in numbers:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self.hear)

    def hear(self, signum: int, frame: object) -> None:
        """The signal handler.

        Args:
            signum: Number of the signal.
            frame: Stack frame at the signal; not used.

        Raises:
            Interrupted: No step may finish first, or this is not the first signal.
        """
        now = time.monotonic()
        if self.asked is None:
            self.asked, self._heard = signal.Signals(signum), now
            if self.forward is not None:
                self.forward(self.asked)
            if self.patient:
                return
        # After the interrupt, further signals are ignored: they must not interrupt the cleanup.
        elif self._interrupted or now - self._heard < AT_ONCE:
            return
        self._interrupted = True
        raise Interrupted(self.asked)

    def start(self) -> None:
        """Make this process end within ``KILL`` seconds of a signal, and together with its launcher."""
        Stopping.current = self
        self.listen(signal.SIGINT, signal.SIGTERM)
        _end_with_parent()
        signals, wakeup = os.pipe()
        told, tell = os.pipe()
        # Python's C signal handler writes to it and must never block.
        os.set_blocking(wakeup, False)
        # -I and -S skip site-packages, so the guard starts within a few hundredths of a second.
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
        """Run the later stages, in a thread because no signal may reach a computation in the main thread."""
        if not os.read(told, 1):
            return  # the guard has ended
        if self.patient:
            _tell(f"mgrpo: the current step has {GRACE} s to finish; a second signal stops it now.\n")
        time.sleep(GRACE)
        if not self._interrupted:
            # To the main thread itself: only then does its blocking system call return.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        time.sleep(LAST - GRACE)
        _tell(f"mgrpo: stopped by {(self.asked or signal.SIGTERM).name}, without waiting for running tasks.\n")
        self.leave(STOPPED)

    def leave(self, status: int) -> NoReturn:
        """End the process now, without joining threads and without the interpreter's shutdown.

        Args:
            status: Exit status of the process.
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
    with suppress(OSError):  # the reader may be gone
        os.write(2, text.encode())


@contextmanager
def heard(handler: Callable[[int, object], None], *numbers: signal.Signals) -> Iterator[None]:
    """Install a signal handler during the block, except for signals that the parent process made this process ignore.

    Args:
        handler: Handler of all these signals.
        *numbers: The signals to handle.
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
    """Block signals before a fork: the child must not receive one while it has the command's handlers and pipe."""
    _held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, guard.ASKED)


def _let_come() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _held.mask)


def _forget() -> None:
    """Reset signal handling in a process that a tool has forked: its signals do not concern the command."""
    signal.set_wakeup_fd(-1)
    for number in guard.ASKED:
        signal.signal(number, signal.SIG_DFL)
    _let_come()


def _end_with_parent() -> None:
    """Let the kernel end this process when its parent is killed; Linux only.

    A role gets SIGTERM, so it can save. A rank is killed, because it can finish nothing without rank zero.
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
    if os.getppid() != parent:  # the parent died before prctl was called
        os._exit(STOPPED)
