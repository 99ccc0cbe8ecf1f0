"""Reported rates of played groups, as torchmetrics: rewards by component, formats, calls, tokens, answer scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from typing_extensions import override

from mgrpo_lightning.agents.scoring import question_scores
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Group, Rollout, Score, Trajectory
from mgrpo_lightning.roles.config import RoleConfig
from mgrpo_lightning.tasks.scoring import exact_match, gaia_rule, token_f1

COMPONENTS = ("format", "correct", "correct_main", "expert")


class Rates(Metric):
    """A fixed set of running means by name, so that every rank holds the same ones in the same order.

    What is seen is added up on the host; the ranks meet, and a device is asked, once for all names.

    Args:
        names: What is averaged, for instance ``main/reward``.
    """

    full_state_update = False
    sums: Tensor
    counts: Tensor

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self._names = sorted(names)
        self._seen: dict[str, list[float]] = {}
        for state in ("sums", "counts"):
            self.add_state(state, torch.zeros(len(self._names), dtype=torch.float64), dist_reduce_fx="sum")

    def add(self, name: str, value: float) -> None:
        """One observation.

        Args:
            name: One of the names of the constructor.
            value: What was seen.
        """
        assert name in self._names, f"{name} is none of {self._names}"
        self._seen.setdefault(name, []).append(value)

    @override
    def update(self, seen: Mapping[str, Sequence[float]]) -> None:
        for state, of in ((self.sums, math.fsum), (self.counts, len)):
            state += torch.tensor([of(seen.get(name, ())) for name in self._names], dtype=torch.float64).to(state)

    @override
    def compute(self) -> Tensor:
        return torch.stack([self.sums, self.counts])

    def take(self) -> tuple[dict[str, float], dict[str, int]]:
        """What was seen since the last time, over all ranks.

        Returns:
            Means by name, without those of which no rank saw anything; and how often each was seen.
        """
        self.update(self._seen)
        sums, counts = self.compute().tolist()
        self.reset()
        self._seen = {}
        means = {name: total / n for name, total, n in zip(self._names, sums, counts, strict=True) if n}
        return means, dict(zip(self._names, map(int, counts), strict=True))


def play_rates(roles: Mapping[str, RoleConfig]) -> Rates:
    """The means that ``observe_play`` fills.

    Args:
        roles: The team.
    """
    names = ["calls_per_rollout", "tokens_per_rollout", "failed"]
    for role in roles:
        names += [
            f"{role}/{name}" for name in ("reward", "format_rate", "turns", "tokens", "truncated", "failed_calls")
        ]
        names += [f"{role}/reward_{name}" for name in _weighted(roles[role])]
    return Rates(names)


def observe_play(rates: Rates, groups: Sequence[Group], roles: Mapping[str, RoleConfig]) -> None:
    """Add every rollout of played groups.

    Args:
        rates: From ``play_rates``.
        groups: Scored groups.
        roles: The team.
    """
    for rollout in (rollout for group in groups for rollout in group.rollouts):
        rates.add("calls_per_rollout", 1 + len(rollout.subs) - len(rollout.heads))
        rates.add("tokens_per_rollout", sum(t.num_tokens for t in rollout.trajectories()))
        for trajectory in rollout.trajectories():
            if trajectory.elsewhere:
                continue
            score = rollout.scores[trajectory.key.invocation]
            rates.add("failed", float(score.failed))
            if not score.failed:
                _observe_trajectory(rates, trajectory, score, roles[trajectory.role])


def _observe_trajectory(rates: Rates, trajectory: Trajectory, score: Score, config: RoleConfig) -> None:
    role = trajectory.role
    rates.add(f"{role}/reward", score.total)
    rates.add(f"{role}/format_rate", float(trajectory.valid))
    rates.add(f"{role}/turns", trajectory.num_turns)
    rates.add(f"{role}/tokens", trajectory.num_tokens)
    rates.add(f"{role}/truncated", float(trajectory.truncated))
    for call in trajectory.calls:
        rates.add(f"{role}/failed_calls", float(call.failed))
    for name in _weighted(config):
        rates.add(f"{role}/reward_{name}", getattr(score, name))


def _weighted(config: RoleConfig) -> list[str]:
    return [name for name in COMPONENTS if getattr(config.weights, name)]


AnswerScore = Callable[[str | None, Sequence[str]], float]

ANSWER_SCORES: dict[str, AnswerScore] = {
    "exact_match": exact_match,
    "f1": token_f1,
    "gaia": lambda answer, golds: max(gaia_rule(answer, gold) for gold in golds),
}
"""Scores of an answer against the accepted ones, in [0, 1], by the name that tables and results.json use."""


QUESTION_SCORES = ("accuracy", "pass", "majority")
"""Of all rollouts of one question; see ``question_scores``."""


def labels(question: Question, by: Sequence[str]) -> dict[str, str]:
    """The parts of the tables to which a question belongs, as the names of their rates end.

    Args:
        question: Whose.
        by: Metadata by which tables are split, besides the level.

    Returns:
        ``{"level": "1", "language": "language=en"}``.
    """
    return {"level": question.level, **{key: f"{key}={question.metadata.get(key, '')}" for key in by}}


def answer_rates(parts: Iterable[str]) -> Rates:
    """The means that ``observe_answer`` and ``observe_question`` fill.

    Args:
        parts: Labels of all questions, for the tables by level and whatever else.
    """
    names = (*ANSWER_SCORES, *QUESTION_SCORES)
    return Rates(f"{name}{suffix}" for name in names for suffix in ("", *(f"/{part}" for part in parts)))


def observe_answer(
    rates: Rates, question: Question, rollout: Rollout, by: Sequence[str] = (), *, f1: AnswerScore = token_f1
) -> None:
    """Score main's answer under every rule.

    Args:
        rates: From ``answer_rates``.
        question: With its accepted answers.
        rollout: One played rollout; no answer counts as wrong.
        by: See ``labels``.
        f1: The task's own; see ``Task.f1``.
    """
    for name, score in (ANSWER_SCORES | {"f1": f1}).items():
        value = score(rollout.main.answer, question.answers)
        for suffix in ("", *(f"/{part}" for part in labels(question, by).values())):
            rates.add(f"{name}{suffix}", value)


def observe_question(rates: Rates, group: Group, by: Sequence[str] = ()) -> None:
    """Add what the task, or its judge, decided about all rollouts of a question.

    Args:
        rates: From ``answer_rates``.
        group: Scored.
        by: See ``labels``.
    """
    for name, value in question_scores(group).items():
        for suffix in ("", *(f"/{part}" for part in labels(group.question, by).values())):
            rates.add(f"{name}{suffix}", value)
