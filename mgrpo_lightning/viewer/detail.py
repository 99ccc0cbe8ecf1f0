"""One query's rollouts as JSON for the page: spans, tokens with log-probabilities, calls, scores and their reasons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mgrpo_lightning.algorithm.config import COMPONENTS
from mgrpo_lightning.errors import DataError
from mgrpo_lightning.records.journal import read_groups
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Call, Group, Key, Rollout, Score, Span, Trajectory
from mgrpo_lightning.tasks.answer_rules import exact_match
from mgrpo_lightning.viewer.journal_rows import Damaged, Row
from mgrpo_lightning.viewer.tokens import Decoder

Decoders = Mapping[str, Decoder | None]
"""Token decoder of each role; None if its tokenizer is not on this machine."""


def read_play(paths: Sequence[Path], damaged: Damaged) -> list[Group]:
    """Read the groups of a play, sorted by query; merge the files of several processes.

    In a decoupled run, several files contain the same trajectory. The file of the process that sampled it wins, because
    the others lack its tokens.

    Args:
        paths: The play's files from all ranks and roles; damaged files are skipped.
        damaged: Called with each damaged file and the problem.
    """
    groups: dict[int, Group] = {}
    for path in paths:
        try:
            found = read_groups(path)
        except DataError as error:
            damaged(path, error.message)
            continue
        for group in found:
            query = group.rollouts[0].main.key.query
            if query in groups:
                _join(groups[query], group)
            else:
                groups[query] = group
    return [groups[query] for query in sorted(groups)]


def _join(known: Group, other: Group) -> None:
    for mine, theirs in zip(known.rollouts, other.rollouts, strict=False):
        # `elsewhere` marks a copy without tokens; only trajectories that this process sampled may replace ours.
        played = {t.key: t for t in theirs.trajectories() if not t.elsewhere}
        mine.main = played.get(mine.main.key, mine.main)
        mine.subs = [played.get(sub.key, sub) for sub in mine.subs]
        mine.scores |= {
            key.invocation: theirs.scores[key.invocation] for key in played if key.invocation in theirs.scores
        }


def group_data(
    group: Group,
    extras: Mapping[Key, Row],
    decoders: Decoders,
    ratios: Mapping[Key, Sequence[float]],
    weighed: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Return one query's question and rollouts as JSON-ready data.

    Args:
        extras: Journal rows by key, with advantages and coefficients.
        decoders: Token decoder of each role.
        ratios: Log ratio of each sampled token, by key; only for trajectories that an update trained on.
        weighed: Names of each role's reward components, by role.
    """
    question = group.question
    return {
        "question": {
            "id": question.id,
            "text": question.text,
            "answers": list(question.answers),
            "level": question.level,
            "metadata": question.metadata,
        },
        "rollouts": [
            [_trajectory(question, rollout, t, extras, decoders, ratios, weighed) for t in rollout.trajectories()]
            for rollout in group.rollouts
        ],
    }


