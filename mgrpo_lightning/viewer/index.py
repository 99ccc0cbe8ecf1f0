"""Index: columns of all rollouts, training curves by role, held-out counts by level, and problems with files."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mgrpo_lightning.algorithm.config import COMPONENTS
from mgrpo_lightning.protocol.actions import Violation
from mgrpo_lightning.records.journal_schema import FUNCTIONS
from mgrpo_lightning.viewer.journal_rows import Row, rollouts
from mgrpo_lightning.viewer.sources import Play

TRUNCATED, INVALID, FAILED = 1, 2, 4
"""Bit flags of a rollout: a turn was truncated, a trajectory broke a rule, a reward could not be decided."""


class Index:
    """Index of several runs; plays are added one by one.

    Args:
        runs: Name of each run, with the names of each role's reward components.
    """

    def __init__(self, runs: Sequence[tuple[str, Mapping[str, Sequence[str]]]]) -> None:
        self._runs = [{"name": name, "roles": list[str]()} for name, _ in runs]
        self._weighed = [weighed for _, weighed in runs]
        self._questions: dict[tuple[str, str], int] = {}
        self._texts: list[dict[str, Any]] = []
        names = ("run", "play", "query", "k", "question", "reward", "correct", "calls", "tokens", "marks", "answer")
        self._columns: dict[str, list[Any]] = {name: [] for name in names}
        self._plays: list[dict[str, Any]] = []
        self._of_roles: dict[str, list[float | None]] = {}
        self._curves: dict[tuple[int, str], list[tuple[int, float]]] = defaultdict(list)
        self._held_out: list[dict[str, Any]] = []
        self._problems: list[dict[str, Any]] = []

    def add(self, run: int, play: Play, rows: Sequence[Row]) -> None:
        """Add all rollouts of a play. Add plays of earlier steps first.

        Args:
            run: Index of the play's run.
            play: The play to add.
            rows: Rows from ``read_rows``; empty (for example after a damaged file) adds nothing.
        """
        if not rows:
            return
        roles: list[str] = self._runs[run]["roles"]  # type: ignore[assignment]
        for role in dict.fromkeys(row["role"] for row in rows):
            if role not in roles:
                roles.append(role)
        self._plays.append({"slug": play.slug, "stage": play.stage, "command": play.command, "step": play.step})
        played = list(rollouts(rows))
        for rollout in played:
            self._add_rollout(run, rollout)
        if play.stage == "step":
            for name, value in _figures(rows, played, self._weighed[run]).items():
                self._curves[run, name].append((play.step, value))
        else:
            self._held_out.append({"run": run, "play": len(self._plays) - 1, "levels": _levels(played)})

    def add_curve(self, run: int, name: str, points: Sequence[tuple[int, float]]) -> None:
        """Add a curve that is not in the journal, unless all values are 0, such as idle time in a single process.

        Args:
            run: Index of the curve's run.
            name: Name of the metric.
            points: (step, value) pairs.
        """
        if any(value for _, value in points):
            self._curves[run, name] = list(points)

    def add_problem(self, run: int, text: str) -> None:
        """Add a message about a file that cannot be shown.

        Args:
            run: Index of the file's run.
            text: One sentence that names the file and the problem.
        """
        self._problems.append({"run": run, "text": text})

    def data(self) -> dict[str, Any]:
        """Return the whole index as JSON-ready data."""
        return {
            "runs": self._runs,
            "plays": self._plays,
            "questions": self._texts,
            "columns": {**self._columns, **{f"reward/{role}": values for role, values in self._of_roles.items()}},
            "curves": [{"run": run, "name": name, "points": points} for (run, name), points in self._curves.items()],
            "held_out": self._held_out,
            "problems": self._problems,
        }

    def _add_rollout(self, run: int, rollout: Sequence[Row]) -> None:
        main, columns = rollout[0], self._columns
        values = {
            "run": run,
            "play": len(self._plays) - 1,
            "query": main["query"],
            "k": main["rollout"],
            "question": self._question(main),
            "reward": main["score_total"],
            "correct": main["score_correct"],
            "calls": sum(row["parent"] is not None for row in rollout),
            "tokens": sum(row["num_tokens"] for row in rollout),
            "marks": _marks(rollout),
            "answer": main["answer"],
        }
        number = len(columns["run"])
        for name, value in values.items():
            columns[name].append(value)
        by_role: defaultdict[str, list[float]] = defaultdict(list)
        for row in rollout:
            if row["score_total"] is not None:
                by_role[row["role"]].append(row["score_total"])
        # A role that appears late gets None for earlier rollouts: all columns must have the same length.
        for role in by_role.keys() | self._of_roles.keys():
            column = self._of_roles.setdefault(role, [None] * number)
            column.append(statistics.fmean(by_role[role]) if by_role[role] else None)

    def _question(self, row: Row) -> int:
        key = (row["question_id"], row["question"])
        # A question repeats over rollouts and steps, so its text is stored once and the column holds an index.
        if key not in self._questions:
            self._questions[key] = len(self._texts)
            names = {"id": "question_id", "text": "question", "level": "level", "answers": "answers"}
            self._texts.append({name: row[column] for name, column in names.items()})
        return self._questions[key]


def _marks(rollout: Iterable[Row]) -> int:
    marks = 0
    for row in rollout:
        marks |= TRUNCATED if Violation.TRUNCATED in row["violations"] else 0
        marks |= INVALID if not row["valid"] else 0
        marks |= FAILED if row["score_failed"] else 0
    return marks


def _figures(
    rows: Sequence[Row], played: Sequence[Sequence[Row]], weighed: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """Return the metrics of a training step: team metrics by name, metrics of a role as ``ROLE/name``."""
    found: dict[str, float] = {
        "calls per rollout": statistics.fmean(sum(row["parent"] is not None for row in one) for one in played),
        "tokens per rollout": statistics.fmean(sum(row["num_tokens"] for row in one) for one in played),
    }
    by_role: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["score_total"] is not None:
            by_role[row["role"]].append(row)
    for role, own in by_role.items():
        found[f"{role}/reward"] = statistics.fmean(row["score_total"] for row in own)
        found[f"{role}/format rate"] = statistics.fmean(float(row["valid"]) for row in own)
        for name in weighed.get(role, COMPONENTS):
            values = [value for row in own if (value := _part(row, name)) is not None]
            if name != "format" and values:  # the format rate above is the same
                found[f"{role}/{name}"] = statistics.fmean(values)
        groups: defaultdict[int, list[float]] = defaultdict(list)
        for row in own:
            if row["advantage"] is not None:
                groups[row["query"]].append(row["advantage"])
        if groups:
            found[f"{role}/zero-advantage groups"] = statistics.fmean(not any(group) for group in groups.values())
    return found


def _part(row: Row, name: str) -> float | None:
    """Return a row's value of a reward component or function; None if it was undecided or not computed."""
    found: float | None = row[f"score_{name}"] if name in COMPONENTS else (row.get(FUNCTIONS.name) or {}).get(name)
    return found


def _levels(played: Sequence[Sequence[Row]]) -> Mapping[str, dict[str, float]]:
    """Count a validation's rollouts by level: all, right ones (sum of scores), and undecided ones."""
    found: defaultdict[str, dict[str, float]] = defaultdict(lambda: {"rollouts": 0, "right": 0.0, "undecided": 0})
    for main in (rollout[0] for rollout in played):
        entry = found[main["level"]]
        entry["rollouts"] += 1
        entry["right"] += main["score_correct"] or 0.0
        unjudged = main["score_format"] or Violation.INTERRUPTED in main["violations"]
        entry["undecided"] += bool(main["score_failed"] and unjudged)  # not if it broke the format: that is wrong
    return dict(sorted(found.items()))
