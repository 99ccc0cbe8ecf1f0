"""The budgets of one agent: turns, calls, tokens of a turn, of a result and of the context."""

from typing import cast

import pytest

from mgrpo_lightning.agents.seat import KEPT, KEPT_A_TOKEN
from mgrpo_lightning.errors import ToolError
from mgrpo_lightning.protocol.actions import Violation
from mgrpo_lightning.protocol.prompts import NOTICE
from mgrpo_lightning.roles.config import LimitsConfig
from mgrpo_lightning.tools.base import function_tool
from tests.agents.fakes import (
    END,
    OTHER,
    FakeChat,
    FakeTool,
    answer,
    call,
    limits,
    play,
    tool_texts,
)

SEARCH = call("search", query="x")


def test_the_last_turn_is_announced_and_takes_only_an_answer() -> None:
    played, _ = play([SEARCH, SEARCH, SEARCH], budget=limits(turns=3))
    assert tool_texts(played) == ["page of x", f"page of x\n{NOTICE}"]
    assert (played.violations, played.num_turns, len(played.calls)) == ([Violation.NO_ANSWER_AT_END], 3, 2)
    assert play([SEARCH, SEARCH], budget=limits(turns=3))[0].valid


def test_calls_beyond_the_budget_fail_and_the_next_turn_is_the_last() -> None:
    played, _ = play([SEARCH, f"{SEARCH}{SEARCH}"], budget=limits(calls=2))
    assert [c.failed for c in played.calls] == [False, False, True]
    assert tool_texts(played)[1:] == ["page of x", f"error: the budget of calls is used up.\n{NOTICE}"]
    assert played.valid


def test_a_turn_has_its_token_limit() -> None:
    played, conversation = play(["x" * 50], budget=limits(new_tokens=40))
    assert (played.violations, played.num_actions) == ([Violation.TRUNCATED], 40)
    assert conversation.params[0].max_new_tokens == 40
    assert played.truncated


def test_results_are_cut_to_the_observation_limit() -> None:
    async def run(query: str) -> str:
        return "z" * 500

    played, _ = play([SEARCH], budget=limits(observation=30), tool=FakeTool(run))
    assert tool_texts(played) == ["z" * 30]
    assert played.calls[0].result == "z" * 500


@pytest.mark.parametrize("kind", ["result", "ToolError", "OSError", "a function's error"])
def test_of_a_huge_result_a_start_is_kept_and_the_policy_sees_the_same(kind: str) -> None:
    def huge(letters: int) -> FakeTool:
        async def search(query: str) -> str:
            text = f"first line\n{'z' * letters}"
            if kind == "result":
                return text
            raise {"ToolError": ToolError, "OSError": OSError}.get(kind, ValueError)(text)

        broken = function_tool(search) if kind == "a function's error" else FakeTool(search)
        return cast("FakeTool", broken)

    budget = limits(observation=30)
    played, _ = play([SEARCH], budget=budget, tool=huge(50 * 2**20))
    (kept,) = played.calls
    assert len(kept.result) == KEPT + KEPT_A_TOKEN * 30 + len("\n[cut]")
    assert kept.result.endswith("z\n[cut]")
    assert kept.failed == (kind != "result")
    whole, _ = play([SEARCH], budget=budget, tool=huge(KEPT))
    assert "[cut]" not in whole.calls[0].result
    assert tool_texts(played) == tool_texts(whole)
    assert played.spans == whole.spans


def test_a_long_result_leaves_room_for_a_whole_answering_turn() -> None:
    async def run(query: str) -> str:
        return "z" * 5_000

    budget = limits(new_tokens=200, context=700, observation=5_000)
    played, conversation = play(
        [f"{SEARCH}{SEARCH}".replace("\n", ""), answer("a" * 60)], budget=budget, tool=FakeTool(run)
    )
    assert played.valid
    assert conversation.params[-1].max_new_tokens == 200
    shown = tool_texts(played)
    assert shown[0].strip("z") == ""
    assert len(shown[0]) > 50, "the room is used"
    assert shown[1].endswith(f"z\n{NOTICE}")


@pytest.mark.parametrize("end", ["", chr(OTHER)])
def test_when_nothing_else_fits_the_notice_does(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeChat, "stop_ids", (END, OTHER) if end else (END,))
    prompt = len(FakeChat().open("find", "Which?"))
    shortest = len(FakeChat().observe([NOTICE], after_cut=bool(end)))
    # A turn with as many calls as it has room for, and not one spare token for their results.
    crowd = call("search", query="x").replace("\n", "") * 4
    budget = limits(new_tokens=len(crowd) + 1, context=prompt + 2 * (len(crowd) + 1) + shortest, observation=30)
    played, _ = play([crowd + end], budget=budget)
    assert tool_texts(played) == [NOTICE]
    assert [c.result for c in played.calls] == ["page of x"] * 4
    assert (played.valid, played.num_turns) == (True, 2)


@pytest.mark.parametrize("budget", [limits(turns=1), limits(calls=0), limits(context=500, new_tokens=230)])
def test_a_budget_for_one_turn_announces_it_in_the_prompt(budget: LimitsConfig) -> None:
    assert play([SEARCH], budget=budget)[0].violations == [Violation.NO_ANSWER_AT_END]
    played, _ = play([], budget=budget)
    assert played.valid
    assert played.messages[1].content == f"Which?\n{NOTICE}"
    assert played.task == "Which?"


def test_a_role_without_tools_answers_at_once_and_needs_no_notice() -> None:
    assert play([SEARCH], tools=False)[0].violations == [Violation.NO_ANSWER_AT_END]
    assert play([], tools=False)[0].messages[1].content == "Which?"


def test_a_prompt_that_fills_the_context_ends_before_the_first_turn() -> None:
    played, conversation = play([], budget=limits(context=10))
    assert played.violations == [Violation.CONTEXT_EXHAUSTED]
    assert (played.num_actions, conversation.turns, conversation.closed) == (0, 0, True)
