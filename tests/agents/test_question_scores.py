"""avg@k, pass@k and majority@k: of every way in which k rollouts can answer, and through a whole evaluation."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from mgrpo_lightning.agents.scoring import question_scores
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.modules.evaluation import Evaluation
from mgrpo_lightning.modules.validation_config import ValidationConfig
from mgrpo_lightning.records.question import UNKNOWN, Question
from mgrpo_lightning.records.trajectory import Call, Group, Key, Rollout, Score, Segment, Span, Trajectory
from tests.callbacks.fakes import ROLES
from tests.support.toy import held_out

QUESTION = Question("q", "Which?", ("right",), level="easy")


def group(*answers: str | None, question: Question = QUESTION) -> Group:
    """Rollouts with these answers; ``?`` could not be decided."""
    rollouts = []
    for k, answer in enumerate(answers):
        main = Trajectory("main", Key(0, 0, k, 0), question.text, answer=answer)
        score = Score(1.0, correct=float(answer == "right"), failed=answer == "?")
        rollouts.append(Rollout(main, [], {0: score}))
    return Group(question, rollouts)


def test_every_way_of_three_rollouts() -> None:
    for answers in itertools.product(["right", "wrong", "other", None], repeat=3):
        found = question_scores(group(*answers))
        given = [answer for answer in answers if answer]
        most = max(given, key=lambda answer: (given.count(answer), -given.index(answer)), default=None)
        assert found == {
            "accuracy": pytest.approx(answers.count("right") / 3),
            "pass": float("right" in answers),
            "majority": float(most == "right"),
        }


def test_what_could_not_be_decided_does_not_count() -> None:
    assert question_scores(group("?", "right")) == {"accuracy": 1.0, "pass": 1.0, "majority": 1.0}
    assert question_scores(group("?", "?")) == {}
    assert question_scores(group("wrong", None, question=replace(QUESTION, answers=(UNKNOWN,)))) == {}


def test_spelling_makes_no_other_vote() -> None:
    assert question_scores(group("wrong", "right", "Wrong."))["majority"] == 0.0


def test_an_evaluation_counts_questions_and_says_how_many_could_not_be_decided() -> None:
    hard = Question("h", "How?", ("right",), level="hard")
    evaluation = Evaluation(ROLES, [QUESTION, hard], repeats=2)
    evaluation.observe(held_out([group("right", "wrong"), group("?", "?"), group("wrong", "?", question=hard)]))
    _, record = evaluation.finish(3, torch.device("cpu"))
    assert (record["questions"], record["repeats"], record["undecided"]) == (3, 2, 3)
    assert (record["accuracy"], record["pass@2"], record["majority@2"]) == (0.25, 0.5, 0.5), "of what was decided"
    assert record["exact_match"] == pytest.approx(1 / 6), "rules know nothing of a judge that failed"
    assert record["by_level"]["easy"]["questions"] == 2
    assert record["by_level"]["hard"] == {
        **{"questions": 1, "exact_match": 0.0, "f1": 0.0, "gaia": 0.0, "accuracy": 0.0, "pass@2": 0.0},
        "majority@2": 0.0,
    }
    assert record["seconds_per_question"] == pytest.approx(1 / 3)


def test_an_evaluation_says_how_many_calls_failed_and_of_unknown_answers_nothing() -> None:
    unknown = replace(QUESTION, answers=(UNKNOWN,))
    played = [group("right", "wrong"), group("?", question=unknown)]
    calls = [Call(0, "search", {}, "error: ConnectError", failed) for failed in (True, True, False)]
    played[0].rollouts[0].main.calls += calls
    played[0].rollouts[0].main.segments.append(Segment([Span("observation", (1,))]))
    evaluation = Evaluation(ROLES, [QUESTION, unknown])
    evaluation.observe(held_out(played, seconds=1001.0))
    _, record = evaluation.finish(3, torch.device("cpu"))
    assert record["failed_calls"]["main"] == pytest.approx(2 / 3)
    assert record["undecided"] == 0, "nobody who could be asked again would know it"
    assert record["seconds_per_question"] * record["questions"] == 1001


def test_one_rollout_has_an_accuracy_alone() -> None:
    evaluation = Evaluation(ROLES, [QUESTION])
    evaluation.observe(held_out([group("?")]))
    _, record = evaluation.finish(0, torch.device("cpu"))
    assert (record["accuracy"], record["undecided"]) == (None, 1)
    assert not [name for name in record if "@" in name]


def test_tables_are_split_by_whatever_the_task_says() -> None:
    german, none = (Question(f"q {lang}", "?", ("right",), "easy", metadata=lang) for lang in ({"language": "de"}, {}))
    evaluation = Evaluation(ROLES, [german, none, QUESTION], by=["language"])
    played = [group("right", question=german), group("wrong", question=german), group("right", question=none)]
    evaluation.observe(held_out(played))
    means, record = evaluation.finish(0, torch.device("cpu"))
    assert {key: part["accuracy"] for key, part in record["by_language"].items()} == {"de": 0.5, "": 1.0}
    assert record["by_language"]["de"]["questions"] == 2
    assert list(record["by_level"]) == ["easy"]
    assert means["exact_match/language=de"] == 0.5


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"repeats": 4}, "repeats is 4 at temperature 0"),
        ({"repeats": 0}, "repeats is 0"),
        ({"questions": 0}, "questions is 0"),
        ({"per_batch": -1}, "per_batch is -1"),
        ({"temperature": -0.5}, "temperature is -0.5"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        ValidationConfig(**settings)  # type: ignore[arg-type]
