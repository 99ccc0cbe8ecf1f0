"""Export the page and its data as a folder that opens without a server; refuse encrypted benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources.abc import Traversable
from pathlib import Path

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.persistence.atomic import atomic_folder
from mgrpo_lightning.viewer.site import Site, static

MARK = Path("data", "index.js")
HEAD = 'mgrpo.receive("index",'
"""First characters of the file ``MARK`` in every exported folder; they identify our own exports."""


def export(
    site: Site, folder: Path, done: Callable[[int], None] = lambda count: None, *, encrypted: bool = False
) -> Path:
    """Write the folder atomically; replace an earlier export, but never another folder.

    Args:
        site: Content of the page.
        folder: Folder to write or replace.
        done: Called after each group with the number of groups written so far.
        encrypted: Whether to export questions of encrypted benchmarks too, as plain text.

    Returns:
        Path of the page to open.

    Raises:
        ConfigurationError: The folder exists and is not an export, or a question is encrypted and not allowed.
        MgrpoError: The folder cannot be written.
    """
    if folder.exists() and not _is_ours(folder):
        raise ConfigurationError(
            f"{folder} exists and is not a page of mgrpo view.", hint="give a new or an empty folder."
        )
    with atomic_folder(folder) as temporary:
        _copy(static(), temporary)
        data = temporary / "data"
        data.mkdir()
        for count, (run, slug, query) in enumerate(site.places(), start=1):
            if not encrypted and site.is_encrypted(run, slug, query):
                raise ConfigurationError(
                    f"{slug} asks questions of an encrypted benchmark, whose text must not be published.",
                    hint="view the run without --out, or give --encrypted and do not publish the folder.",
                )
            path = data / str(run) / slug / f"{query}.js"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(site.group(run, slug, query) or "", encoding="ascii")
            done(count)
        (data / "index.js").write_text(site.index(), encoding="ascii")  # last: it lists the damaged files found above
    return folder / "index.html"


def _is_ours(folder: Path) -> bool:
    """Whether a folder may be replaced: it is empty, or it is our export without any other files in it."""
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    ours = {MARK.parts[0], *(entry.name for entry in static().iterdir())}
    try:
        with open(folder / MARK, encoding="utf-8") as file:
            return names <= ours and file.read(len(HEAD)) == HEAD
    except (OSError, UnicodeDecodeError):
        return not names


def _copy(source: Traversable, target: Path) -> None:
    for entry in source.iterdir():
        if entry.is_dir():
            (target / entry.name).mkdir()
            _copy(entry, target / entry.name)
        else:
            (target / entry.name).write_bytes(entry.read_bytes())
