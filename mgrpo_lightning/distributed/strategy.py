"""TeamStrategy: several ranks that play and train the same roles, each some of a step's queries.

Launch and process group are those of Lightning's DDP; the model is never wrapped. DDP would reduce the parameters of
one adapter and miss the others; here an update adds up the gradients of its own (``distributed/ranks.py``).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from typing_extensions import override

NAME = "mgrpo"


PATIENCE = timedelta(days=1)
"""How long ranks wait for each other: one may have to wait for another role, which ``peers`` may allow without end. A
rank that is gone is noticed by whoever started it."""


class TeamStrategy(DDPStrategy):
    """Lightning's DDP without the wrapper; ``trainer.strategy: mgrpo``, which several devices or nodes choose.

    Args:
        timeout: How long a rank waits for the others.
        **kwargs: What DDP takes.
    """

    def __init__(self, timeout: timedelta = PATIENCE, **kwargs: Any) -> None:
        super().__init__(timeout=timeout, **kwargs)

    @override
    def configure_ddp(self) -> None:
        """Leave the model as it is: its bases are no submodules, and adapters are reduced by the role that has them."""


StrategyRegistry.register(NAME, TeamStrategy, description="ranks of one team, without a wrapper around the model")
