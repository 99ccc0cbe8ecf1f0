"""Evaluation: the metrics of one validation run, accumulated with torchmetrics and returned as a plain record."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from mgrpo_lightning.agents.scoring import undecided
from mgrpo_lightning.distributed.ranks import over_ranks
from mgrpo_lightning.modules.rates import (
    ANSWER_SCORES,
    AnswerScore,
    answer_rates,
    labels,
    observe_answer,
    observe_play,
    observe_question,
    play_rates,
)
from mgrpo_lightning.modules.validation import ValidationConfig
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Group
from mgrpo_lightning.roles.config import RoleConfig
from mgrpo_lightning.tasks.agreement import Agreement, agreement_figures
from mgrpo_lightning.tasks.base import Task
from mgrpo_lightning.tasks.scoring import token_f1


def judge_figures(agreement: Agreement | None, device: torch.device) -> dict[str, float]:
    """Return the agreement of judge and rule since the last call, over all ranks; see ``agreement_figures``.

    Args:
        agreement: Counter of the task; None if the task has no judge.
        device: Device of the process group.
    """
    return {} if agreement is None else agreement_figures(over_ranks(agreement.take(), device))


class Evaluation(nn.Module):
    """Running means over held-out questions.

    Args:
        roles: The team.
        questions: All questions of the split; the tables get one line for each of their levels.
        by: Metadata keys of questions that get a table too.
        repeats: Rollouts per question.
        agreement: Counter of agreement between the task's judge and its rule.
        f1: The task's own F1 score; see ``Task.f1``.
    """

    def __init__(
        self,
        roles: Mapping[str, RoleConfig],
        questions: Iterable[Question],
        *,
        by: Sequence[str] = (),
        repeats: int = 1,
        agreement: Agreement | None = None,
        f1: AnswerScore = token_f1,
    ) -> None:
        super().__init__()
        self._f1 = f1
        self._repeats = repeats
        self._started = time.monotonic()
        self._roles = roles
        self._by = by
        found: dict[str, set[str]] = {"level": set(), **{key: set() for key in by}}
        for question in questions:
            for key, label in labels(question, by).items():
                found[key].add(label)
        self._parts = {key: sorted(values) for key, values in found.items()}
        self._agreement = agreement
        self._undecided = 0
        self.play = play_rates(roles)
        self.answers = answer_rates(sorted({label for values in found.values() for label in values}))
        if agreement is not None:
            agreement.take()  # drop the counts of training

    @classmethod
    def of_run(
        cls, roles: Mapping[str, RoleConfig], task: Task, config: ValidationConfig, *, testing: bool
    ) -> Evaluation:
        """Create the evaluation of a run from its config.

        Args:
            roles: The team.
            task: The task that provides the questions.
            config: Split and repeats.
            testing: Use the split ``test`` regardless of ``config.split``.
        """
        questions = task.questions("test" if testing else config.split)
        return cls(roles, questions, by=task.table_by, repeats=config.repeats, agreement=task.agreement, f1=task.f1)

    def observe(self, groups: Sequence[Group]) -> None:
        """Add played and scored groups of one validation batch."""
        observe_play(self.play, groups, self._roles)
        for group in groups:
            observe_question(self.answers, group, self._by)
            # Hidden answers of a leaderboard do not count as undecided: asking a judge again would not decide them.
            self._undecided += group.question.known and sum(undecided(rollout) for rollout in group.rollouts)
            for rollout in group.rollouts:
                observe_answer(self.answers, group.question, rollout, self._by, f1=self._f1)

    def finish(
        self, step: int, device: torch.device, *, earlier: float = 0.0
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Return the means by name, and the record for results.json.

        Args:
            step: Optimizer steps done before this validation.
            device: Device of the process group.
            earlier: Play time, in seconds, of killed runs whose turns were restored.
        """
        (answers, counts), (play, _) = self.answers.take(), self.play.take()
        # Every rank must reach these all-reduces in the same order.
        (num_undecided,) = map(int, over_ranks([self._undecided], device))
        # Each rollout was counted once, so the number of questions is the count over the repeats.
        questions = counts["exact_match"] // self._repeats
        record: dict[str, Any] = {
            "step": step,
            "questions": questions,
            "repeats": self._repeats,
            "undecided": num_undecided,  # number of rollouts
            **self._scores(answers, ""),
            "format_rate": {role: play.get(f"{role}/format_rate") for role in self._roles},
            "failed_calls": {role: play.get(f"{role}/failed_calls") for role in self._roles},
            "delegations_per_rollout": play["delegations_per_rollout"],
            "calls_per_rollout": play["calls_per_rollout"],
            "tokens_per_rollout": play["tokens_per_rollout"],
            "seconds_per_question": (earlier + time.monotonic() - self._started) / max(questions, 1),
            **{
                f"by_{key}": {
                    label.removeprefix(f"{key}="): {
                        "questions": counts[f"exact_match/{label}"] // self._repeats,
                        **self._scores(answers, f"/{label}"),
                    }
                    for label in values
                    if f"exact_match/{label}" in answers
                }
                for key, values in self._parts.items()
            },
        }
        judge = judge_figures(self._agreement, device)
        if judge:
            record["judge"] = judge
        return {**answers, **play, **{f"judge/{name}": value for name, value in judge.items()}}, record

    def _scores(self, answers: Mapping[str, float], level: str) -> dict[str, float | None]:
        """All scores of one table line, or of all questions (``level=""``); None if no answer could be decided."""
        names = {name: name for name in ANSWER_SCORES} | {"accuracy": "accuracy"}
        if self._repeats > 1:
            names |= {f"{name}@{self._repeats}": name for name in ("pass", "majority")}
        return {shown: answers.get(f"{name}{level}") for shown, name in names.items()}
