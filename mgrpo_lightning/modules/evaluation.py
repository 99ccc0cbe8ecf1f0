"""Evaluation: the figures of one validation run, as torchmetrics while it runs and as a plain record at its end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from mgrpo_lightning.modules.rates import ANSWER_SCORES, answer_rates, observe_answer, observe_play, play_rates
from mgrpo_lightning.ranks import over_ranks
from mgrpo_lightning.roles import RoleConfig
from mgrpo_lightning.trajectory import Group


class Evaluation(nn.Module):
    """Running means over held-out questions.

    Args:
        roles: The team.
        levels: Levels that questions may have; the table has a line for each that occurs.
    """

    def __init__(self, roles: Mapping[str, RoleConfig], *, levels: Iterable[str]) -> None:
        super().__init__()
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
        record = {
            "step": step,
            "questions": counts["exact_match"],
            **{name: answers[name] for name in ANSWER_SCORES},
            "format_rate": {role: play.get(f"{role}/format_rate") for role in self._roles},
            "calls_per_rollout": play["calls_per_rollout"],
            "tokens_per_rollout": play["tokens_per_rollout"],
            "by_level": {
                level: {
                    "questions": counts[f"exact_match/{level}"],
                    **{name: answers[f"{name}/{level}"] for name in ANSWER_SCORES},
                }
                for level in self._levels
                if f"exact_match/{level}" in answers
            },
        }
        return {**answers, **play}, record
