"""The guard: a small process that ends a command which does not end itself after SIGINT or SIGTERM.

    python guard.py PID SECONDS [MARK] <signals >told

Python handles a signal between two of its own instructions. A tool that computes in C and holds the interpreter, such
as a regular expression that backtracks, can delay that for hours. What Python does at once is write the number of the
signal to a pipe (``signal.set_wakeup_fd``). The guard reads it, tells a thread of the command, and kills the command
after SECONDS. A kill loses nothing that was finished. Before it, the guard makes the file MARK: whoever
started the command then takes the kill for a stop. The guard ends with the command.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import suppress

KILL = 4.6
"""Seconds that a command has to end."""
ASKED = (signal.SIGINT, signal.SIGTERM)


def main(pid: int, seconds: float, mark: str | None) -> None:
    """Watch the parent.

    Args:
        pid: Of the parent.
        seconds: That it has to end.
        mark: File to make before it is killed.
    """
    for number in (*ASKED, signal.SIGHUP):  # they are for the command, though a cluster sends them to all
        signal.signal(number, signal.SIG_IGN)
    deadline = None
    while os.getppid() == pid:
        ready, _, _ = select.select([0], [], [], 0.2 if deadline else 1.0)
        if ready:
            numbers = os.read(0, 4096)
            if not numbers:  # the command has ended
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
    if os.getppid() != pid:
        return
    os.kill(pid, signal.SIGKILL)
    _write(2, b"mgrpo: killed, as it did not end by itself. HINT: nothing finished is lost; go on where it was.\n")


def _write(descriptor: int, text: bytes) -> None:
    with suppress(OSError):  # whoever reads may be gone
        os.write(descriptor, text)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
