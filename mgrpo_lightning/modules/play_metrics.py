"""Means over played groups and ranks (torchmetrics): reward components, format, turns, tokens, answer scores."""

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
from mgrpo_lightning.tasks.answer_rules import exact_match, gaia_rule, token_f1


class MeanMetrics(Metric):
    """Running means under a fixed set of names, so that every rank reduces the same values in the same order.

    Observations are collected on the host. ``take`` then does one reduction over ranks, and one device transfer, for
    all names together.

    Args:
        names: Names of the means, for instance ``main/reward``.
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
        """Add one observation under one of the constructor's names."""
        assert name in self._names, f"{name} is not in {self._names}"
        self._seen.setdefault(name, []).append(value)

    @override
    def update(self, seen: Mapping[str, Sequence[float]]) -> None:
        for state, of in ((self.sums, math.fsum), (self.counts, len)):
            state += torch.tensor([of(seen.get(name, ())) for name in self._names], dtype=torch.float64).to(state)

    @override
    def compute(self) -> Tensor:
        return torch.stack([self.sums, self.counts])

    def take(self) -> tuple[dict[str, float], dict[str, int]]:
        """Return the means since the last call, over all ranks, and start again.

        Returns:
            Means by name, without names that no rank observed; and the number of observations by name.
        """
        # compute() of torchmetrics reduces over the ranks.
        self.update(self._seen)
        sums, counts = self.compute().tolist()
        self.reset()
        self._seen = {}
        means = {name: total / n for name, total, n in zip(self._names, sums, counts, strict=True) if n}
        return means, dict(zip(self._names, map(int, counts), strict=True))


def play_metrics(roles: Mapping[str, RoleConfig]) -> MeanMetrics:
    """Create the means that ``observe_play`` fills."""
    names = ["delegations_per_rollout", "calls_per_rollout", "tokens_per_rollout", "failed"]
    for role in roles:
        names += [
            f"{role}/{name}" for name in ("reward", "format_rate", "turns", "tokens", "truncated", "failed_calls")
        ]
        names += [f"{role}/reward_{name}" for name in roles[role].weights.parts]
    return MeanMetrics(names)


def observe_play(means: MeanMetrics, groups: Sequence[Group], roles: Mapping[str, RoleConfig]) -> None:
    """Add every rollout of the played groups."""
    for rollout in (rollout for group in groups for rollout in group.rollouts):
        # Each sub trajectory was delegated; main and its equals were not.
        means.add("delegations_per_rollout", 1 + len(rollout.subs) - len(rollout.leads))
        means.add("calls_per_rollout", sum(len(t.calls) for t in rollout.trajectories()))
        means.add("tokens_per_rollout", sum(t.num_tokens for t in rollout.trajectories()))
        for trajectory in rollout.trajectories():
            # The process of that role reports its metrics.
            if trajectory.elsewhere:
                continue
            score = rollout.scores[trajectory.key.invocation]
            means.add("failed", float(score.failed))
            # A failed judge says nothing about the reward, so the means do not count it as 0.
            if not score.failed:
                _observe_trajectory(means, trajectory, score, roles[trajectory.role])


def _observe_trajectory(means: MeanMetrics, trajectory: Trajectory, score: Score, config: RoleConfig) -> None:
    role = trajectory.role
    means.add(f"{role}/reward", score.total)
    means.add(f"{role}/format_rate", float(trajectory.valid))
    means.add(f"{role}/turns", trajectory.num_turns)
    means.add(f"{role}/tokens", trajectory.num_tokens)
    means.add(f"{role}/truncated", float(trajectory.truncated))
    for call in trajectory.calls:
        means.add(f"{role}/failed_calls", float(call.failed))
    for name in config.weights.parts:
        value = score.part(name)
        assert value is not None, f"{role} has a score without {name}"
        means.add(f"{role}/reward_{name}", value)


def play_counts(groups: Sequence[Group], roles: Iterable[str], *, sampled: bool) -> dict[str, int]:
    """Count what a rank played in a step: trajectories of each role, failures, and sampled tokens.

    Args:
        groups: The scored groups.
        roles: Roles that this process plays.
        sampled: Whether policies sampled the turns; those of demonstrations are not.

    Returns:
        ``ROLE/trajectories``; ``call_failures`` (calls that returned an error), ``unscored`` (trajectories without a
        reward) and, if ``sampled``, ``sampled_tokens``. All ranks have the same names.
    """
    played = [
        (trajectory, rollout.scores[trajectory.key.invocation])
        for group in groups
        for rollout in group.rollouts
        for trajectory in rollout.trajectories()
        if not trajectory.elsewhere
    ]
    counts = {f"{role}/trajectories": sum(one.role == role for one, _ in played) for role in roles}
    counts["call_failures"] = sum(call.failed for one, _ in played for call in one.calls)
    counts["unscored"] = sum(score.failed for _, score in played)
    return counts | ({"sampled_tokens": sum(one.num_actions for one, _ in played)} if sampled else {})


AnswerScore = Callable[[str | None, Sequence[str]], float]

ANSWER_SCORES: dict[str, AnswerScore] = {
    "exact_match": exact_match,
    "f1": token_f1,
    "gaia": lambda answer, golds: max(gaia_rule(answer, gold) for gold in golds),
}
"""Scores of an answer against the accepted answers, in [0, 1], by their name in tables and results.json."""


QUESTION_SCORES = ("accuracy", "pass", "majority")
"""Scores over all rollouts of one question; see ``question_scores``."""


def labels(question: Question, by: Sequence[str]) -> dict[str, str]:
    """Return the table lines that a question belongs to, as suffixes of metric names.

    Args:
        by: Metadata keys that split tables, besides the level.

    Returns:
        For instance ``{"level": "1", "language": "language=en"}``.
    """
    return {"level": question.level, **{key: f"{key}={question.metadata.get(key, '')}" for key in by}}


def answer_metrics(parts: Iterable[str]) -> MeanMetrics:
    """Create the means that ``observe_answer`` and ``observe_question`` fill.

    Args:
        parts: Labels of all questions; each gets its own means.
    """
    names = (*ANSWER_SCORES, *QUESTION_SCORES)
    return MeanMetrics(f"{name}{suffix}" for name in names for suffix in ("", *(f"/{part}" for part in parts)))


def observe_answer(
    means: MeanMetrics, question: Question, rollout: Rollout, by: Sequence[str] = (), *, f1: AnswerScore = token_f1
) -> None:
    """Score main's answer with every rule.

    Args:
        question: The question with its accepted answers.
        rollout: A played rollout; a missing answer counts as wrong.
        f1: The task's own F1 score; see ``Task.f1``.
    """
    for name, score in (ANSWER_SCORES | {"f1": f1}).items():
        value = score(rollout.main.answer, question.answers)
        for suffix in ("", *(f"/{part}" for part in labels(question, by).values())):
            means.add(f"{name}{suffix}", value)


def observe_question(means: MeanMetrics, group: Group, by: Sequence[str] = ()) -> None:
    """Add the scores of the task or its judge over all rollouts of a question.

    Args:
        group: The scored rollouts of the question.
    """
    for name, value in question_scores(group).items():
        for suffix in ("", *(f"/{part}" for part in labels(group.question, by).values())):
            means.add(f"{name}{suffix}", value)
