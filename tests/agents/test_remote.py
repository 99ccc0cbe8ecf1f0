"""Roles in processes of their own, here threads on one store: the turns, batches and outcomes of one process."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from mgrpo_lightning.agents.play import PlayRequest
from mgrpo_lightning.agents.players import Players
from mgrpo_lightning.agents.scoring import score_groups, undecided
from mgrpo_lightning.data.outcomes import take_outcomes, tell_outcomes
from mgrpo_lightning.errors import DataError, MgrpoError
from mgrpo_lightning.persistence.resume_log import ResumeLog
from mgrpo_lightning.policy.sampling.scheduler import Scheduler
from mgrpo_lightning.protocol.actions import Action, HermesDialect, ToolCall
from mgrpo_lightning.records.trajectory import Group, Key, Score
from mgrpo_lightning.roles.config import RoleConfig
from mgrpo_lightning.store.exchange import Exchange, PeerLost
from mgrpo_lightning.store.record import Record
from mgrpo_lightning.store.tail import Tail
from mgrpo_lightning.store.writer import StoreWriter
from mgrpo_lightning.tools.base import Tool
from tests.agents.fakes import FakeChat, FakeTask, FakeTool, answer, call, duo, question
from tests.agents.test_rounds import FakeEngine

QUESTIONS = [question("One?"), question("Two?")]


def main(task: str, results: int) -> str:
    both = (
        ToolCall("editor", {"task": "x"}),
        ToolCall("searcher", {"task": f"{task} a"}),
        ToolCall("search", {"query": "m"}),
    )
    if results == 0:
        return HermesDialect().render(Action(calls=both))
    return call("searcher", task=f"{task} b") if results == 3 else answer("done")


def worker(task: str, results: int) -> str:
    if task.endswith("b"):
        return "no protocol at all"
    return call("search", query=task) if results == 0 else answer(f"report on {task}")


def team_roles() -> dict[str, RoleConfig]:
    roles = duo()
    return {
        "main": replace(roles["main"], calls=["editor", "searcher"], tools=["search"]),
        "editor": replace(roles["searcher"], system_prompt="edit"),
        "searcher": roles["searcher"],
    }


def play(
    local: Sequence[str],
    store: Path | None,
    *,
    schedule: Any,
    seed: int = 0,
    score: bool = True,
    resume_log: ResumeLog | None = None,
    lost_after: float = 20,
) -> tuple[list[Group], dict[str, list[list[tuple[int, ...]]]]]:
    """One process's part of a play, scored."""
    rng = random.Random(seed)

    async def run(query: str) -> str:
        await asyncio.sleep(rng.choice([0, 0, 0.001, 0.003]))
        return f"page of {query}"

    roles = team_roles()
    scheduler = Scheduler(schedule)
    engines = {role: FakeEngine(role, scheduler, main if role == "main" else worker) for role in local}
    peers = [role for role in roles if role not in local]
    exchange = Exchange(store, local[0], peers=peers, lost_after=lost_after) if store else None
    chats = cast("Any", {role: FakeChat() for role in local})
    tools = {"search": cast("Tool", FakeTool(run))}
    team = Players(roles, chats, cast("Any", engines), tools, scheduler=scheduler, seed=0, exchange=exchange)
    try:
        result = team.play(PlayRequest(QUESTIONS, step=3, rollouts=2, resume_log=resume_log))
        groups = result.groups
        if exchange and "main" not in local:
            take_outcomes(exchange, groups, result.delegations, main="main", stage="train")
        if score:
            score_groups(groups, FakeTask(), roles)
        if exchange and "main" in local:
            tell_outcomes(exchange, groups, result.delegations, stage="train")
    except BaseException as error:
        if exchange:
            exchange.close(error)
        raise
    if exchange:
        exchange.close()
    return groups, {role: engine.batches for role, engine in engines.items()}


def played(groups: Sequence[Group], roles: Sequence[str]) -> dict[Key, tuple[Any, ...]]:
    return {
        t.key: (
            t.role,
            t.task,
            t.parent,
            [span.ids for span in t.spans],
            t.answer,
            t.violations,
            rollout.scores[t.key.invocation],
        )
        for group in groups
        for rollout in group.rollouts
        for t in rollout.trajectories()
        if t.role in roles
    }


