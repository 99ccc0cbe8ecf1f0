"""CollapseAlarm: warn if reward std, calls per rollout or format rate of a role stay low (correctness.md 27)."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from mgrpo_lightning.modules.metric_logging import log_step_metrics
from mgrpo_lightning.ranges import Count, Share, Weight, ranged
from mgrpo_lightning.records.batch import TeamBatch
from mgrpo_lightning.records.trajectory import Group, Score
from mgrpo_lightning.roles.config import RoleConfig

if TYPE_CHECKING:
    from mgrpo_lightning.modules.team import TeamModule

SOLVED = 0.95
"""Share of the maximum reward above which a small standard deviation means success, not collapse."""

HINTS = {
    "reward_std": "raise the role's temperature, use harder questions, or check that rollouts can earn its reward.",
    "calls_per_rollout": "check that calls raise the reward; lower the learning rate, or set objective.kl above 0.",
    "format_rate": "lower the learning rate, raise reward.format, or warm-start the role on demonstrations.",
}
NEVER_VALID = (
    "without a valid format nothing is rewarded. Read the role's turns with `mgrpo view RUN`. If they are cut off, "
    "raise limits.new_tokens or limits.context. Else write a clearer system_prompt, or warm-start the role on "
    "demonstrations."
)
"""Hint for a role that met its format in no trajectory of the window."""


class CollapseWarning(UserWarning):
    """A metric fell below the bound that a healthy team stays above."""


@ranged("alarm")
class CollapseAlarm(Callback):
    """Watches each role's training rollouts, logs its metrics, and warns when a metric's mean falls below its bound.

    A metric warns once. It warns again only after its mean over the window has recovered and fallen again.

    Args:
        window: Number of training steps to average over.
        min_reward_std: Lower bound of the standard deviation of a role's reward within a query's group.
        min_calls: Lower bound of a role's calls per rollout, for roles that have tools or sub-agents.
        min_format: Lower bound of the share of a role's trajectories with a valid format.

    Raises:
        ConfigurationError: ``window`` is below 1.
    """

    def __init__(
        self, window: Count = 5, min_reward_std: Share = 0.01, min_calls: Weight = 0.2, min_format: Share = 0.5
    ) -> None:
        self.window = window
        self.bounds = {"reward_std": min_reward_std, "calls_per_rollout": min_calls, "format_rate": min_format}
        self._values: dict[str, deque[float]] = {}
        self._troubled: set[str] = set()

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "values": {name: list(values) for name, values in self._values.items()},
            "troubled": sorted(self._troubled),
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._values = {name: deque(values, self.window) for name, values in state_dict["values"].items()}
        self._troubled = set(state_dict["troubled"])

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        assert isinstance(batch, TeamBatch)
        module = cast("TeamModule", pl_module)
        logged = {}
        for role in module.local_roles:
            for metric, value in _alarm_metrics(batch.groups, role, module.roles[role]):
                if metric != "format_rate":  # the root module logs that one
                    logged[f"{role}/{metric}"] = value
                self._observe(role, metric, value, batch.step)
        log_step_metrics(module, logged, step=batch.step)

    def _observe(self, role: str, metric: str, value: float, step: int) -> None:
        name = f"{role}/{metric}"
        values = self._values.setdefault(name, deque(maxlen=self.window))
        values.append(value)
        mean = fmean(values)
        if mean >= self.bounds[metric]:
            self._troubled.discard(name)
        # A full window first: the mean of one or two steps is too noisy to warn about.
        elif len(values) == self.window and name not in self._troubled:
            self._troubled.add(name)
            hint = NEVER_VALID if metric == "format_rate" and mean == 0 else HINTS[metric]
            warnings.warn(
                f"{name} was {mean:.3g} on average over the last {self.window} steps (at step {step}), "
                f"below {self.bounds[metric]:g}. HINT: {hint}",
                CollapseWarning,
                stacklevel=2,
            )


def _alarm_metrics(groups: Sequence[Group], role: str, config: RoleConfig) -> Iterator[tuple[str, float]]:
    """Yield the metrics of one step that apply to this role, as (name, value)."""
    trajectories = [t for group in groups for rollout in group.rollouts for t in rollout.trajectories(role)]
    if config.calls or config.tools:
        # Divide by all rollouts, also those without calls: a mean over calling rollouts would never fall.
        yield "calls_per_rollout", sum(len(t.calls) for t in trajectories) / sum(len(g.rollouts) for g in groups)
    if trajectories:
        yield "format_rate", fmean(t.valid for t in trajectories)
    rewards = [[score.total for score in _scores(group, role)] for group in groups]
    rewards = [group for group in rewards if len(group) > 1]
    # A supervised role needs no reward spread: its loss does not read advantages.
    learns = config.trainable and config.objective.kind == "mgrpo"
    if learns and rewards and fmean(map(fmean, rewards)) < SOLVED * config.weights.most:
        yield "reward_std", fmean(map(pstdev, rewards))


def _scores(group: Group, role: str) -> Iterator[Score]:
    for rollout in group.rollouts:
        for trajectory in rollout.trajectories(role):
            score = rollout.scores[trajectory.key.invocation]
            if not score.failed:
                yield score
