"""Build the final tables for the terminal: held-out accuracy by level with its gain, and all other metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

Runs = Mapping[str, Mapping[str, Any]]
"""Validation records of the root module by column title, for instance ``before`` and ``after``."""


def accuracy_table(runs: Runs) -> Table:
    """Make the table of accuracy by question level and by the task's other splits (``table_by``).

    With several runs, a last column shows the gain from the first to the last, in percentage points. A dash means that
    no answer could be decided, for example because the answers of a test split are not public.

    Args:
        runs: At least one validation record.
    """
    table = Table(title="Held-out accuracy", title_justify="left")
    table.add_column("level")
    table.add_column("questions", justify="right")
    for head in (*runs, "gain") if len(runs) > 1 else runs:
        table.add_column(head, justify="right")
    # dict.fromkeys: a set that keeps the order.
    for key in dict.fromkeys(key for run in runs.values() for key in run if key.startswith("by_")):
        name = "" if key == "by_level" else f"{key.removeprefix('by_')} "
        for part in sorted({part for run in runs.values() for part in run.get(key, {})}):
            _add_accuracy(table, f"{name}{part}", [run.get(key, {}).get(part) for run in runs.values()])
        table.add_section()
    _add_accuracy(table, "all", list(runs.values()))
    return table


def figures_table(runs: Runs) -> Table:
    """Make the table of all other metrics of a validation run.

    Args:
        runs: At least one validation record.
    """
    table = Table(title="Other held-out metrics", title_justify="left")
    table.add_column("metric")
    for head in runs:
        table.add_column(head, justify="right")
    columns = [dict(_alarm_metrics(run)) for run in runs.values()]
    for name in dict.fromkeys(name for column in columns for name in column):
        table.add_row(name, *(column.get(name, "-") for column in columns))
    return table


def _add_accuracy(table: Table, level: str, cells: list[Mapping[str, Any] | None]) -> None:
    questions = [_questions(cell) for cell in cells if cell]
    scores = [cell["accuracy"] if cell else None for cell in cells]
    values = ["-" if score is None else f"{score:.1%}" for score in scores]
    first, last = scores[0], scores[-1]
    if len(scores) > 1:
        values.append("-" if first is None or last is None else f"{(last - first) * 100:+.1f}")
    table.add_row(level, questions[-1], *values)


def _questions(cell: Mapping[str, Any]) -> str:
    """Format the number of questions, and the number of undecided answers, which the accuracy does not count."""
    undecided = cell.get("undecided")
    return f"{cell['questions']}" + (f" ({undecided} answers undecided)" if undecided else "")


def _alarm_metrics(run: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in (key for key in run if "@" in key):  # pass@k, majority@k, if questions were repeated
        if run[name] is not None:
            yield name, f"{run[name]:.1%}"
    if run.get("undecided"):
        yield "undecided answers", str(run["undecided"])
    if judge := run.get("judge"):
        if "unmatched_right" in judge:
            yield (
                "right for the judge, not for the rule",
                f"{judge['unmatched_right']:.1%} of answers that match no rule",
            )
        if "agreement" in judge:
            yield "judge and rule agree", f"{judge['agreement']:.1%} of {judge['judged']:.0f} judged answers"
    yield "exact match", f"{run['exact_match']:.1%}"
    yield "token F1", f"{run['f1']:.3f}"
    yield "GAIA rule", f"{run['gaia']:.1%}"
    for role, rate in run["format_rate"].items():
        yield f"format rate, {role}", "-" if rate is None else f"{rate:.1%}"
    for role, rate in run.get("failed_calls", {}).items():
        if rate is not None:
            yield f"failed calls, {role}", f"{rate:.1%}"
    if "delegations_per_rollout" in run:  # a resumed run may hold results of a version that did not count them
        yield "delegations per rollout", f"{run['delegations_per_rollout']:.2f}"
    yield "calls per rollout", f"{run['calls_per_rollout']:.2f}"
    yield "tokens per rollout", f"{run['tokens_per_rollout']:.0f}"
    yield "seconds per question", f"{run['seconds_per_question']:.2f}"
