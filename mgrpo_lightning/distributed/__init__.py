"""Start and synchronise the processes of a team; importing this package registers the strategies by name."""

from mgrpo_lightning.distributed.strategy import TeamStrategy

__all__ = ["TeamStrategy"]
