"""The run: its name, folder, seed and role on the command line.

It imports no torch: ``mgrpo launch`` reads it before it answers. What follows from it is in ``commands/run_links.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mgrpo_lightning.ranges import Seed, ranged


@ranged("run")
@dataclass(frozen=True)
class RunConfig:
    """Where a run writes, and its seed."""

    name: str = "run"
    """Folder of the run under the root."""
    root: str = "runs"
    """Folder of all runs."""
    seed: Seed = 0
    """Fixes questions, adapters' initial values, sampling and alignment; linked to model and data."""
    role: str | None = None
    """The role that this process plays and trains, in a folder of its own inside the run's, while others play theirs.
    They share the run's ``store``. None: all roles are played here."""
    accept_changes: list[str] = field(default_factory=list)
    """Of a checkpoint or an adapter to start from that belongs to another model: the parts that may differ here, such
    as ``[adapter.alpha, system_prompt]``; the error names them. Not kept in the run's config.yaml."""
