"""Format the printed line of a training step or a validation: rewards, format, delegations, tokens, seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mgrpo_lightning.algorithm.config import COMPONENTS
from mgrpo_lightning.names import SCORES
from mgrpo_lightning.roles.config import RoleConfig

LABELS = {"correct_main": "main"}
"""Labels of reward components in the line, where they are not the component's name."""

FAILURES = {
    "call_failures": "failed calls",
    "tool_failures": "broken tool calls",
    "unscored": "trajectories without a score",
    "wrong_demonstrations": "wrong demonstrations",
}
"""Counts of failures by metric name, with their label; shown only if above 0."""
SHORTEST_IDLE = 0.05
"""Seconds of idle time below which the line leaves it out."""


def step_line(step: int, total: int | None, metrics: Mapping[str, float], roles: Mapping[str, RoleConfig]) -> str:
    """Format one training step: each role, the rollouts, failures, sampled tokens a second, and seconds by phase.

    A role shows its mean reward with the components, the share of valid trajectories, and the share of groups whose
    advantages are all 0. Its loss is shown only in a warm start and with a lag or a queue: the loss of an on-policy
    update is 0, whatever the update does.

    Args:
        step: Number of training steps done so far.
        total: Number of steps of the run; None if unknown.
        metrics: Metrics that the root module logged; missing ones are left out.
        roles: Roles that this process plays, in display order.
    """
    head = f"step {step}" if total is None else f"step {step:>{len(str(total))}}/{total}"
    parts = [_role(name, config, metrics) for name, config in roles.items()]
    parts.append(
        _join(
            _value(metrics, "delegations_per_rollout", "{:.2f} delegations a rollout"),
            _value(metrics, "tokens_per_rollout", "{:.0f} tokens a rollout"),
        )
    )
    parts.append(_join(*(f"{metrics[name]:.0f} {label}" for name, label in FAILURES.items() if metrics.get(name))))
    parts.append(_join(_speed(metrics), _play(metrics), _value(metrics, "seconds/update", "update {:.1f} s")))
    return " | ".join([head, *filter(None, parts)])


def validation_line(result: Mapping[str, Any]) -> str:
    """Format one validation run: the accuracy that the task or its judge decided, then other metrics of the answers.

    Args:
        result: An entry of the root module's ``validation_results``.
    """
    accuracy = "-" if result["accuracy"] is None else f"{result['accuracy']:.1%}"
    undecided = f" ({result['undecided']} undecided)" if result["undecided"] else ""
    formats = " ".join(f"{role} {rate:.0%}" for role, rate in result["format_rate"].items() if rate is not None)
    return (
        f"held out at step {result['step']} | accuracy {accuracy} of {result['questions']}{undecided} "
        f"| exact match {result['exact_match']:.1%} "
        f"| f1 {result['f1']:.3f} | gaia {result['gaia']:.1%} | format {formats} "
        f"| {result['delegations_per_rollout']:.2f} delegations a rollout, "
        f"{result['tokens_per_rollout']:.0f} tokens a rollout"
    )


def _role(role: str, config: RoleConfig, metrics: Mapping[str, float]) -> str:
    if metrics.get(f"{role}/trajectories") == 0:
        return f"{role}: not called"
    supervised = config.objective.kind == "supervised"
    on_policy = not (supervised or config.lag or config.queue or config.optimizer.steps_per_batch > 1)
    prefix = f"{role}/reward_"
    logged = sorted(name.removeprefix(prefix) for name in metrics if name.startswith(prefix))
    functions = [name for name in logged if name not in COMPONENTS and name not in SCORES]
    components = _join(
        *(_value(metrics, prefix + key, LABELS.get(key, key) + " {:.2f}") for key in (*COMPONENTS, *functions))
    )
    reward = _value(metrics, f"{role}/reward", "reward {:.2f}")
    text = _join(
        f"{reward} ({components})" if components else reward,
        _value(metrics, f"{role}/format_rate", "valid {:.0%}"),
        "" if supervised else _value(metrics, f"{role}/zero_advantage_groups", "zero-advantage {:.0%}"),
        "" if on_policy else _value(metrics, f"{role}/loss", "loss {:.3f}"),
    )
    return f"{role}: {text}" if text else ""


def _speed(metrics: Mapping[str, float]) -> str:
    """Sampled tokens per second of play; nothing is sampled in a warm start."""
    tokens, seconds = metrics.get("sampled_tokens"), metrics.get("seconds/play")
    return f"{tokens / seconds:,.0f} tokens/s" if tokens and seconds else ""


def _play(metrics: Mapping[str, float]) -> str:
    idle = metrics.get("seconds/idle", 0.0)
    return _value(metrics, "seconds/play", "play {:.1f} s" + (f" (idle {idle:.1f} s)" if idle >= SHORTEST_IDLE else ""))


def _value(metrics: Mapping[str, float], name: str, pattern: str) -> str:
    return pattern.format(metrics[name]) if name in metrics else ""


def _join(*parts: str) -> str:
    return ", ".join(filter(None, parts))
