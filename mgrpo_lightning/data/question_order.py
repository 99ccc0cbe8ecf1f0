"""QuestionOrder: the questions of each training step, reshuffled every epoch; a pure function of (seed, step)."""

from __future__ import annotations

import random
from collections.abc import Sequence

from mgrpo_lightning.policy.sampling.random import stream_of
from mgrpo_lightning.records.question import Question


class QuestionOrder:
    """The questions of each training step: each question once per epoch, reshuffled for every epoch.

    Because the stream is a pure function of the step, a resumed run continues exactly: no question is skipped or asked
    twice after a crash.

    Args:
        questions: The training questions, in a fixed order.
        per_step: Queries per training step.
    """

    def __init__(self, questions: Sequence[Question], *, per_step: int, seed: int) -> None:
        assert questions
        assert per_step > 0
        self._questions = questions
        self._per_step = per_step
        self._seed = seed
        self._epoch = -1
        self._order: list[int] = []

    def __getitem__(self, step: int) -> list[Question]:
        """The questions of one step, ``per_step`` of them."""
        first = step * self._per_step
        return [self._at(position) for position in range(first, first + self._per_step)]

    def _at(self, position: int) -> Question:
        epoch, index = divmod(position, len(self._questions))
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = list(range(len(self._questions)))
            # The epoch's seed depends on the run seed and the epoch only, never on how many steps this process has run.
            random.Random(stream_of(self._seed, "questions", epoch)).shuffle(self._order)
        return self._questions[self._order[index]]
