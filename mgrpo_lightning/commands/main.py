"""Console script ``mgrpo``: show help, import the given command's module, handle signals and a broken pipe."""

from __future__ import annotations

import os
import select
import signal
import sys

from mgrpo_lightning.commands.help_pages import asked_page
from mgrpo_lightning.errors import STOPPED, MgrpoError
from mgrpo_lightning.process.guard import ASKED
from mgrpo_lightning.process.stopping import Stopping, heard, unwrapped


def main() -> None:
    """Entry point of the console script."""
    if os.getcwd() not in sys.path:  # like `python -m`: finds a user's tool or task module in the working directory
        sys.path.append(os.getcwd())
    try:
        try:
            _command()
        finally:
            sys.stdout.flush()  # here: a BrokenPipeError at interpreter exit could not be caught
    except BrokenPipeError as error:
        if not _nobody_reads():
            raise
        # The interpreter flushes stdout again at exit. With /dev/null behind it, that flush succeeds.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(128 + signal.SIGPIPE) from error


def _command() -> None:
    if _helped():
        return
    if sys.argv[1:2] in (["store"], ["launch"], ["view"]):  # these start fast, because they need not import torch
        try:
            if sys.argv[1] == "store":
                from mgrpo_lightning.commands.store import main as tool

                tool(sys.argv[2:])
            elif sys.argv[1] == "view":
                from mgrpo_lightning.commands.view import main as tool

                tool(sys.argv[2:])
            else:
                # handles signals until launch installs its own handler
                with unwrapped(), heard(Stopping().hear, *ASKED):
                    from mgrpo_lightning.commands.launch import main as tool

                    tool(sys.argv[2:])
        except MgrpoError as error:
            print(f"mgrpo: error: {error}", file=sys.stderr)
            raise SystemExit(2) from error
        return
    stopping = Stopping()
    stopping.start()  # before the imports: they take seconds, and a signal may arrive meanwhile
    try:
        with unwrapped():
            _command_on_models()
    except SystemExit as ended:
        if stopping.asked and ended.code == STOPPED:
            stopping.leave(STOPPED)
        raise


def _helped() -> bool:
    """Print the help page that the command line asks for; return whether it asks for one."""
    try:
        text = asked_page(sys.argv[1:])
    except MgrpoError as error:
        print(f"mgrpo: error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    if text is not None:
        print(text)
    return text is not None


def _command_on_models() -> None:
    from mgrpo_lightning.commands.run_command import main as command  # imports torch, which takes seconds

    command()


def _nobody_reads() -> bool:
    """Whether the reader of standard output has exited, as ``head`` does after its last line."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))