def _trajectory(
    question: Question,
    rollout: Rollout,
    t: Trajectory,
    extras: Mapping[Key, Row],
    decoders: Decoders,
    ratios: Mapping[Key, Sequence[float]],
    weighed: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    score = rollout.scores.get(t.key.invocation)
    versions = sorted({span.version for span in t.spans if span.kind == "action"})
    return {
        "role": t.role,
        "invocation": t.key.invocation,
        "parent": t.parent,
        "task": t.task,
        "answer": t.answer,
        "violations": t.violations,
        "temperature": t.temperature,
        "elsewhere": t.elsewhere,
        "advantage": _extra(extras, t, "advantage"),
        "coefficient": _extra(extras, t, "coefficient"),
        "versions": [] if versions == [t.key.step] else versions,
        "score": _score(score, weighed.get(t.role, COMPONENTS)),
        "reasons": reasons(question, t, score),
        "spans": _with_ratios(_spans(t, decoders.get(t.role)), ratios.get(t.key)),
        "calls": [_call(call) for call in t.calls],
    }


def reasons(question: Question, trajectory: Trajectory, score: Score | None) -> list[dict[str, Any]]:
    """Explain a trajectory's reward, as far as the record allows.

    Args:
        question: Question with its accepted answers and gold path.
        trajectory: Trajectory whose answer and calls are examined.
        score: Score that the task or its judge gave; None if there is none.

    Returns:
        One entry for each reason, with ``name``, ``holds`` (True, False, or None if undecided) and ``text``.
    """
    found = [{"name": "format", "holds": False, "text": rule} for rule in trajectory.violations]
    found = found or [{"name": "format", "holds": True, "text": "followed the protocol"}]
    if trajectory.parent is None:
        return [*found, _correct(question, trajectory, score)]
    return [*found, *_evidence(question, trajectory, score)]


def _correct(question: Question, trajectory: Trajectory, score: Score | None) -> dict[str, Any]:
    answer, golds = repr(trajectory.answer), " / ".join(question.answers)
    if score is not None and score.failed:
        return {"name": "correct", "holds": None, "text": f"{answer} is undecided; accepted: {golds}"}
    matches = bool(exact_match(trajectory.answer, question.answers))
    # The task may be stricter or milder than exact match, and a broken protocol rule makes any answer count 0.
    decided = score.correct if score is not None else float(matches)
    if bool(decided) == matches:
        text = f"{answer} {'matches' if matches else 'matches none of'} {golds}"
        return {"name": "correct", "holds": matches, "text": text}
    text = f"{answer} {'matches' if matches else 'does not match'} {golds}, scored {decided:g}"
    return {"name": "correct", "holds": bool(decided), "text": text}


def _evidence(question: Question, trajectory: Trajectory, score: Score | None) -> list[dict[str, Any]]:
    """Say which hops of the gold path a sub-agent found; empty if the score does not agree with that."""
    found = []
    for hop in question.evidence:
        visited = any(hop.url in map(str, call.arguments.values()) for call in trajectory.calls if not call.failed)
        reported = bool(exact_match(trajectory.answer, [hop.value]))
        if visited or reported:
            words = f"{'opened' if visited else 'did not open'} {hop.url} ({hop.section}), "
            words += f"{'reported' if reported else 'did not report'} {hop.value!r}"
            found.append({"name": "evidence", "holds": visited and reported, "text": words})
    if question.evidence and not found:
        found.append({"name": "evidence", "holds": False, "text": "opened no page of the gold path"})
    agrees = score is None or bool(score.expert) == any(one["holds"] for one in found)
    return found if agrees and trajectory.valid else []


def _score(score: Score | None, weighed: Sequence[str]) -> dict[str, Any] | None:
    if score is None:
        return None
    parts = {name: value for name in weighed if (value := score.part(name)) is not None}
    return {"total": score.total, "failed": score.failed, "parts": parts}


def _extra(extras: Mapping[Key, Row], t: Trajectory, name: str) -> float | None:
    value = extras.get(t.key, {}).get(name)
    return None if value is None else float(value)


def _spans(t: Trajectory, decoder: Decoder | None) -> list[dict[str, Any]]:
    """Return the spans with their texts. Without a tokenizer, the text is the message, and tokens have no own text."""
    if decoder is not None:
        return [_span(span, decoder) for span in t.spans]
    said = iter([m.content for m in t.messages if m.role == "assistant"])
    seen = iter(_between([(m.role == "assistant", m.content) for m in t.messages]))
    return [{**_facts(span), "text": next(said if span.kind == "action" else seen, "")} for span in t.spans]


def _with_ratios(spans: list[dict[str, Any]], ratios: Sequence[float] | None) -> list[dict[str, Any]]:
    """Add the log ratios of their tokens to the action spans, if an update has computed them."""
    place = 0  # offset in ratios, which holds action tokens only
    for span in spans:
        if span["action"]:
            if ratios is not None:
                span["ratios"] = [_rounded(value) for value in ratios[place : place + span["count"]]]
            place += span["count"]
    return spans


def _rounded(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None  # JSON has no NaN and no infinity


def _between(messages: Sequence[tuple[bool, str]]) -> list[str]:
    """Join the messages before each assistant turn; the last entry is the text after the last turn."""
    texts, current = [], list[str]()
    for is_action, content in messages:
        if is_action:
            texts.append("\n\n".join(current))
            current = []
        else:
            current.append(content)
    return [*texts, "\n\n".join(current)]


def _span(span: Span, decoder: Decoder) -> dict[str, Any]:
    if span.kind == "observation":
        return {**_facts(span), "text": decoder.text(span.ids)}
    return {**_facts(span), "tokens": decoder.pieces(span.ids)}


def _facts(span: Span) -> dict[str, Any]:
    if span.kind == "observation":
        return {"action": False, "count": len(span.ids)}
    logprobs = [_rounded(value) for value in span.logprobs]
    return {
        "action": True,
        "count": len(span.ids),
        "version": span.version,
        "truncated": span.truncated,
        "logprobs": logprobs,
    }


def _call(call: Call) -> dict[str, Any]:
    return {
        "turn": call.turn,
        "name": call.name,
        "arguments": call.arguments,
        "result": call.result,
        "failed": call.failed,
        "invocation": call.invocation,
        "seconds": round(call.seconds, 4),
    }