@pytest.mark.parametrize("schedule", ["rounds", "eager"])
@pytest.mark.parametrize("apart", [["searcher"], ["editor"]])
def test_what_is_played_apart_is_what_one_process_plays(tmp_path: Path, schedule: Any, apart: list[str]) -> None:
    """Reports, failed ones too, scores, and under `rounds` every batch."""
    here = [role for role in team_roles() if role not in apart]
    groups, batches = play(list(team_roles()), None, schedule=schedule)
    with ThreadPoolExecutor(2) as pool:
        parts = [
            pool.submit(play, roles, tmp_path / "store", schedule=schedule, seed=seed)
            for seed, roles in enumerate((here, apart), 1)
        ]
        found = [part.result() for part in parts]
    for roles, (others, other_batches) in zip((here, apart), found, strict=True):
        if "main" in roles or schedule == "rounds":
            assert played(others, roles) == played(groups, roles)
        if schedule == "rounds":
            assert other_batches == {role: batches[role] for role in roles}


@pytest.mark.parametrize("schedule", ["rounds", "eager"])
def test_one_that_is_restarted_when_main_is_over_plays_its_whole_part_again(tmp_path: Path, schedule: Any) -> None:
    with ThreadPoolExecutor(2) as pool:
        main = pool.submit(play, ["main", "editor"], tmp_path / "store", schedule=schedule)
        groups, batches = pool.submit(play, ["searcher"], tmp_path / "store", schedule=schedule).result()
        main.result()
    again, same_batches = play(["searcher"], tmp_path / "store", schedule=schedule)
    assert played(again, ["searcher"]).keys() == played(groups, ["searcher"]).keys()
    if schedule == "rounds":
        assert played(again, ["searcher"]) == played(groups, ["searcher"])
        assert same_batches == batches


def test_three_processes_meet_too(tmp_path: Path) -> None:
    groups, batches = play(list(team_roles()), None, schedule="rounds")
    with ThreadPoolExecutor(3) as pool:
        parts = {role: pool.submit(play, [role], tmp_path / "store", schedule="rounds") for role in team_roles()}
        for role, part in parts.items():
            others, other_batches = part.result()
            assert played(others, [role]) == played(groups, [role])
            assert other_batches == {role: batches[role]}


def test_a_second_play_finds_everything_in_the_store(tmp_path: Path) -> None:
    """A killed main plays again after the others have gone on: nothing is said twice, nobody is needed."""
    root = tmp_path / "store"
    with ThreadPoolExecutor(2) as pool:
        parts = [pool.submit(play, roles, root, schedule="rounds") for roles in (["main", "editor"], ["searcher"])]
        (first, _), _ = (part.result() for part in parts)
    before = {entry.record for entry in Tail(root).poll() if entry.record.kind != "members"}
    again, _ = play(["main", "editor"], root, schedule="rounds")
    assert played(again, ["main", "editor"]) == played(first, ["main", "editor"])
    assert {entry.record for entry in Tail(root).poll() if entry.record.kind != "members"} == before


def test_no_outcome_meets_a_trajectory_of_other_words(tmp_path: Path) -> None:
    """Main was killed between a call and the end of its step, and says something else at the same place."""
    root = tmp_path / "store"
    old = Record("delegations", "train", Key(3, 0, 0, 2), "searcher", text="old words", parent=0)
    StoreWriter(root, "main").publish([old])
    report = Record("returns", "train", old.key, "searcher", of=old.hash, text="an old report", failed=False)
    StoreWriter(root, "searcher").publish([report])
    with ThreadPoolExecutor(2) as pool:
        parts = [pool.submit(play, roles, root, schedule="eager") for roles in (["main", "editor"], ["searcher"])]
        (mains, _), (searchers, _) = (part.result() for part in parts)
    texts = [c.result for group in mains for rollout in group.rollouts for c in rollout.main.calls]
    assert "an old report" not in texts
    tasks = {sub.key: sub.task for group in searchers for rollout in group.rollouts for sub in rollout.subs}
    assert tasks[old.key] == "One? a"
    frontier = next(e.record for e in Tail(root).poll() if e.record.event == "step")
    new = next(c for c in frontier.calls or () if (c.query, c.rollout, c.invocation) == (0, 0, 2))
    assert new.hash != old.hash


