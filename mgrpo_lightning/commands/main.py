"""The command ``mgrpo``: which module a command line is for, and how the process ends."""

from __future__ import annotations

import os
import select
import signal
import sys

from mgrpo_lightning.errors import STOPPED, MgrpoError
from mgrpo_lightning.process.allocator import give_back_large_blocks
from mgrpo_lightning.process.guard import ASKED
from mgrpo_lightning.process.stopping import Stopping, heard, unwrapped


def main() -> None:
    """Entry point of the console script."""
    if os.getcwd() not in sys.path:  # `python -m` has it: an own tool or task beside the team file is found
        sys.path.append(os.getcwd())
    try:
        try:
            _command()
        finally:
            sys.stdout.flush()  # here, and not when the interpreter ends
    except BrokenPipeError as error:
        if not _nobody_reads():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what the interpreter flushes at its end
        raise SystemExit(128 + signal.SIGPIPE) from error


def _command() -> None:
    if sys.argv[1:2] in (["store"], ["launch"], ["view"]):  # these import no torch before they have answered
        try:
            if sys.argv[1] == "store":
                from mgrpo_lightning.commands.store import main as tool

                tool(sys.argv[2:])
            elif sys.argv[1] == "view":
                from mgrpo_lightning.commands.view import main as tool

                tool(sys.argv[2:])
            else:
                with unwrapped(), heard(Stopping().hear, *ASKED):  # until it has started its roles
                    from mgrpo_lightning.commands.launch import main as tool

                    tool(sys.argv[2:])
        except MgrpoError as error:
            print(f"mgrpo: error: {error}", file=sys.stderr)
            raise SystemExit(2) from error
        return
    stopping = Stopping()
    stopping.start()  # before imports that take seconds
    try:
        with unwrapped():
            _command_on_models()
    except SystemExit as ended:
        if stopping.asked and ended.code == STOPPED:
            stopping.leave(STOPPED)
        raise


def _command_on_models() -> None:
    give_back_large_blocks()
    from mgrpo_lightning.commands.command import main as command  # imports torch, whose allocator is set up by now

    command()


def _nobody_reads() -> bool:
    """Whether what reads standard output has ended, as ``head`` does when it has seen enough."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))
