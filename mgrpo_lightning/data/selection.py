"""Select training questions by their success rate in an earlier validation: second stage of a curriculum.

This is the second stage of a curriculum (paper, section 5.1). First ask the training questions with ``mgrpo validate``
(``data.validation.split: train``, several ``repeats``). Then fit on the questions with a low success rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mgrpo_lightning.agents.scoring import question_scores
from mgrpo_lightning.errors import ConfigurationError, DataError
from mgrpo_lightning.ranges import Share, ranged
from mgrpo_lightning.records.journal import PREFIXES, read_groups
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.tasks.base import Task


@ranged("selection")
@dataclass(frozen=True)
class SelectionConfig:
    """Which training questions are used: those whose success rate in a validation run lies in a range."""

    journal: str
    """Folder of that run's journal, ``RUN/journal/validate``. Questions that are not in it are not used."""
    at_least: Share = 0.0
    """Smallest success rate (share of correct rollouts). Above 0 it excludes questions that the team never answers
    correctly."""
    at_most: Share = 0.5
    """Largest success rate (share of correct rollouts)."""

    def __post_init__(self) -> None:
        if self.at_least > self.at_most:
            raise ConfigurationError(
                f"selection.at_least is {self.at_least}, and at_most is {self.at_most}.",
                hint="give at_least <= at_most.",
            )


def training_questions(task: Task, config: SelectionConfig | None) -> Sequence[Question]:
    """Return the training questions of a task, in their original order.

    Args:
        config: Selects some of them; None: all.

    Raises:
        DataError: The task has no training questions, or ``config`` selects none.
    """
    questions = task.questions("train")
    if not questions:
        raise DataError("the task has no training questions.", hint="check its path and filters.")
    return questions if config is None else selected(questions, config)


def selected(questions: Sequence[Question], config: SelectionConfig) -> list[Question]:
    """Return the questions in the range, in their original order.

    Args:
        config: The journal and the range.

    Raises:
        DataError: The journal contains none of the questions, or none is in the range.
    """
    rates = success_rates(Path(config.journal))
    known = [question for question in questions if (question.id, question.text) in rates]
    if not known:
        raise DataError(
            f"{config.journal} has answers to none of the {len(questions)} training questions.",
            hint="validate on them first: run mgrpo validate with data.validation.split=train.",
        )
    kept = [question for question in known if config.at_least <= rates[question.id, question.text] <= config.at_most]
    if not kept:
        raise DataError(
            f"none of {len(known)} questions has a success rate from {config.at_least} to {config.at_most}: "
            f"they have {min(rates.values()):.2f} to {max(rates.values()):.2f}.",
            hint="widen selection.at_least and selection.at_most.",
        )
    return kept


def success_rates(journal: Path) -> Mapping[tuple[str, str], float]:
    """Return the share of correct rollouts of each question in a validation run's journal.

    Undecided rollouts do not count. The key is id and text, because two splits may use the same ids.

    Args:
        journal: Folder of the journal. Of several validations, the one after most steps is read.
    """
    files = sorted(journal.glob(f"{PREFIXES['validate']}-*.parquet"))
    # A step has one file per rank, or several parts. The zero-padded step sorts as text.
    last = [path for path in files if path.stem.split("-")[1] == files[-1].stem.split("-")[1]]
    groups = [group for path in last for group in read_groups(path)]
    scores = {(group.question.id, group.question.text): question_scores(group) for group in groups}
    return {name: score["accuracy"] for name, score in scores.items() if score}
