"""What the trainer iterates over: each batch is played when it is asked for, by the policies as they are then."""

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
    """Sized, so that Lightning does not prefetch step t + 1 with the adapters of step t (correctness.md 32)."""

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
    """Held-out questions, or a rank's part of them, played in chunks."""

    data: AlignedTrajectoryDataModule
    questions: Sequence[Question]
    per_batch: int
    part: range
    """Indices of the questions that are asked here."""

    def __len__(self) -> int:
        return -(-len(self.part) // self.per_batch)

    def __iter__(self) -> Iterator[list[Group]]:
        with open_held_out(self.data) as memory:
            self.data.earlier_seconds = memory.seconds if memory else 0.0
            for start in range(0, len(self.part), self.per_batch):
                chunk = self.part[start : start + self.per_batch]
                questions = self.questions[chunk.start : chunk.stop]
                yield self.data.played_batch(questions, first=chunk.start, memory=memory)


def part_of(count: int, rank: int, num_ranks: int) -> range:
    """A rank's share of a number of queries: neighbours, and as many as others have, give or take one.

    Args:
        count: Queries.
        rank: Whose share.
        num_ranks: Ranks.
    """
    return range(count * rank // num_ranks, count * (rank + 1) // num_ranks)
