"""Send main's scores and the list of calls that count through the store; apply them in the sub-agents' processes.

For each step, main publishes a frontier record. It lists every call that counts, with the hash of its delegation. A
sub-agent's process trains on exactly these calls. So a trajectory that answered another wording of a call never gets a
reward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mgrpo_lightning.agents.scoring import undecided
from mgrpo_lightning.protocol.actions import Violation
from mgrpo_lightning.records.trajectory import Group, Key, Rollout, Score
from mgrpo_lightning.store.exchange import Exchange
from mgrpo_lightning.store.record import Closed, Record


def tell_outcomes(exchange: Exchange, groups: Sequence[Group], delegations: Mapping[Key, str], *, stage: str) -> None:
    """Publish the score of every rollout, then the frontier that closes the step.

    Args:
        exchange: Main's end of the store.
        delegations: Hash of each delegation that main sent, by key.
        stage: train, validate or predict.
    """
    first = groups[0].rollouts[0].main.key
    records = [_outcome(exchange.role, stage, rollout) for group in groups for rollout in group.rollouts]
    calls = tuple(Closed(key.query, key.rollout, key.invocation, found) for key, found in sorted(delegations.items()))
    records.append(
        Record("frontiers", stage, Key(first.step, first.query, -1, -1), exchange.role, event="step", calls=calls)
    )
    exchange.say(records)


def take_outcomes(
    exchange: Exchange, groups: Sequence[Group], delegations: Mapping[Key, str], *, main: str, stage: str
) -> None:
    """Wait for main's frontier, fill in main's scores, and drop trajectories that do not count.

    Args:
        exchange: A sub-agent's end of the store.
        groups: Groups with the trajectories that this process played; updated in place.
        delegations: Hash of the delegation behind each of these trajectories, by key.
        stage: train, validate or predict.
    """
    first = groups[0].rollouts[0].main.key
    place = Key(first.step, first.query, -1, -1)

    def closed() -> Record | None:
        frontiers = exchange.ledger.find("frontiers", stage, first.step)
        return next((one for one in frontiers if one.key == place and one.event == "step" and one.role == main), None)

    frontier = exchange.until(closed, f"the outcomes of {stage} step {first.step}")
    # The frontier is published last by the same writer, so every outcome of the step has arrived before it.
    counting = {(call.query, call.rollout, call.invocation): call.hash for call in frontier.calls or ()}
    outcomes = {record.key: record for record in exchange.ledger.find("outcomes", stage, first.step)}
    for group in groups:
        for rollout in group.rollouts:
            outcome = outcomes[rollout.main.key]
            rollout.main.answer = outcome.text
            rollout.scores[0] = Score(
                float(bool(outcome.valid)), correct=outcome.correct or 0.0, failed=bool(outcome.failed)
            )
            if outcome.correct is None and not outcome.valid:  # main was interrupted: no judge was asked
                rollout.main.violations = [Violation.INTERRUPTED.value]
            # Equal hashes: main used the report of exactly this delegation, not of an earlier wording before a restart.
            rollout.subs = [sub for sub in rollout.subs if counting.get(sub.key[1:]) == delegations.get(sub.key)]


def _outcome(role: str, stage: str, rollout: Rollout) -> Record:
    main, score = rollout.main, rollout.scores[0]
    correct = None if undecided(rollout) else score.correct
    valid = score.format > 0
    # If only a reward function of main is undecided, the other roles can be rewarded.
    failed = score.failed and not (valid and correct is not None)
    return Record("outcomes", stage, main.key, role, text=main.answer, correct=correct, valid=valid, failed=failed)
