"""The help of ``mgrpo``: one screen, and a page for each command, as text files in ``pages/``.

The pages are static, because the parser of ``mgrpo fit`` needs torch and lightning, whose imports take seconds. A
command is known if it has a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mgrpo_lightning.errors import ConfigurationError

PAGES = Path(__file__).parent / "pages"
OVERVIEW = "mgrpo"
"""Name of the page that lists all commands."""
HELP = ("--help", "-h")
FULL = "--help_all"
"""Option that shows LightningCLI's list of every option."""


def page(name: str) -> str:
    """Return the text of a page, without the last line break.

    Args:
        name: Name of a command, or ``OVERVIEW``.
    """
    return (PAGES / f"{name}.txt").read_text(encoding="utf-8").rstrip("\n")


def commands() -> list[str]:
    """Return the names of all commands, sorted."""
    return sorted(path.stem for path in PAGES.glob("*.txt") if path.stem != OVERVIEW)


def asked_page(words: Sequence[str]) -> str | None:
    """Return the page that a command line asks for; None if it asks for something else.

    Args:
        words: Command line without the program's name.

    Raises:
        ConfigurationError: The command line names no command, or one that does not exist.
    """
    known = commands()
    wants_help = any(word in HELP for word in words)
    if not words or words[0] in HELP:
        return page(OVERVIEW)
    if words[0] in known:
        return page(words[0]) if wants_help else None
    if words[0].startswith("-"):  # options may stand before the command
        if any(word in known for word in words):
            return None
        raise ConfigurationError("no command is given.", hint=f"give one of {', '.join(known)}; see `mgrpo --help`.")
    raise _unknown(words[0], known)


def _unknown(name: str, known: Sequence[str]) -> ConfigurationError:
    import difflib  # here: only a mistake needs it

    near = difflib.get_close_matches(name.lower(), known, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    return ConfigurationError(f"{name!r} is not a command.", hint=f"{meant}`mgrpo --help` lists all commands.")
