"""Evaluation: the figures of one validation run, as torchmetrics while it runs and as a plain record at its end."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from mgrpo_lightning.modules.rates import (
    ANSWER_SCORES,
    answer_rates,
    observe_answer,
    observe_play,
    observe_question,
    play_rates,
)
from mgrpo_lightning.ranks import over_ranks
from mgrpo_lightning.roles import RoleConfig
from mgrpo_lightning.trajectory import Group


class Evaluation(nn.Module):
    """Running means over held-out questions.

    Args:
        roles: The team.
        levels: Levels that questions may have; the table has a line for each that occurs.
        repeats: Rollouts of each question.
    """

    def __init__(self, roles: Mapping[str, RoleConfig], *, levels: Iterable[str], repeats: int = 1) -> None:
        super().__init__()
        self._repeats = repeats
        self._started = time.monotonic()
        self._roles = roles
        self._levels = sorted(levels)
        self.play = play_rates(roles)
        self.answers = answer_rates(self._levels)

    def observe(self, groups: Sequence[Group]) -> None:
        """Add played and scored groups.

        Args:
            groups: One batch of the validation stream.
        """
        observe_play(self.play, groups, self._roles)
        for group in groups:
            observe_question(self.answers, group)
            for rollout in group.rollouts:
                observe_answer(self.answers, group.question, rollout)

    def finish(self, step: int, device: torch.device) -> tuple[dict[str, float], dict[str, Any]]:
        """The means by name, and the record that results.json holds.

        Args:
            step: Optimizer steps before this run.
            device: Where the process group computes.
        """
        names, own = zip(*self.answers.counts().items(), strict=True)
        counts = dict(zip(names, map(int, over_ranks(own, device)), strict=True))
        answers, play = self.answers.compute(), self.play.compute()
        questions = counts["exact_match"] // self._repeats
        record = {
            "step": step,
            "questions": questions,
            "repeats": self._repeats,
            "undecided": questions - counts["accuracy"],
            **self._scores(answers, ""),
            "format_rate": {role: play.get(f"{role}/format_rate") for role in self._roles},
            "calls_per_rollout": play["calls_per_rollout"],
            "tokens_per_rollout": play["tokens_per_rollout"],
            "seconds_per_question": (time.monotonic() - self._started) / max(questions, 1),
            "by_level": {
                level: {
                    "questions": counts[f"exact_match/{level}"] // self._repeats,
                    **self._scores(answers, f"/{level}"),
                }
                for level in self._levels
                if f"exact_match/{level}" in answers
            },
        }
        return {**answers, **play}, record

    def _scores(self, answers: Mapping[str, float], level: str) -> dict[str, float | None]:
        """Every score of a level, or of all; None where no answer could be decided."""
        names = {name: name for name in ANSWER_SCORES} | {"accuracy": "accuracy"}
        if self._repeats > 1:
            names |= {f"{name}@{self._repeats}": name for name in ("pass", "majority")}
        return {shown: answers.get(f"{name}{level}") for shown, name in names.items()}
