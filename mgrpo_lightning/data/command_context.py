"""CommandContext: what a command gives the data module: questions, replayed journal, task hash, shared settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgrpo_lightning.records.question import Question


@dataclass(frozen=True)
class CommandContext:
    """What a command knows and a team file does not say; a command makes it before the trainer runs."""

    questions: Sequence[Question] = ()
    """Questions from the command line, for ``mgrpo predict``."""
    replayed: Path | None = None
    """Folder of the journal whose groups replace playing, for ``mgrpo replay``; None: the groups are played."""
    settings: str | None = None
    """Hash of what ``mgrpo validate`` and ``mgrpo test`` play, part of the name of their resume log; None: no log."""
    shared: Mapping[str, Any] | None = None
    """Settings that the processes of all roles must have alike; None: not compared."""
