"""Where the journal of a run is: its own folder, and those of roles in processes of their own, joined by key."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.records.journal import PREFIXES
from mgrpo_lightning.records.ratios import FOLDER as RATIOS
from mgrpo_lightning.store.layout import FOLDER as STORE

_FILE = re.compile(rf"({'|'.join(PREFIXES.values())})-(\d{{6}})(?:-\d{{6}})?\.parquet")
JOURNAL = "journal"
COMPONENTS = ("format", "correct", "correct_main", "expert")
"""Of a reward."""
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

    @classmethod
    def found(cls, folder: Path) -> list[Source]:
        """The run in a folder, or all runs in a folder of runs.

        Args:
            folder: Of the run; it has a journal, or a store and folders of roles that have.

        Raises:
            ConfigurationError: There is no journal.
        """
        found = [source for path in (folder, *sorted(folder.glob("*/"))) if (source := cls(path))._folders]
        if not found:
            raise ConfigurationError(
                f"{folder} has no journal, and neither has a folder in it.",
                hint="give the folder of a run that has begun to play: runs/NAME.",
            )
        return found[:1] if found[0].folder == folder else found

    @property
    def name(self) -> str:
        """Of the run."""
        return self.folder.resolve().name

    @property
    def _folders(self) -> list[Path]:
        """Those with a journal: the run's own, or of roles in processes of their own, which meet in its store."""
        roles = sorted(self.folder.glob("*/")) if (self.folder / STORE).is_dir() else []
        return [path for path in (self.folder, *roles) if (path / JOURNAL).is_dir()]

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

    def scalars(self) -> list[Path]:
        """TensorBoard's files."""
        return [path for folder in self.tensorboards() for path in sorted(folder.iterdir())]

    @property
    def roles(self) -> Mapping[str, Mapping[str, Any]]:
        """The roles' blocks of the run's config, empty where there is none yet, or none that can be read."""
        return self._read[0]

    @property
    def problems(self) -> Sequence[str]:
        """One sentence for each config of the run that cannot be read."""
        return self._read[1]

    @cached_property
    def _read(self) -> tuple[Mapping[str, Mapping[str, Any]], list[str]]:
        problems = list[str]()
        for path in (folder / "config.yaml" for folder in self._folders):
            try:
                return _roles(path), problems
            except FileNotFoundError:
                continue
            except (OSError, UnicodeDecodeError) as error:
                problems.append(f"{path} cannot be read: {error}.")
            except (yaml.YAMLError, ValueError, RecursionError) as error:
                problems.append(f"{path} is no config of a run: {' '.join(str(error).split()).rstrip('.')}.")
        return {}, problems

    @property
    def weighed(self) -> Mapping[str, Sequence[str]]:
        """The components that each role's reward is made of, empty where no config is there yet."""
        rewards = {role: block.get("reward") or {} for role, block in self.roles.items()}
        return {role: [name for name in COMPONENTS if weights.get(name)] for role, weights in rewards.items()}


def _roles(path: Path) -> Mapping[str, Mapping[str, Any]]:
    """The roles' blocks of a config; ``ValueError`` where it is none."""
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    model = _mapping(_mapping(config, "it").get("model"), "model")
    roles = _mapping(_mapping(model.get("init_args"), "model.init_args").get("roles"), "model.init_args.roles")
    for role, block in roles.items():
        of_role = _mapping(block, f"role {role}")
        _mapping(of_role.get("reward"), f"the reward of role {role}")
        if not isinstance(base := of_role.get("base_model"), str | None):
            raise ValueError(f"base_model of role {role} is {base!r}")
    return {str(role): block or {} for role, block in roles.items()}


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    """A block that may be empty."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{name} is no mapping but a {type(value).__name__}")
    return value
