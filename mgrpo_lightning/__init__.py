"""Train a team of LLM agents with M-GRPO (arXiv 2511.13288) in PyTorch Lightning.

``Team`` loads, asks and trains a team from Python. The public classes of a team file can be named from here too, which
keeps its ``class_path``s short. All are imported on first use, so ``import mgrpo_lightning`` does not load torch.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mgrpo_lightning.data.datamodule import AlignedTrajectoryDataModule
    from mgrpo_lightning.modules.team import TeamModule
    from mgrpo_lightning.records.question import Question
    from mgrpo_lightning.team import Team

    __version__: str

__all__ = ["AlignedTrajectoryDataModule", "Question", "Team", "TeamModule", "__version__"]

_HOMES = {
    "AlignedTrajectoryDataModule": "mgrpo_lightning.data.datamodule",
    "Question": "mgrpo_lightning.records.question",
    "Team": "mgrpo_lightning.team",
    "TeamModule": "mgrpo_lightning.modules.team",
}


def __getattr__(name: str) -> object:
    # A module's __getattr__ (PEP 562) runs only for names that the module does not define.
    if name == "__version__":
        return importlib.metadata.version("mgrpo-lightning")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