@pytest.mark.parametrize("schedule", ["rounds", "eager"])
def test_other_words_for_a_role_that_has_gone_on_are_an_error(tmp_path: Path, schedule: Any) -> None:
    """Nobody would answer: main was resumed behind a play whose words are lost."""
    root = tmp_path / "store"
    ahead = Exchange(root, "searcher", peers=[])
    over = Record("frontiers", "train", Key(3, 0, -1, -1), "searcher", event="play")
    ahead.say([over])
    ahead.at(stage="train", step=4)
    give_up = time.monotonic() + 20
    while not (root / "writers/searcher-0/000001/alive.json").read_text().count('"train"'):
        assert time.monotonic() < give_up
        time.sleep(0.05)
    with pytest.raises(DataError, match=r"'searcher' has finished train step 3 .* 'One\? a'.*HINT: .* of step 3"):
        play(["main", "editor"], root, schedule=schedule, lost_after=4)
    ahead.close()


def test_nothing_is_said_that_a_crash_of_the_machine_could_make_forgotten(tmp_path: Path) -> None:
    class Unwritten(ResumeLog):
        def sync(self) -> None:
            raise MgrpoError("no space left.")

    resume_log = Unwritten(tmp_path / "open", "")
    with pytest.raises(MgrpoError, match="no space left"):
        play(["main", "editor"], tmp_path / "store", schedule="eager", resume_log=resume_log)
    resume_log.close()
    assert {entry.record.kind for entry in Tail(tmp_path / "store").poll()} == {"members"}


def test_trajectories_of_superseded_calls_leave_their_group(tmp_path: Path) -> None:
    root = tmp_path / "store"
    main_end, sub_end = Exchange(root, "main", peers=[]), Exchange(root, "searcher", peers=[])
    groups, _ = play(list(team_roles()), None, schedule="rounds")
    sent = {t.key: f"hash of {t.key}" for g in groups for r in g.rollouts for t in r.trajectories("searcher")}
    tell_outcomes(main_end, groups, sent, stage="train")
    served = dict(sent)
    gone = next(iter(served))
    served[gone] = "of other words"
    for group in groups:
        for rollout in group.rollouts:
            rollout.subs = list(rollout.trajectories("searcher"))
    take_outcomes(sub_end, groups, served, main="main", stage="train")
    kept = {sub.key for group in groups for rollout in group.rollouts for sub in rollout.subs}
    assert kept == set(sent) - {gone}
    main_end.close()
    sub_end.close()


def test_a_main_that_could_not_be_decided_is_none_elsewhere_either(tmp_path: Path) -> None:
    root = tmp_path / "store"
    main_end, sub_end = Exchange(root, "main", peers=[]), Exchange(root, "searcher", peers=[])
    groups, _ = play(list(team_roles()), None, schedule="rounds")
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    interrupted, wrong, unrewarded = rollouts[:3]
    for rollout, rule in ((interrupted, "interrupted"), (wrong, "truncated")):
        rollout.main.violations = [rule]
        rollout.scores[0] = Score(0.0, failed=rollout is interrupted)
    unrewarded.scores[0] = Score(1.0, correct=1.0, failed=True, functions={"mine": None})
    tell_outcomes(main_end, groups, {}, stage="train")
    for rollout in rollouts:
        rollout.main.violations = []  # as where another process plays main
        rollout.scores.clear()
    take_outcomes(sub_end, groups, {}, main="main", stage="train")
    assert [rollout for rollout in rollouts if undecided(rollout)] == [interrupted]
    assert wrong.scores[0] == Score(0.0)
    assert unrewarded.scores[0] == Score(1.0, correct=1.0), "only main itself needs its reward functions"
    main_end.close()
    sub_end.close()


def test_a_peer_that_fails_is_named(tmp_path: Path) -> None:
    root = tmp_path / "store"
    gone = Exchange(root, "searcher", peers=[])
    failing = threading.Timer(0.2, gone.close, [MgrpoError("no space left on the disk.")])
    failing.start()
    with pytest.raises(PeerLost, match=r"role 'searcher' failed \(.*MgrpoError: no space left on the disk\.\) while"):
        play(["main", "editor"], root, schedule="rounds")
    failing.join()
    (last,) = [e.record for e in Tail(root).poll() if e.writer == "main-0" and e.record.event in ("end", "fail")]
    assert last.event == "fail"
