"""The question stream is a pure function of (seed, step) and asks every question once an epoch."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgrpo_lightning.data.question_order import QuestionOrder
from mgrpo_lightning.records.question import Question


def questions(count: int) -> list[Question]:
    return [Question(id=str(i), text=f"question {i}", answers=("x",)) for i in range(count)]


@given(count=st.integers(1, 20), per_step=st.integers(1, 7), seed=st.integers(0, 5))
def test_every_question_comes_once_an_epoch(count: int, per_step: int, seed: int) -> None:
    stream = QuestionOrder(questions(count), per_step=per_step, seed=seed)
    asked = [question.id for step in range(count) for question in stream[step]]
    assert Counter(asked) == Counter({str(i): per_step for i in range(count)})


@pytest.mark.parametrize("start", [0, 3, 17])
def test_a_stream_entered_anywhere_is_the_same(start: int) -> None:
    straight = QuestionOrder(questions(10), per_step=3, seed=1)
    steps = [[q.id for q in straight[step]] for step in range(20)]
    resumed = QuestionOrder(questions(10), per_step=3, seed=1)
    assert [[q.id for q in resumed[step]] for step in range(start, 20)] == steps[start:]


def test_epochs_and_seeds_are_shuffled_differently() -> None:
    first, second = (QuestionOrder(questions(50), per_step=50, seed=seed) for seed in (0, 1))
    orders = {tuple(q.id for q in stream[step]) for stream in (first, second) for step in (0, 1)}
    assert len(orders) == 4
