"""Outcomes: what main's process tells the others when a play is scored, and what they make of it.

The frontier of a play lists every call that counts, with the hash of its delegation. A sub-agent's process trains on
exactly these: a trajectory that was played for another wording of a call never meets an outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mgrpo_lightning.agents.scoring import undecided
from mgrpo_lightning.protocol.actions import Violation
from mgrpo_lightning.records.trajectory import Group, Key, Rollout, Score
from mgrpo_lightning.store.exchange import Exchange
from mgrpo_lightning.store.record import Closed, Record


def tell_outcomes(exchange: Exchange, groups: Sequence[Group], sent: Mapping[Key, str], *, stage: str) -> None:
    """Publish how every rollout of a play was scored, and close it.

    Args:
        exchange: Main's end of the store.
        groups: Scored.
        sent: Hash of each delegation of the play.
        stage: What was played for.
    """
    first = groups[0].rollouts[0].main.key
    records = [_outcome(exchange.role, stage, rollout) for group in groups for rollout in group.rollouts]
    calls = tuple(Closed(key.query, key.rollout, key.invocation, found) for key, found in sorted(sent.items()))
    records.append(
        Record("frontiers", stage, Key(first.step, first.query, -1, -1), exchange.role, event="step", calls=calls)
    )
    exchange.say(records)


def take_outcomes(
    exchange: Exchange, groups: Sequence[Group], served: Mapping[Key, str], *, main: str, stage: str
) -> None:
    """Wait until a play is closed; fill in main's scores, and drop the trajectories that do not count.

    Args:
        exchange: A sub-agent's end of the store.
        groups: With the trajectories that were played here.
        served: Hash of the delegation of each.
        main: Main's name.
        stage: What was played for.
    """
    first = groups[0].rollouts[0].main.key
    place = Key(first.step, first.query, -1, -1)

    def closed() -> Record | None:
        frontiers = exchange.ledger.find("frontiers", stage, first.step)
        return next((one for one in frontiers if one.key == place and one.event == "step" and one.role == main), None)

    frontier = exchange.until(closed, f"the outcomes of {stage} step {first.step}")
    counting = {(call.query, call.rollout, call.invocation): call.hash for call in frontier.calls or ()}
    outcomes = {record.key: record for record in exchange.ledger.find("outcomes", stage, first.step)}
    for group in groups:
        for rollout in group.rollouts:
            outcome = outcomes[rollout.main.key]
            rollout.main.answer = outcome.text
            rollout.scores[0] = Score(
                float(bool(outcome.valid)), correct=outcome.correct or 0.0, failed=bool(outcome.failed)
            )
            if outcome.correct is None and not outcome.valid:  # of no judge's doing
                rollout.main.violations = [Violation.INTERRUPTED.value]
            rollout.subs = [sub for sub in rollout.subs if counting.get(sub.key[1:]) == served.get(sub.key)]


def _outcome(role: str, stage: str, rollout: Rollout) -> Record:
    main, score = rollout.main, rollout.scores[0]
    correct = None if undecided(rollout) else score.correct
    valid, failed = score.format > 0, score.failed
    return Record("outcomes", stage, main.key, role, text=main.answer, correct=correct, valid=valid, failed=failed)
