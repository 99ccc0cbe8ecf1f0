"""Engine and Link, the interfaces for the scheduler: compute turns; exchange calls with agents of other processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mgrpo_lightning.policy.sampling.base import SampledTurn
from mgrpo_lightning.policy.sampling.conversation import Request

SLICE = 8
"""Decoding steps of one ``Engine.advance``. Under ``eager``, new turns may join the batch after each slice."""

Finished = list[tuple[Request, SampledTurn]]
"""Turns that ended, each with its request."""


class Engine(Protocol):
    """What the scheduler needs of a sampler. Its methods are called only while no engine computes."""

    name: str
    """Sort key: engines compute in the order of their names."""

    @property
    def busy(self) -> bool:
        """Whether any admitted turn is not finished."""
        ...

    def admit(self, requests: Sequence[Request]) -> None:
        """Queue requests for the next ``advance``."""
        ...

    def advance(self, steps: int) -> Finished:
        """Compute up to ``steps`` decoding steps; return the turns that ended."""
        ...

    def abort(self) -> None:
        """Drop all queued and unfinished turns."""
        ...


class Link(Protocol):
    """Exchange of calls and answers with agents of other processes."""

    async def meet(self) -> None:
        """Under ``rounds``: once a round, send this process's messages of the round and receive those of the others."""
        ...

    async def run(self) -> None:
        """Under ``eager``: exchange messages all the time, until this task is cancelled."""
        ...
