"""Format the line that a training step or a validation run prints; pure functions of logged metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mgrpo_lightning.algorithm.config import COMPONENTS

LABELS = {"correct_main": "main"}
"""Labels of reward components in the line, where they are not the component's name."""

COUNTS = {"tool_failures": "tool failures", "wrong_demonstrations": "wrong demonstrations"}
"""Counts of errors by metric name, with their label; shown only if above 0."""


def step_line(step: int, total: int | None, metrics: Mapping[str, float], roles: Iterable[str]) -> str:
    """Format one training step: rewards by role and component, format, flat groups, delegations, tokens, seconds.

    Args:
        step: Number of training steps done so far.
        total: Number of steps of the run; None if unknown.
        metrics: Metrics that the root module logged; missing ones are left out.
        roles: Roles of the team, in display order.
    """
    head = f"step {step}" if total is None else f"step {step:>{len(str(total))}}/{total}"
    parts = [_role(role, metrics) for role in roles]
    parts.append(
        _join(
            _value(metrics, "delegations_per_rollout", "{:.2f} delegations"),
            _value(metrics, "tokens_per_rollout", "{:.0f} tokens/rollout"),
            *(_value(metrics, name, "{:.0f} " + shown) for name, shown in COUNTS.items() if metrics.get(name)),
        )
    )
    parts.append(
        _join(_value(metrics, "seconds/play", "play {:.1f} s"), _value(metrics, "seconds/update", "update {:.1f} s"))
    )
    return " | ".join([head, *filter(None, parts)])


def validation_line(result: Mapping[str, Any]) -> str:
    """Format one validation run: the accuracy that the task or its judge decided, then other metrics of the answers.

    Args:
        result: An entry of the root module's ``validation_results``.
    """
    accuracy = "-" if result["accuracy"] is None else f"{result['accuracy']:.1%}"
    formats = " ".join(f"{role} {rate:.0%}" for role, rate in result["format_rate"].items() if rate is not None)
    return (
        f"held out at step {result['step']} | accuracy {accuracy} of {result['questions']} "
        f"| exact match {result['exact_match']:.1%} "
        f"| f1 {result['f1']:.3f} | gaia {result['gaia']:.1%} | format {formats} "
        f"| {result['delegations_per_rollout']:.2f} delegations {result['tokens_per_rollout']:.0f} tokens/rollout"
    )


def _role(role: str, metrics: Mapping[str, float]) -> str:
    components = _join(
        *(_value(metrics, f"{role}/reward_{key}", LABELS.get(key, key) + " {:.2f}") for key in COMPONENTS)
    )
    text = _join(
        _value(metrics, f"{role}/reward", "{:.2f}"),
        f"({components})" if components else "",
        _value(metrics, f"{role}/format_rate", "valid {:.0%}"),
        _value(metrics, f"{role}/zero_advantage_groups", "zero-advantage {:.0%}"),
        _value(metrics, f"{role}/loss", "loss {:.3f}"),
    )
    return f"{role} {text}" if text else ""


def _value(metrics: Mapping[str, float], name: str, pattern: str) -> str:
    return pattern.format(metrics[name]) if name in metrics else ""


def _join(*parts: str) -> str:
    return " ".join(filter(None, parts))
