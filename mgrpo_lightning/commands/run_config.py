"""RunConfig, the ``run`` block of a team file: name, root folder, seed, role of this process, accepted model changes.

This module must not import torch, because ``mgrpo launch`` imports it and should start fast. ``commands/run_links.py``
derives other settings from these.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mgrpo_lightning.ranges import Seed, ranged


@ranged("run")
@dataclass(frozen=True)
class RunConfig:
    """Name, folder, seed and role of a run."""

    name: str = "run"
    """Name of the run's folder under ``root``."""
    root: str = "runs"
    """Folder that holds all runs."""
    seed: Seed = 0
    """Seed of the questions, the initial adapter values, sampling and alignment; copied to model and data."""
    role: str | None = None
    """The one role that this process plays and trains, in its own folder inside the run folder. Other processes play
    the other roles, and all share the run's ``store``. None: this process plays all roles."""
    accept_changes: list[str] = field(default_factory=list)
    """Differences to accept when the run starts from a checkpoint or an adapter of another model, such as
    ``[adapter.alpha, system_prompt]``. The error message names them. Not saved in the run's config.yaml."""
