"""Source: a run's journal, ratio, TensorBoard and config files for the viewer, also from folders of single roles."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mgrpo_lightning.algorithm.config import COMPONENTS
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.records.journal import PREFIXES
from mgrpo_lightning.records.ratios import FOLDER as RATIOS
from mgrpo_lightning.roles.team_file import flat
from mgrpo_lightning.store.layout import FOLDER as STORE

_FILE = re.compile(rf"({'|'.join(PREFIXES.values())})-(\d{{6}})(?:-\d{{6}})?\.parquet")
JOURNAL = "journal"
FIT = "fit"
"""Command of files in the journal folder itself; ``mgrpo validate`` and ``mgrpo test`` write into subfolders."""


class Play(NamedTuple):
    """The rollouts of one training step or of one validation."""

    stage: str
    """``step`` or ``validation``."""
    command: str
    """``fit``, ``validate`` or ``test``."""
    step: int

    @property
    def slug(self) -> str:
        """Name in URLs and file names: ``step-000012``, ``validate-validation-000012``."""
        head = "" if self.command == FIT else f"{self.command}-"
        return f"{head}{self.stage}-{self.step:06d}"


@dataclass(frozen=True)
class Source:
    """A run's folder, and the files in it that the viewer reads."""

    folder: Path

    @classmethod
    def found(cls, folder: Path) -> list[Source]:
        """Return the run in a folder, or all runs in a folder of runs.

        Args:
            folder: Folder of a run (with a journal, or with a store and roles' folders), or parent folder of runs.

        Raises:
            ConfigurationError: There is no journal.
        """
        found = [source for path in (folder, *sorted(folder.glob("*/"))) if (source := cls(path))._folders]
        if not found:
            raise ConfigurationError(
                f"{folder} has no journal, and no folder in it has one.",
                hint="give the folder of a run that has played a step: runs/NAME.",
            )
        # If the folder itself is a run, its subfolders are that run's roles, not other runs.
        return found[:1] if found[0].folder == folder else found

    @property
    def name(self) -> str:
        """Name of the run: the name of its folder."""
        return self.folder.resolve().name

    @property
    def _folders(self) -> list[Path]:
        """Folders that have a journal: the run's own and, if the run has a store, those of its roles."""
        roles = sorted(self.folder.glob("*/")) if (self.folder / STORE).is_dir() else []
        return [path for path in (self.folder, *roles) if (path / JOURNAL).is_dir()]

    def files(self) -> dict[Play, list[Path]]:
        """List the files of every play, from all ranks and roles; the folders are listed again at every call."""
        found: dict[Play, list[Path]] = {}
        for folder in self._folders:
            for path in sorted((folder / JOURNAL).rglob("*.parquet")):
                match = _FILE.fullmatch(path.name)
                command = FIT if path.parent.name == JOURNAL else path.parent.name
                if match and match[1] != PREFIXES["predict"]:
                    found.setdefault(Play(match[1], command, int(match[2])), []).append(path)
        return dict(sorted(found.items(), key=lambda item: (item[0].command, item[0].step, item[0].stage)))

    def ratios(self) -> list[Path]:
        """List the files with log ratios of trained tokens, of all roles and ranks."""
        return [path for folder in self._folders for path in sorted((folder / JOURNAL / RATIOS).glob("*.parquet"))]

    def tensorboards(self) -> list[Path]:
        """List the folders of TensorBoard's files."""
        return [path for folder in self._folders if (path := folder / "tensorboard").is_dir()]

    def scalars(self) -> list[Path]:
        """List TensorBoard's files."""
        return [path for folder in self.tensorboards() for path in sorted(folder.iterdir())]

    @property
    def roles(self) -> Mapping[str, Mapping[str, Any]]:
        """Role blocks of the run's config; empty if no config exists yet or none can be read."""
        return self._read[0]

    @property
    def problems(self) -> Sequence[str]:
        """One sentence for each config of the run that cannot be read."""
        return self._read[1]

    @cached_property
    def _read(self) -> tuple[Mapping[str, Mapping[str, Any]], list[str]]:
        problems = list[str]()
        # All roles of a run share one team file, so the first config that can be read is enough.
        for path in (folder / "config.yaml" for folder in self._folders):
            try:
                return _roles(path), problems
            except FileNotFoundError:
                continue
            except (OSError, UnicodeDecodeError) as error:
                problems.append(f"{path} cannot be read: {error}.")
            except (yaml.YAMLError, ValueError, RecursionError) as error:
                problems.append(f"{path} is not a config of a run: {' '.join(str(error).split()).rstrip('.')}.")
        return {}, problems

    @property
    def weighed(self) -> Mapping[str, Sequence[str]]:
        """Reward components and functions with a non-zero weight, by role; empty if there is no config yet."""
        rewards = {role: block.get("reward") or {} for role, block in self.roles.items()}
        return {
            role: [name for name in COMPONENTS if weights.get(name)] + sorted(weights.get("functions") or {})
            for role, weights in rewards.items()
        }


def _roles(path: Path) -> Mapping[str, Mapping[str, Any]]:
    """Read the role blocks of a config file; raise ``ValueError`` if it is not a config of a run."""
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    model = _mapping(flat(_mapping(config, "it")).get("model"), "model")
    roles = _mapping(model.get("roles"), "model.roles")
    for role, block in roles.items():
        of_role = _mapping(block, f"role {role}")
        reward = _mapping(of_role.get("reward"), f"the reward of role {role}")
        _mapping(reward.get("functions"), f"the reward functions of role {role}")
        if not isinstance(base := of_role.get("base_model"), str | None):
            raise ValueError(f"base_model of role {role} is {base!r}")
    return {str(role): block or {} for role, block in roles.items()}


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    """Return a block of a config as a mapping; an empty block (None) is an empty mapping."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{name} is a {type(value).__name__}, not a mapping")
    return value
