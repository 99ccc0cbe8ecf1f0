"""Run ``fit``, ``replay``, ``doctor`` and the like in this process; map errors and signals to a line and exit status.

A user's mistake exits with 2. A run that was stopped and can be resumed exits with ``STOPPED`` (75).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.exceptions import SIGTERMException

from mgrpo_lightning.commands.ask import main as ask
from mgrpo_lightning.commands.doctor import main as doctor
from mgrpo_lightning.commands.export import main as export
from mgrpo_lightning.commands.export_base import main as export_base
from mgrpo_lightning.commands.fit import make_cli
from mgrpo_lightning.commands.help_pages import FULL
from mgrpo_lightning.commands.replay import main as replay
from mgrpo_lightning.errors import STOPPED, ConfigurationError, Interrupted, MgrpoError, RunStopped


def main(args: Sequence[str] | None = None) -> None:
    """Run one command line in this process.

    Args:
        args: Command line without the program's name; None reads ``sys.argv``.

    Raises:
        SystemExit: The user made a mistake, or the run was stopped.
    """
    words = sys.argv[1:] if args is None else list(args)
    words = ["--help" if word == FULL else word for word in words]  # `main.py` has answered --help with a page
    try:
        command = COMMANDS.get(words[0]) if words else None
        if command is None:
            make_cli(words)
        else:
            command(words[1:])
    # SIGTERMException is Lightning's. Left alone, it ends the process with status 0, as if the run had succeeded.
    except (Interrupted, SIGTERMException) as error:
        name = str(error) if isinstance(error, Interrupted) else "SIGTERM"
        hint = "resume with --ckpt_path=last" if words[:1] == ["fit"] else "run the command again"
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


def _serve(words: Sequence[str]) -> None:
    try:
        from mgrpo_lightning.commands.serve import main as serve  # needs an extra
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise ConfigurationError(
            f"`mgrpo serve` needs {error.name}, which is not installed.",
            hint="run: pip install 'mgrpo-lightning[serve]'",
        ) from error
    serve(words)


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "ask": ask,
    "doctor": doctor,
    "export": export,
    "export-base": export_base,
    "replay": replay,
    "serve": _serve,
}
"""Commands that do not go through LightningCLI, by name."""


def _mistake(error: BaseException | None) -> MgrpoError | None:
    """Find the user's error in a chain of causes; None if the exception is a bug.

    jsonargparse wraps the errors that our classes raise while it instantiates them.
    """
    while error is not None and not isinstance(error, MgrpoError):
        if isinstance(error, MisconfigurationException):  # Lightning's own, for example when there is no GPU
            return MgrpoError(str(error), hint="check the trainer's settings; `mgrpo fit --help_all` lists them")
        error = error.__cause__
    return error
