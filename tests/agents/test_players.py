"""Main and sub-agents together: delegation, numbering, failure, scripts, random streams."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from mgrpo_lightning.agents.play import PlayRequest, Scripts
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.protocol.actions import Action, HermesDialect, ToolCall, Violation
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Message, Rollout
from mgrpo_lightning.roles.config import RoleConfig
from tests.agents.fakes import FakeTool, Speak, answer, call, duo, echo, limits, make_team, question


def delegate(role: str, *tasks: str) -> str:
    return HermesDialect().render(Action(calls=tuple(ToolCall(role, {"task": task}) for task in tasks)))


def main_asks(*tasks: str) -> Speak:
    return lambda _, turn, __: delegate("searcher", *tasks) if turn == 0 else answer("done")


def searcher(task: str, turn: int, order: tuple[int, ...]) -> str:
    return call("search", query=task) if turn == 0 else answer(f"report on {task}")


def play_one(speakers: Mapping[str, Speak], roles: Mapping[str, RoleConfig] | None = None, **options: Any) -> Rollout:
    team, _ = make_team(roles or duo(), speakers, **options)
    (group,) = team.play(PlayRequest([question()], step=0, rollouts=1)).groups
    return group.rollouts[0]


def shown(rollout: Rollout, invocation: int = 0) -> list[str]:
    trajectory = (rollout.main, *rollout.subs)[invocation]
    return [message.content for message in trajectory.messages if message.role == "tool"]


def test_a_delegation_makes_a_sub_trajectory_and_shows_its_report_only() -> None:
    rollout = play_one({"main": main_asks("peak of France"), "searcher": searcher})
    (sub,) = rollout.subs
    assert (sub.role, sub.task, sub.key, sub.parent) == ("searcher", "peak of France", (0, 0, 0, 1), 0)
    assert shown(rollout) == ["report on peak of France"]
    assert shown(rollout, 1) == ["page of peak of France"]
    assert [(c.name, c.invocation, c.failed) for c in rollout.main.calls] == [("searcher", 1, False)]
    assert rollout.main.parent is None
    assert rollout.main.valid
    assert sub.valid


def test_groups_keep_the_order_of_questions_and_rollouts() -> None:
    team, samplers = make_team(duo(), {"main": main_asks("a", "b"), "searcher": searcher})
    done: list[int] = []
    asked = [question("One?"), question("Two?")]
    groups = team.play(PlayRequest(asked, step=5, rollouts=3, first_query=64), on_done=lambda: done.append(1)).groups
    assert [group.question for group in groups] == asked
    keys = [[t.key for t in rollout.trajectories()] for group in groups for rollout in group.rollouts]
    assert keys == [[(5, q, k, i) for i in range(3)] for q in (64, 65) for k in range(3)]
    assert [r.main.task for g in groups for r in g.rollouts] == ["One?"] * 3 + ["Two?"] * 3
    assert len(done) == 6
    assert all(conversation.closed for sampler in samplers.values() for conversation in sampler.opened)


def test_a_group_opens_its_prompt_once_and_every_conversation_has_its_place() -> None:
    team, samplers = make_team(duo(), {"main": main_asks("a", "b"), "searcher": searcher})
    team.play(PlayRequest([question(), question()], step=0, rollouts=2))
    assert samplers["main"].prompts == [(0,), (1,)]
    assert [c.order for c in samplers["main"].opened] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert sorted(c.order for c in samplers["searcher"].opened) == [
        (q, k, i) for q in (0, 1) for k in (0, 1) for i in (1, 2)
    ]


def test_sub_agents_of_one_turn_play_at_the_same_time() -> None:
    started: list[str] = []

    async def run(query: str) -> str:
        started.append(query)
        while len(started) < 2:  # each waits for the other
            await asyncio.sleep(0)
        return query

    rollout = play_one({"main": main_asks("a", "b"), "searcher": searcher}, tools={"search": FakeTool(run)})
    assert shown(rollout) == ["report on a", "report on b"]


@pytest.mark.parametrize("seed", range(5))
def test_invocations_are_numbered_by_call_whatever_the_tools_delays(seed: int) -> None:
    rng = random.Random(seed)

    async def run(query: str) -> str:
        await asyncio.sleep(rng.random() / 200)
        return await echo(query)

    def main(task: str, turn: int, order: tuple[int, ...]) -> str:
        return [delegate("searcher", "a", "b", "c"), delegate("searcher", "d", "e"), answer("done")][turn]

    rollout = play_one(
        {"main": main, "searcher": searcher}, tools={"search": FakeTool(run)}, delay=lambda: rng.random() / 200
    )
    assert [(t.key.invocation, t.task) for t in rollout.subs] == list(enumerate("abcde", 1))
    assert [c.invocation for c in rollout.main.calls] == [1, 2, 3, 4, 5]
    assert shown(rollout) == [f"report on {task}" for task in "abcde"]


def trio() -> dict[str, RoleConfig]:
    roles = duo()
    return {
        "main": replace(roles["main"], calls=["editor", "searcher"]),
        "editor": replace(roles["main"], system_prompt="edit"),
        "searcher": roles["searcher"],
    }


def test_a_sub_agent_may_call_other_roles() -> None:
    def main(task: str, turn: int, order: tuple[int, ...]) -> str:
        calls = (ToolCall("editor", {"task": "x"}), ToolCall("searcher", {"task": "y"}))
        return HermesDialect().render(Action(calls=calls)) if turn == 0 else answer("done")

    def editor(task: str, turn: int, order: tuple[int, ...]) -> str:
        return delegate("searcher", f"{task}1", f"{task}2") if turn == 0 else answer(f"edited {task}")

    rollout = play_one({"main": main, "editor": editor, "searcher": searcher}, trio())
    assert [(t.key.invocation, t.role, t.task, t.parent) for t in rollout.subs] == [
        (1, "editor", "x", 0),
        (2, "searcher", "y", 0),
        (3, "searcher", "x1", 1),
        (4, "searcher", "x2", 1),
    ]
    assert shown(rollout) == ["edited x", "report on y"]
    assert shown(rollout, 1) == ["report on x1", "report on x2"]


def test_tools_and_delegations_mix_in_one_turn() -> None:
    roles = duo()
    roles["main"] = replace(roles["main"], tools=["search"])
    calls = (ToolCall("searcher", {"task": "a"}), ToolCall("search", {"query": "b"}))
    text = HermesDialect().render(Action(calls=calls))
    rollout = play_one({"main": lambda _, turn, __: text if turn == 0 else answer("x"), "searcher": searcher}, roles)
    assert shown(rollout) == ["report on a", "page of b"]
    assert [c.invocation for c in rollout.main.calls] == [1, None]


@pytest.mark.parametrize("arguments", [{}, {"task": 3}, {"task": "a", "to": "b"}, {"query": "a"}])
def test_a_delegation_with_wrong_arguments_starts_nobody(arguments: dict[str, object]) -> None:
    rollout = play_one(
        {"main": lambda _, turn, __: call("searcher", **arguments) if turn == 0 else answer("x"), "searcher": searcher}
    )
    assert not rollout.subs
    assert [c.failed for c in rollout.main.calls] == [True]
    assert rollout.main.valid


def test_a_sub_agent_without_an_answer_is_a_failed_call() -> None:
    speakers = {"main": main_asks("a", "b"), "searcher": lambda task, turn, order: "?" if task == "a" else answer("B")}
    rollout = play_one(speakers)
    assert shown(rollout) == ["error: searcher gave no answer.", "B"]
    assert [c.failed for c in rollout.main.calls] == [True, False]
    assert rollout.main.valid
    assert [sub.valid for sub in rollout.subs] == [False, True]


def test_an_engine_that_fails_under_a_sub_agent_costs_that_call_only() -> None:
    def speak(task: str, turn: int, order: tuple[int, ...]) -> str:
        if task == "a" and turn == 1:
            raise ConnectionResetError("engine gone")
        return searcher(task, turn, order)

    rollout = play_one({"main": main_asks("a", "b"), "searcher": speak})
    assert shown(rollout) == ["error: engine gone", "report on b"]
    assert rollout.subs[0].violations == [Violation.INTERRUPTED]
    assert rollout.subs[0].num_turns == 1, "what was sampled is kept"
    assert rollout.subs[1].valid


@pytest.mark.parametrize("error", [AssertionError, TypeError])
def test_a_bug_under_a_sub_agent_ends_the_run(error: type[Exception]) -> None:
    def speak(task: str, turn: int, order: tuple[int, ...]) -> str:
        raise error("a bug")

    with pytest.raises(error, match="a bug"):
        play_one({"main": main_asks("a", "b"), "searcher": speak})


def streams_of(*, seed: int = 0, step: int = 0, stage: Any = "train") -> dict[tuple[str, tuple[int, ...]], list[int]]:
    team, samplers = make_team(duo(), {"main": main_asks("a", "b"), "searcher": searcher}, seed=seed)
    team.play(PlayRequest([question(), question()], step=step, rollouts=2, stage=stage))
    return {(role, c.order): c.streams for role, sampler in samplers.items() for c in sampler.opened}


def test_every_turn_has_a_random_stream_of_its_own_that_a_rerun_repeats() -> None:
    first = streams_of()
    turns = [stream for streams in first.values() for stream in streams]
    assert len(set(turns)) == len(turns) == 2 * 2 * (2 + 2 * 2)
    assert streams_of() == first
    others = (streams_of(seed=1), streams_of(step=1), streams_of(stage="validate"))
    assert not any(set(turns) & {s for streams in other.values() for s in streams} for other in others)


@pytest.mark.parametrize(("override", "used"), [(None, 0.7), (0.0, 0.0), (1.3, 1.3)])
def test_the_temperature_is_the_roles_own_unless_overridden(override: float | None, used: float) -> None:
    roles = duo()
    roles = {name: replace(role, sampling=replace(role.sampling, temperature=0.7)) for name, role in roles.items()}
    team, samplers = make_team(roles, {"main": main_asks("a"), "searcher": searcher})
    (group,) = team.play(PlayRequest([question()], step=0, rollouts=1, temperature=override)).groups
    assert {t.temperature for t in group.rollouts[0].trajectories()} == {used}
    assert {p.temperature for s in samplers.values() for c in s.opened for p in c.params} == {used}


def test_each_action_keeps_the_version_that_sampled_it() -> None:
    team, samplers = make_team(duo(), {"main": main_asks("a"), "searcher": searcher})
    samplers["main"].version, samplers["searcher"].version = 4, 9
    rollout = team.play(PlayRequest([question()], step=0, rollouts=1)).groups[0].rollouts[0]
    versions = [{s.version for s in t.spans if s.kind == "action"} for t in rollout.trajectories()]
    assert versions == [{4}, {9}]


class Recital:
    """A script that says what a ``Speak`` says."""

    def __init__(self, speak: Speak, task: str) -> None:
        self.speak, self.task = speak, task

    def reply(self, messages: Sequence[Message]) -> str:
        return self.speak(self.task, sum(message.role == "assistant" for message in messages), ())


def scripts(speakers: Mapping[str, Speak]) -> Scripts:
    return lambda question, role, subtask, seed, *, callees: Recital(speakers[role], subtask)


LONG = "x" * 500
RECITALS: list[dict[str, Speak]] = [
    {"main": main_asks("a", "b"), "searcher": searcher},
    {"main": main_asks("a"), "searcher": lambda task, turn, order: "no action"},
    {"main": main_asks("a"), "searcher": lambda task, turn, order: LONG},
    {"main": main_asks("a"), "searcher": lambda task, turn, order: call("search", query="q")},
]


@pytest.mark.parametrize("speakers", RECITALS, ids=["good", "invalid", "too long", "never answers"])
def test_a_scripted_play_is_a_sampled_one_with_log_probabilities_zero(speakers: dict[str, Speak]) -> None:
    sampled = play_one(speakers)
    team, samplers = make_team(duo(), speakers)
    scripted = team.play(PlayRequest([question()], step=0, rollouts=1, script=scripts(speakers))).groups[0].rollouts[0]
    assert not any(sampler.opened for sampler in samplers.values())
    for one, other in zip(scripted.trajectories(), sampled.trajectories(), strict=True):
        (said,), (heard,) = one.segments, other.segments
        assert (said.ids, said.action_mask, one.messages) == (heard.ids, heard.action_mask, other.messages)
        assert (one.violations, one.answer, one.truncated) == (other.violations, other.answer, other.truncated)
        assert not any(said.logprobs)
        assert any(heard.logprobs)


def test_scripts_get_a_seed_of_their_own_for_every_trajectory() -> None:
    seeds: list[int] = []

    def script(question: Question, role: str, subtask: str, seed: int, *, callees: Sequence[str]) -> Recital:
        seeds.append(seed)
        return Recital({"main": main_asks("a"), "searcher": searcher}[role], subtask)

    team, _ = make_team(duo(), {})
    team.play(PlayRequest([question(), question()], step=0, rollouts=2, script=script))
    assert len(set(seeds)) == len(seeds) == 8


def test_a_task_that_cannot_demonstrate_is_told() -> None:
    team, _ = make_team(duo(), {})
    with pytest.raises(ConfigurationError, match=r"role 'main' on question 'id-Which\?'.*HINT"):
        team.play(PlayRequest([question()], step=0, rollouts=1, script=lambda *_, **__: None))


def test_an_unknown_tool_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"'searcher' has tool 'search'.*\['visit'\]"):
        make_team(duo(), {}, {"visit": FakeTool(echo, name="visit")})


def test_a_tool_with_the_name_of_a_role_is_refused() -> None:
    roles = duo()
    roles["main"] = replace(roles["main"], tools=["search"])
    with pytest.raises(ConfigurationError, match="a tool and a role"):
        make_team(roles, {}, {"search": FakeTool(echo, name="searcher")})


def test_two_tools_of_one_name_are_refused() -> None:
    roles = duo()
    roles["searcher"] = replace(roles["searcher"], tools=["search", "my.search"])
    with pytest.raises(ConfigurationError, match="two things called 'search': a tool and a tool"):
        make_team(roles, {}, {"search": FakeTool(echo), "my.search": FakeTool(echo)})


def test_limits_are_each_roles_own() -> None:
    roles = duo(main=limits(turns=4), searcher=limits(turns=2))
    rollout = play_one({"main": main_asks("a"), "searcher": lambda *_: call("search", query="q")}, roles)
    assert rollout.subs[0].num_turns == 2
    assert rollout.main.valid
