"""Run folders for the viewer, with whatever texts a test wants in every field, and what the page is given of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mgrpo_lightning.records.journal import Extra, write_groups
from mgrpo_lightning.records.question import Evidence, Question
from mgrpo_lightning.records.trajectory import Call, Group, Key, Message, Rollout, Score, Segment, Span, Trajectory

TEXT = "Which peak?"
HOP = Evidence("factbook/france", "Geography: Elevation", "Mont Blanc", "France", "highest_point")


def make_group(
    step: int,
    query: int,
    rewards: Sequence[float],
    *,
    text: str = TEXT,
    played: Sequence[str] = ("main", "sub"),
) -> Group:
    """K rollouts of main with one call of a searcher; who is not in ``played`` has no spans."""
    question = Question(f"q{query}", text, ("Mont Blanc",), "1 hop", (HOP,), {"note": text})
    rollouts = []
    for k, value in enumerate(rewards):
        answer = "Mont Blanc" if value > 0.5 else text
        main = Trajectory("main", Key(step, query, k, 0), question.text, 0.7, answer=answer)
        sub = Trajectory("searcher", Key(step, query, k, 1), text, 0.7, answer=answer, parent=0)
        main.calls = [Call(0, "searcher", {"task": text}, answer, invocation=1, seconds=0.5)]
        sub.calls = [Call(0, "visit", {"url": HOP.url, "query": text}, text, failed=value == 0)]
        for name, trajectory in (("main", main), ("sub", sub)):
            trajectory.messages = [
                Message("system", "be good"),
                Message("user", trajectory.task),
                Message("assistant", f"call: {text}"),
                Message("tool", text),
                Message("assistant", f"answer: {answer}"),
            ]
            if name in played:
                turn = Span("action", (5, 6), (-0.5, -2.0), version=step)
                last = Span("action", (7,), (-0.1,), version=step, truncated=value == 0)
                trajectory.segments = [Segment([Span("observation", (1, 2, 3)), turn, Span("observation", (4,)), last])]
        if value == 0:
            main.violations = ["truncated"]
        scores = {
            0: Score(float(value > 0), correct=float(value > 0.5), total=value),
            1: Score(1.0, expert=value, total=value),
        }
        rollouts.append(Rollout(main, [sub], scores))
    return Group(question, rollouts)


def write_run(folder: Path, *, steps: int = 2, queries: int = 2, text: str = TEXT, validation: bool = True) -> Path:
    """A run of some steps, each with a group whose rewards differ and others whose do not."""
    for step in range(steps):
        groups = [make_group(step, q, (0.0, 1.0) if q == 0 else (0.1, 0.1), text=text) for q in range(queries)]
        extras = {
            t.key: Extra((-1.0, 1.0)[t.key.rollout] if t.key.query == 0 else 0.0, 0.25)
            for group in groups
            for rollout in group.rollouts
            for t in rollout.trajectories()
        }
        write_groups(folder / "journal", step, groups, "train", extras)
    if validation:
        write_groups(folder / "journal", 0, [make_group(0, q, (q % 2,), text=text) for q in range(3)], "validate")
    return folder


def received(script: str | None) -> Any:
    """What a script hands to the page."""
    assert script is not None
    head, _, rest = script.partition(",")
    assert head.startswith('mgrpo.receive("')
    return json.loads(rest.removesuffix(");\n"))
