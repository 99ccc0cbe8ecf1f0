"""Choosing training questions by how often a team was right: which are kept, and what is no choice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mgrpo_lightning.commands.run_command import main
from mgrpo_lightning.data.selection import SelectionConfig, selected, success_rates
from mgrpo_lightning.errors import ConfigurationError, DataError
from mgrpo_lightning.records.journal import read_groups, training_files, write_groups
from mgrpo_lightning.records.trajectory import Group, Key, Rollout, Score, Trajectory
from tests.support.team_file import write_team_file
from tests.support.tiny import make_tiny_model
from tests.support.toy import ToyTask

QUESTIONS = ToyTask().questions("train")[:6]


def group(query: int, *correct: float | None, step: int = 3) -> Group:
    """One question with a rollout for each verdict; None is undecided."""
    rollouts = []
    for k, verdict in enumerate(correct):
        score = Score(1.0, failed=True) if verdict is None else Score(1.0, correct=verdict)
        rollouts.append(Rollout(Trajectory("main", Key(step, query, k, 0), "?", answer="yes"), scores={0: score}))
    return Group(QUESTIONS[query], rollouts)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    write_groups(tmp_path, 1, [group(i, 1, 1, step=1) for i in range(5)], "validate")
    write_groups(tmp_path, 3, [group(0, 0, 0, 0), group(1, 1, 0, 0, 0)], "validate")
    write_groups(tmp_path, 3, [group(2, 1, 1), group(3, None, 1, 0), group(4, None, None)], "validate")
    return tmp_path


def test_rates_are_of_the_latest_validation_and_of_what_was_decided(journal: Path) -> None:
    rates = {"q0": 0.0, "q1": 0.25, "q2": 1.0, "q3": 0.5}
    assert success_rates(journal) == {(q.id, q.text): rates[q.id] for q in QUESTIONS if q.id in rates}


def test_a_question_of_another_split_with_the_same_id_is_another_one(journal: Path) -> None:
    others = [replace(question, text=f"other {question.id}") for question in QUESTIONS]
    with pytest.raises(DataError, match="answers to none of the 6 training questions"):
        selected(others, SelectionConfig(str(journal)))


@pytest.mark.parametrize(
    ("low", "high", "kept"),
    [(0.0, 0.5, "q0 q1 q3"), (0.01, 0.5, "q1 q3"), (0.0, 0.0, "q0"), (0.0, 1.0, "q0 q1 q2 q3"), (1.0, 1.0, "q2")],
)
def test_questions_of_the_range_are_kept_in_their_order(journal: Path, low: float, high: float, kept: str) -> None:
    found = selected(QUESTIONS[::-1], SelectionConfig(str(journal), low, high))
    assert [question.id for question in found] == kept.split()[::-1]


def test_what_is_no_selection_says_so(journal: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of 4 questions .* 0.6 to 0.9: they have 0.00 to 1.00"):
        selected(QUESTIONS, SelectionConfig(str(journal), 0.6, 0.9))
    with pytest.raises(DataError, match="has answers to none of the 6 training questions"):
        selected(QUESTIONS, SelectionConfig(str(tmp_path / "nothing")))
    for low, high in ((0.5, 0.4), (-0.1, 1), (0, 1.5)):
        with pytest.raises(ConfigurationError, match=r"selection.* HINT: give "):
            SelectionConfig("journal", low, high)


def test_a_team_is_trained_on_what_it_found_hard(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model")
    team = write_team_file(tmp_path, model)
    run = tmp_path / "runs" / "toy"
    options = ["--data.validation.split=train", "--data.validation.questions=8"]
    main(["validate", f"--config={team}", *options])
    journal = run / "journal" / "validate"
    assert set(success_rates(journal)) == {(question.id, question.text) for question in ToyTask().questions("train")}
    write_groups(journal, 1, [group(i, i % 2, step=1) for i in range(4)], "validate")  # q0 and q2 are hard
    main(["fit", f"--config={team}", f"--data.selection={{journal: {journal}}}", "--trainer.max_steps=2"])
    asked = [g.question.id for paths in training_files(run / "journal").values() for p in paths for g in read_groups(p)]
    assert sorted(asked) == ["q0", "q0", "q2", "q2"]
