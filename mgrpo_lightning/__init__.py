"""Train a team of LLM agents with M-GRPO (arXiv 2511.13288) in PyTorch Lightning.

The public classes of a team file can be named from here, which keeps its ``class_path``s short. They are imported on
first use, so ``import mgrpo_lightning`` does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mgrpo_lightning.data.datamodule import AlignedTrajectoryDataModule
    from mgrpo_lightning.modules.team import TeamModule

__all__ = ["AlignedTrajectoryDataModule", "TeamModule"]

_HOMES = {
    "AlignedTrajectoryDataModule": "mgrpo_lightning.data.datamodule",
    "TeamModule": "mgrpo_lightning.modules.team",
}


def __getattr__(name: str) -> object:
    # A module's __getattr__ (PEP 562) runs only for names that the module does not define.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
