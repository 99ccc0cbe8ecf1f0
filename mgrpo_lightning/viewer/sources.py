"""Where the journal of a run is: its own folder, and those of roles in processes of their own, joined by key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.journal import PREFIXES
from mgrpo_lightning.ratios import FOLDER as RATIOS

_FILE = re.compile(rf"({'|'.join(PREFIXES.values())})-(\d{{6}})(?:-\d{{6}})?\.parquet")
JOURNAL = "journal"
FIT = "fit"
"""Name of a fit's own validations among the folders of a journal; a later ``mgrpo validate`` has one of its name."""


class Play(NamedTuple):
    """One step's training, or one validation."""

    stage: str
    """``step`` or ``validation``."""
    command: str
    """``fit``, ``validate`` or ``test``."""
    step: int

    @property
    def slug(self) -> str:
        """As it stands in addresses and file names: ``step-000012``, ``validate-validation-000012``."""
        head = "" if self.command == FIT else f"{self.command}-"
        return f"{head}{self.stage}-{self.step:06d}"


@dataclass(frozen=True)
class Source:
    """One run."""

    folder: Path
    name: str
    _folders: list[Path] = field(default_factory=list)

    @classmethod
    def of(cls, folder: Path) -> Source:
        """The run in a folder.

        Args:
            folder: Of the run; it has a journal, or folders of roles that have.

        Raises:
            ConfigurationError: There is no journal.
        """
        found = [path for path in (folder, *sorted(folder.glob("*/"))) if (path / JOURNAL).is_dir()]
        if not found:
            raise ConfigurationError(
                f"{folder} has no journal, and neither has a folder of a role in it.",
                hint="give the folder of a run that has begun to play: runs/NAME.",
            )
        return cls(folder, folder.resolve().name, found)

    def files(self) -> dict[Play, list[Path]]:
        """The files of every play, those of several ranks and roles together; read anew at every call."""
        found: dict[Play, list[Path]] = {}
        for folder in self._folders:
            for path in sorted((folder / JOURNAL).rglob("*.parquet")):
                match = _FILE.fullmatch(path.name)
                command = FIT if path.parent.name == JOURNAL else path.parent.name
                if match and match[1] != PREFIXES["predict"]:
                    found.setdefault(Play(match[1], command, int(match[2])), []).append(path)
        return dict(sorted(found.items(), key=lambda item: (item[0].command, item[0].step, item[0].stage)))

    def ratios(self) -> list[Path]:
        """The files of what updates made of tokens, of all roles and ranks."""
        return [path for folder in self._folders for path in sorted((folder / JOURNAL / RATIOS).glob("*.parquet"))]

    def tensorboards(self) -> list[Path]:
        """Folders with TensorBoard's files."""
        return [path for folder in self._folders if (path := folder / "tensorboard").is_dir()]

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The resolved config of the run, empty where there is none yet."""
        for folder in self._folders:
            try:
                found = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
            except (OSError, yaml.YAMLError):
                continue
            if isinstance(found, dict):
                return found
        return {}

    @property
    def roles(self) -> Mapping[str, Mapping[str, Any]]:
        """The roles' blocks of the team file, empty where there is none yet."""
        model = self.config.get("model") or {}
        found = (model.get("init_args") or {}).get("roles") or {}
        return found if isinstance(found, dict) else {}
