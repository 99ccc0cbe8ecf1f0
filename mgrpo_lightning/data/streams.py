"""The iterables behind the dataloaders: each batch is played on demand, by the current policies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mgrpo_lightning.data.questions import QuestionStream
from mgrpo_lightning.data.resuming import open_held_out
from mgrpo_lightning.records.batch import TeamBatch
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Group

if TYPE_CHECKING:
    from mgrpo_lightning.data.datamodule import AlignedTrajectoryDataModule


@dataclass
class TrainStream:
    """Training batches. It has a length, because Lightning prefetches one batch of an unsized iterable.

    A prefetch would play step t + 1 with the adapters of step t (correctness.md 32).
    """

    data: AlignedTrajectoryDataModule
    questions: QuestionStream
    num_steps: int

    def __len__(self) -> int:
        return self.num_steps

    def __iter__(self) -> Iterator[TeamBatch]:
        for step in range(self.data.first_step, self.num_steps):
            yield self.data.train_batch(step, self.questions[step])


@dataclass
class PlayedStream:
    """Held-out questions of one rank, played in chunks."""

    data: AlignedTrajectoryDataModule
    questions: Sequence[Question]
    per_batch: int
    part: range
    """Indices of the questions that this rank asks."""

    def __len__(self) -> int:
        # Ceiling division: the last chunk may be smaller.
        return -(-len(self.part) // self.per_batch)

    def __iter__(self) -> Iterator[list[Group]]:
        with open_held_out(self.data) as memory:
            self.data.earlier_seconds = memory.seconds if memory else 0.0
            for start in range(0, len(self.part), self.per_batch):
                chunk = self.part[start : start + self.per_batch]
                questions = self.questions[chunk.start : chunk.stop]
                yield self.data.played_batch(questions, first=chunk.start, memory=memory)


def part_of(count: int, rank: int, num_ranks: int) -> range:
    """Return a rank's contiguous share of the query indices; shares of two ranks differ by at most one query.

    Args:
        count: Total number of queries.
        rank: The rank.
        num_ranks: Number of ranks.
    """
    return range(count * rank // num_ranks, count * (rank + 1) // num_ranks)
