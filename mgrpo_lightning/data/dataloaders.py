"""Iterables for the trainer: training batches, and chunks of held-out questions; each is played when asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from mgrpo_lightning.agents.play import PlayResult
from mgrpo_lightning.modules.validation_config import HeldOutBatch, ValidationConfig
from mgrpo_lightning.persistence.resume_log import ResumeLog
from mgrpo_lightning.records.batch import TeamBatch
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.tasks.base import Task


@dataclass(frozen=True)
class TrainBatches:
    """Training batches. It has a length, because Lightning prefetches one batch of an unsized iterable.

    A prefetch would play step t + 1 with the adapters of step t (correctness.md 32).
    """

    batch: Callable[[int], TeamBatch]
    """Makes the batch of a step."""
    first: int
    """First step; steps before it are done already."""
    num_steps: int

    def __len__(self) -> int:
        return self.num_steps

    def __iter__(self) -> Iterator[TeamBatch]:
        for step in range(self.first, self.num_steps):
            yield self.batch(step)


@dataclass(frozen=True)
class HeldOutBatches:
    """Held-out questions of one rank, played in chunks."""

    play: Callable[[Sequence[Question], int, ResumeLog | None], PlayResult]
    """Plays a chunk; arguments: its questions, the index of the first, and the resume log."""
    open_log: Callable[[], AbstractContextManager[ResumeLog | None]]
    """Opens the resume log of these questions."""
    questions: Sequence[Question]
    part: range
    """Indices of the questions that this rank asks."""
    task: Task
    validation: ValidationConfig

    def __len__(self) -> int:
        # Ceiling division: the last chunk may be smaller.
        return -(-len(self.part) // self.validation.per_batch)

    def __iter__(self) -> Iterator[HeldOutBatch]:
        agreement = self.task.agreement
        if agreement is not None:
            agreement.take()  # drop the counts of training
        with self.open_log() as resume_log:
            started = time.monotonic() - (resume_log.seconds if resume_log else 0.0)
            for start in range(0, len(self.part), self.validation.per_batch):
                chunk = self.part[start : start + self.validation.per_batch]
                played = self.play(self.questions[chunk.start : chunk.stop], chunk.start, resume_log)
                yield HeldOutBatch(
                    played.groups,
                    self.task,
                    self.validation,
                    seconds=time.monotonic() - started,
                    agreement=() if agreement is None else tuple(agreement.counts),
                )


def part_of(count: int, rank: int, num_ranks: int) -> range:
    """Return a rank's contiguous share of the query indices; shares of two ranks differ by at most one query.

    Args:
        count: Total number of queries.
    """
    return range(count * rank // num_ranks, count * (rank + 1) // num_ranks)
