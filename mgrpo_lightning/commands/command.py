"""Run one command line in this process: a user's mistake is one line and a status, and so is being stopped."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.exceptions import SIGTERMException

from mgrpo_lightning.commands.doctor import main as doctor
from mgrpo_lightning.commands.fit import make_cli
from mgrpo_lightning.commands.replay import main as replay
from mgrpo_lightning.errors import STOPPED, Interrupted, MgrpoError, RunStopped


def main(args: Sequence[str] | None = None) -> None:
    """Run one command line in this process.

    Args:
        args: Command line without the program's name; None takes it from the process.
    """
    words = sys.argv[1:] if args is None else list(args)
    try:
        if words[:1] == ["replay"]:
            replay(words[1:])
        elif words[:1] == ["doctor"]:
            doctor(words[1:])
        else:
            make_cli(words)
    except (Interrupted, SIGTERMException) as error:  # the second is Lightning's, whose status is that of success
        name = str(error) if isinstance(error, Interrupted) else "SIGTERM"
        hint = "go on with --ckpt_path=last" if words[:1] == ["fit"] else "give the command again"
        print(f"mgrpo: stopped by {name}. HINT: {hint}.", file=sys.stderr)
        raise SystemExit(STOPPED) from error
    except Exception as error:
        if (mistake := _mistake(error)) is None:
            raise
        if isinstance(mistake, RunStopped):
            print(f"mgrpo: {mistake}", file=sys.stderr)
            raise SystemExit(STOPPED) from error
        print(f"mgrpo: error: {mistake}", file=sys.stderr)
        raise SystemExit(2) from error


def _mistake(error: BaseException | None) -> MgrpoError | None:
    """The user's error behind an exception: jsonargparse wraps those raised while it makes the classes."""
    while error is not None and not isinstance(error, MgrpoError):
        if isinstance(error, MisconfigurationException):  # Lightning's, such as for a GPU that is not there
            return MgrpoError(str(error), hint="check the trainer's settings; see `mgrpo fit --trainer.help`")
        error = error.__cause__
    return error
