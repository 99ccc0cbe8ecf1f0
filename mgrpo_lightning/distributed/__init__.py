"""How a team's processes are started and held together; importing this registers the strategies by name."""

from mgrpo_lightning.distributed.strategy import TeamStrategy

__all__ = ["TeamStrategy"]
