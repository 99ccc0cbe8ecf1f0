"""The guard: a child process that kills its command if it does not end within seconds of SIGINT or SIGTERM.

    python guard.py PID SECONDS [MARK] <signals >told

Python handles a signal only between two bytecode instructions. A tool that computes in C and holds the GIL, such as a
backtracking regular expression, can delay that for hours. But Python writes the signal's number to a pipe at once
(``signal.set_wakeup_fd``). The guard reads that pipe, tells a thread of the command, and kills the command after
SECONDS. A kill loses nothing that was finished. Before the kill the guard creates the file MARK, so that the launcher
treats the kill as a stop. The guard ends when the command ends.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import suppress

KILL = 4.6
"""Seconds from a signal to the kill."""
ASKED = (signal.SIGINT, signal.SIGTERM)


def main(pid: int, seconds: float, mark: str | None) -> None:
    """Watch the parent process.

    Args:
        pid: Process id of the parent.
        seconds: Timeout of the parent after a signal.
        mark: File to create before the kill, or None.
    """
    for number in (*ASKED, signal.SIGHUP):  # a cluster sends these to all processes; only the command handles them
        signal.signal(number, signal.SIG_IGN)
    deadline = None
    while os.getppid() == pid:
        # With a timeout: a forked child may hold the pipe open after the command has ended.
        ready, _, _ = select.select([0], [], [], 0.2 if deadline else 1.0)
        if ready:
            numbers = os.read(0, 4096)
            if not numbers:  # end of file: the command has ended
                return
            if deadline is None and set(ASKED) & set(numbers):
                deadline = time.monotonic() + seconds
                _write(1, numbers[:1])
        if deadline and time.monotonic() > deadline:
            _kill(pid, mark)
            return


def _kill(pid: int, mark: str | None) -> None:
    if mark:
        with open(mark, "w", encoding="utf-8") as file:
            file.write(f"{pid}\n")
    # Its id may belong to another process after it ended, so check again just before the kill.
    if os.getppid() != pid:
        return
    os.kill(pid, signal.SIGKILL)
    _write(2, b"mgrpo: killed, because it did not stop by itself. HINT: resume it; all finished work is kept.\n")


def _write(descriptor: int, text: bytes) -> None:
    with suppress(OSError):  # the reader may be gone
        os.write(descriptor, text)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
