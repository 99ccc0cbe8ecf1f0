"""Several ranks that play the same roles: strategy ``mgrpo`` (registered on import), sums over ranks, SLURM step."""

from mgrpo_lightning.distributed.strategy import TeamStrategy

__all__ = ["TeamStrategy"]
