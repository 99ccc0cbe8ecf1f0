"""What a stream puts into its batches besides the groups: the time and the verdicts of its own questions."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

from typing_extensions import override

from mgrpo_lightning.agents.play import PlayResult
from mgrpo_lightning.data.dataloaders import HeldOutBatches, TrainBatches
from mgrpo_lightning.modules.validation_config import ValidationConfig
from mgrpo_lightning.persistence.resume_log import ResumeLog
from mgrpo_lightning.records.batch import TeamBatch
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Group
from mgrpo_lightning.tasks.judge_agreement import Agreement
from tests.support.toy import ToyTask

QUESTIONS = ToyTask().questions("validation")


class Judged(ToyTask):
    """Judge and rule agree on every answer, and one answer of training was counted before."""

    def __init__(self) -> None:
        self._agreement = Agreement(audit=0.1)
        self._agreement.add(True, True)

    @property
    @override
    def agreement(self) -> Agreement:
        return self._agreement


def stream(task: ToyTask, log: Any = None) -> HeldOutBatches:
    """The rank's part 3 to 7 of the questions, two at a time."""

    def play(questions: Sequence[Question], first: int, resume_log: ResumeLog | None) -> PlayResult:
        assert resume_log is log
        assert [*questions] == [*QUESTIONS[first : first + len(questions)]]
        for _ in questions:
            if task.agreement is not None:
                task.agreement.add(True, True)
        return PlayResult([Group(question, []) for question in questions])

    validation = ValidationConfig(per_batch=2)
    return HeldOutBatches(play, lambda: nullcontext(log), QUESTIONS, range(3, 8), task, validation)


def test_a_rank_plays_its_part_in_chunks_and_its_log_gives_the_seconds_of_killed_runs() -> None:
    played = stream(ToyTask(), SimpleNamespace(seconds=1000.0))
    batches = [*played]
    assert len(played) == len(batches) == 3
    assert [group.question for batch in batches for group in batch.groups] == [*QUESTIONS[3:8]]
    seconds = [batch.seconds for batch in batches]
    assert 1000 <= seconds[0] <= seconds[1] <= seconds[2]
    assert batches[0].agreement == ()


def test_verdicts_are_counted_from_the_start_of_the_validation() -> None:
    played = stream(Judged())
    for _ in range(2):
        assert [batch.agreement[0] for batch in played] == [2, 4, 5]
    assert [[*batch.agreement] for batch in played][-1] == [5, 5 / 0.1, 0, 0, 0]


def test_training_goes_on_with_its_first_step_that_is_not_done() -> None:
    made: list[int] = []

    def batch(step: int) -> TeamBatch:
        made.append(step)
        return TeamBatch(step, [], {}, {})

    steps = TrainBatches(batch, 2, 5)
    assert len(steps) == 5, "of the whole run, as Lightning counts"
    assert next(iter(steps)).step == 2
    assert made == [2], "nothing is played ahead"
