"""The closing tables: held-out accuracy by level and the other figures, side by side for each validation run shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

Runs = Mapping[str, Mapping[str, Any]]
"""Validation records of the root module by the head of their column, for instance ``before`` and ``after``."""


def accuracy_table(runs: Runs) -> Table:
    """Exact match by level of question, and by whatever else the task splits its tables by (``Task.table_by``).

    Where there are several runs, with the gain from the first to the last.

    Args:
        runs: At least one validation record.
    """
    table = Table(title="Held-out exact match", title_justify="left")
    table.add_column("level")
    table.add_column("questions", justify="right")
    for head in (*runs, "gain") if len(runs) > 1 else runs:
        table.add_column(head, justify="right")
    for key in dict.fromkeys(key for run in runs.values() for key in run if key.startswith("by_")):
        name = "" if key == "by_level" else f"{key.removeprefix('by_')} "
        for part in sorted({part for run in runs.values() for part in run.get(key, {})}):
            _add_accuracy(table, f"{name}{part}", [run.get(key, {}).get(part) for run in runs.values()])
        table.add_section()
    _add_accuracy(table, "all", list(runs.values()))
    return table


def figures_table(runs: Runs) -> Table:
    """Everything else that a validation run measures.

    Args:
        runs: At least one validation record.
    """
    table = Table(title="Other held-out figures", title_justify="left")
    table.add_column("figure")
    for head in runs:
        table.add_column(head, justify="right")
    columns = [dict(_figures(run)) for run in runs.values()]
    for name in dict.fromkeys(name for column in columns for name in column):
        table.add_row(name, *(column.get(name, "-") for column in columns))
    return table


def _add_accuracy(table: Table, level: str, cells: list[Mapping[str, Any] | None]) -> None:
    questions = [str(cell["questions"]) for cell in cells if cell]
    values = [f"{cell['exact_match']:.1%}" if cell else "-" for cell in cells]
    first, last = cells[0], cells[-1]
    if len(cells) > 1:
        values.append(f"{(last['exact_match'] - first['exact_match']) * 100:+.1f}" if first and last else "-")
    table.add_row(level, questions[-1], *values)


def _figures(run: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in ("accuracy", *(key for key in run if "@" in key)):
        if run.get(name) is not None:
            yield name, f"{run[name]:.1%}"
    if run.get("undecided"):
        yield "could not be decided", str(run["undecided"])
    if judge := run.get("judge"):
        yield "judge and rule agree", f"{judge['agreement']:.1%} of {judge['judged']:.0f}"
    yield "token F1", f"{run['f1']:.3f}"
    yield "GAIA rule", f"{run['gaia']:.1%}"
    for role, rate in run["format_rate"].items():
        yield f"format rate, {role}", "-" if rate is None else f"{rate:.1%}"
    yield "calls per rollout", f"{run['calls_per_rollout']:.2f}"
    yield "tokens per rollout", f"{run['tokens_per_rollout']:.0f}"
    yield "seconds per question", f"{run['seconds_per_question']:.2f}"
