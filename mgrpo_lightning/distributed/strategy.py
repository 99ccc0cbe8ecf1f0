"""TeamStrategy: Lightning's DDP launch and process group, without a wrapper around the model; ``strategy: mgrpo``.

Launch and process group come from Lightning's DDP, but the model is never wrapped. DDP would reduce the parameters of
one adapter and miss the others. Instead each update sums the gradients of its own adapter (``distributed/ranks.py``).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from typing_extensions import override

NAME = "mgrpo"


PATIENCE = timedelta(days=1)
"""Timeout of collectives. It is long because a rank may wait for another role, which ``peers`` can allow without limit.
The launcher notices a dead rank sooner."""


class TeamStrategy(DDPStrategy):
    """Lightning's DDP without the model wrapper: ``trainer.strategy: mgrpo``, the default for several devices or nodes.

    Args:
        timeout: Timeout of collectives between ranks.
        **kwargs: Passed on to DDPStrategy.
    """

    def __init__(self, timeout: timedelta = PATIENCE, **kwargs: Any) -> None:
        super().__init__(timeout=timeout, **kwargs)

    @override
    def configure_ddp(self) -> None:
        """Leave the model unwrapped: base models are not submodules, and each role reduces its own adapter."""


StrategyRegistry.register(NAME, TeamStrategy, description="ranks of one team, without a wrapper around the model")
