"""Evaluation: accumulate the metrics of a validation run; return their means and the record for results.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from mgrpo_lightning.agents.scoring import undecided
from mgrpo_lightning.distributed.ranks import over_ranks
from mgrpo_lightning.modules.play_metrics import (
    ANSWER_SCORES,
    AnswerScore,
    answer_metrics,
    labels,
    observe_answer,
    observe_play,
    observe_question,
    play_metrics,
)
from mgrpo_lightning.modules.validation_config import HeldOutBatch, ValidationConfig
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.roles.config import RoleConfig
from mgrpo_lightning.tasks.answer_rules import token_f1
from mgrpo_lightning.tasks.base import Task
from mgrpo_lightning.tasks.judge_agreement import agreement_figures


def judge_metrics(counts: Sequence[float], device: torch.device) -> dict[str, float]:
    """Return the agreement of judge and rule, over all ranks; see ``agreement_figures``.

    Args:
        counts: Counts of this rank; empty if the task has no judge.
        device: Device of the process group.
    """
    return agreement_figures(over_ranks(counts, device)) if counts else {}


class Evaluation(nn.Module):
    """Running means over held-out questions.

    Args:
        questions: All questions of the split; the tables get one line for each of their levels.
        by: Metadata keys of questions that get a table too.
        f1: The task's own F1 score; see ``Task.f1``.
    """

    def __init__(
        self,
        roles: Mapping[str, RoleConfig],
        questions: Iterable[Question],
        *,
        by: Sequence[str] = (),
        repeats: int = 1,
        f1: AnswerScore = token_f1,
    ) -> None:
        super().__init__()
        self._f1 = f1
        self._repeats = repeats
        self._roles = roles
        self._by = by
        found: dict[str, set[str]] = {"level": set(), **{key: set() for key in by}}
        for question in questions:
            for key, label in labels(question, by).items():
                found[key].add(label)
        self._parts = {key: sorted(values) for key, values in found.items()}
        self._undecided = 0
        self._seconds = 0.0
        self._agreement: Sequence[float] = ()
        self.play = play_metrics(roles)
        self.answers = answer_metrics(sorted({label for values in found.values() for label in values}))

    @classmethod
    def of_run(cls, roles: Mapping[str, RoleConfig], task: Task, config: ValidationConfig) -> Evaluation:
        """Create the evaluation of a run from its config.

        Args:
            task: The task that provides the questions.
        """
        return cls(roles, task.questions(config.split), by=task.table_by, repeats=config.repeats, f1=task.f1)

    def observe(self, batch: HeldOutBatch) -> None:
        """Add a batch, after all earlier ones of the validation."""
        # Both count from the start of the validation.
        self._seconds, self._agreement = batch.seconds, batch.agreement
        observe_play(self.play, batch.groups, self._roles)
        for group in batch.groups:
            observe_question(self.answers, group, self._by)
            # Hidden answers of a leaderboard do not count as undecided: asking a judge again would not decide them.
            self._undecided += group.question.known and sum(undecided(rollout) for rollout in group.rollouts)
            for rollout in group.rollouts:
                observe_answer(self.answers, group.question, rollout, self._by, f1=self._f1)

    def finish(self, step: int, device: torch.device) -> tuple[dict[str, float], dict[str, Any]]:
        """Return the means by name, and the record for results.json.

        Args:
            step: Training steps done before this validation.
            device: Device of the process group.
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
            "seconds_per_question": self._seconds / max(questions, 1),
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
        judge = judge_metrics(self._agreement, device)
        if judge:
            record["judge"] = judge
        return {**answers, **play, **{f"judge/{name}": value for name, value in judge.items()}}, record

    def _scores(self, answers: Mapping[str, float], level: str) -> dict[str, float | None]:
        """All scores of one table line, or of all questions (``level=""``); None if no answer could be decided."""
        names = {name: name for name in ANSWER_SCORES} | {"accuracy": "accuracy"}
        if self._repeats > 1:
            names |= {f"{name}@{self._repeats}": name for name in ("pass", "majority")}
        return {shown: answers.get(f"{name}{level}") for shown, name in names.items()}
