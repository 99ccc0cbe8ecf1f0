"""Everything about the K rollouts of one query: trees, tokens, scores and what decided them, as the page takes it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.records.journal import read_groups
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Call, Group, Key, Rollout, Score, Span, Trajectory
from mgrpo_lightning.tasks.scoring import exact_match
from mgrpo_lightning.viewer.rows import Damaged, Row
from mgrpo_lightning.viewer.sources import COMPONENTS
from mgrpo_lightning.viewer.tokens import Decoder

Decoders = Mapping[str, Decoder | None]
"""By role."""


def read_play(paths: Sequence[Path], damaged: Damaged) -> list[Group]:
    """The groups of a play; trajectories that several processes have written are taken from who played them.

    Args:
        paths: The play's files, of ranks and roles; what is damaged is left out.
        damaged: Told of those that are damaged.
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
    """One query.

    Args:
        group: Its rollouts.
        extras: The journal's rows, with advantages and coefficients.
        decoders: By role.
        ratios: Log ratios of the sampled ids of trajectories that moved an adapter.
        weighed: The components of each role's reward.
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
    """What decided a trajectory's reward, as far as the record says: each a thing, whether it holds, and the words.

    Args:
        question: With accepted answers and the gold path.
        trajectory: Whose answer and calls are looked at.
        score: What the task, or its judge, made of them.
    """
    found = [{"name": "format", "holds": False, "text": rule} for rule in trajectory.violations]
    found = found or [{"name": "format", "holds": True, "text": "followed the protocol"}]
    if trajectory.parent is None:
        return [*found, _correct(question, trajectory, score)]
    return [*found, *_evidence(question, trajectory, score)]


def _correct(question: Question, trajectory: Trajectory, score: Score | None) -> dict[str, Any]:
    answer, golds = repr(trajectory.answer), " / ".join(question.answers)
    if score is not None and score.failed:
        return {"name": "correct", "holds": None, "text": f"{answer} could not be decided, beside {golds}"}
    matches = bool(exact_match(trajectory.answer, question.answers))
    # a task may be stricter or milder than a match, and a broken rule makes any answer count nothing
    decided = score.correct if score is not None else float(matches)
    if bool(decided) == matches:
        text = f"{answer} {'matches' if matches else 'is none of'} {golds}"
        return {"name": "correct", "holds": matches, "text": text}
    text = f"{answer} {'matches' if matches else 'does not match'} {golds}, and counts {decided:g}"
    return {"name": "correct", "holds": bool(decided), "text": text}


def _evidence(question: Question, trajectory: Trajectory, score: Score | None) -> list[dict[str, Any]]:
    """What a sub-agent found of the gold path; nothing where that is not what decided."""
    found = []
    for hop in question.evidence:
        visited = any(hop.url in map(str, call.arguments.values()) for call in trajectory.calls if not call.failed)
        reported = bool(exact_match(trajectory.answer, [hop.value]))
        if visited or reported:
            words = f"{'opened' if visited else 'did not open'} {hop.url} ({hop.section}), "
            words += f"{'reported' if reported else 'did not report'} {hop.value!r}"
            found.append({"name": "evidence", "holds": visited and reported, "text": words})
    if question.evidence and not found:
        found.append({"name": "evidence", "holds": False, "text": "no page of the gold path was opened"})
    agrees = score is None or bool(score.expert) == any(one["holds"] for one in found)
    return found if agrees and trajectory.valid else []


def _score(score: Score | None, weighed: Sequence[str]) -> dict[str, Any] | None:
    if score is None:
        return None
    return {"total": score.total, "failed": score.failed, "parts": {name: getattr(score, name) for name in weighed}}


def _extra(extras: Mapping[Key, Row], t: Trajectory, name: str) -> float | None:
    value = extras.get(t.key, {}).get(name)
    return None if value is None else float(value)


def _spans(t: Trajectory, decoder: Decoder | None) -> list[dict[str, Any]]:
    """The spans with their texts; without a tokenizer the messages stand in for them, and no token has a text."""
    if decoder is not None:
        return [_span(span, decoder) for span in t.spans]
    said = iter([m.content for m in t.messages if m.role == "assistant"])
    seen = iter(_between([(m.role == "assistant", m.content) for m in t.messages]))
    return [{**_facts(span), "text": next(said if span.kind == "action" else seen, "")} for span in t.spans]


def _with_ratios(spans: list[dict[str, Any]], ratios: Sequence[float] | None) -> list[dict[str, Any]]:
    """The spans with the log ratios of their ids, where an update has computed them."""
    place = 0
    for span in spans:
        if span["action"]:
            if ratios is not None:
                span["ratios"] = [_rounded(value) for value in ratios[place : place + span["count"]]]
            place += span["count"]
    return spans


def _rounded(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def _between(messages: Sequence[tuple[bool, str]]) -> list[str]:
    """What stands before each turn."""
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
