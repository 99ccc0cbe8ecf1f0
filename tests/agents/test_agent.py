"""One agent, one trajectory: turns, failures and the token record."""

import asyncio
import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgrpo_lightning.agents.play import PlayRequest
from mgrpo_lightning.errors import ToolError
from mgrpo_lightning.protocol.actions import Action, HermesDialect, ToolCall, Violation
from mgrpo_lightning.records.trajectory import Span, Trajectory
from mgrpo_lightning.roles.config import LimitsConfig, RoleConfig
from mgrpo_lightning.tools.base import function_tool
from tests.agents.fakes import (
    END,
    OTHER,
    START,
    FakeChat,
    FakeTool,
    answer,
    call,
    echo,
    limits,
    make_team,
    play,
    question,
    tool_texts,
)

SEARCH = call("search", query="x")


def test_a_call_its_result_and_the_answer() -> None:
    played, _ = play([f"I look. {SEARCH}", f"there: {answer('Mont Blanc')}"])
    assert [(m.role, m.content) for m in played.messages] == [
        ("system", "find"),
        ("user", "Which?"),
        ("assistant", f"I look. {SEARCH}"),
        ("tool", "page of x"),
        ("assistant", "there: <answer>Mont Blanc</answer>"),
    ]
    assert (played.answer, played.valid, played.num_turns) == ("Mont Blanc", True, 2)
    assert [(c.turn, c.name, c.arguments, c.result, c.failed) for c in played.calls] == [
        (0, "search", {"query": "x"}, "page of x", False)
    ]


good_turns = st.sampled_from([SEARCH, f"hm {SEARCH}{SEARCH}", call("nothing")])
bad_turns = st.sampled_from(["<tool_response>", "<answer>", "cut..."]) | st.text(max_size=20)
turn_lists = st.tuples(st.lists(good_turns, min_size=1, max_size=4), st.lists(bad_turns, max_size=1)).map(
    lambda t: [*t[0], *t[1]]
)
# Drawn from lists: most integers of a wide range would end every play in its first turn.
budgets = st.builds(
    limits,
    turns=st.sampled_from([5, 4, 3, 2, 1]),
    new_tokens=st.sampled_from([150, 200, 100, 70, 20]),
    calls=st.sampled_from([8, 4, 3, 2, 1, 0]),
    context=st.sampled_from([5_000, 900, 700, 600, 500, 450, 400, 350, 300, 200, 50, 10]),
    observation=st.integers(1, 40),
)


@given(turn_lists, budgets)
def test_whole_plays_keep_the_record_exact_and_inside_the_limits(turns: list[str], budget: LimitsConfig) -> None:
    played, conversation = play(turns, budget=budget)
    # The spans, joined, are the ids that the policy saw and made; a log-probability is stored for what it made only.
    (segment,) = played.segments
    assert segment.ids == conversation.ids
    assert played.num_turns == conversation.turns
    kinds = [span.kind for span in played.spans]
    assert kinds == (["observation", "action"] * played.num_turns or ["observation"])
    for span in played.spans:
        expected = [-0.5 - position / 16 for position in range(len(span.ids))] if span.kind == "action" else []
        assert list(span.logprobs) == expected
    mask = [stored for span in played.spans for stored in [bool(span.logprobs)] * len(span.ids)]
    assert segment.action_mask == mask
    assert all((segment.ids[i] == END or span.truncated) for i, span in _ends(played))
    # Budgets.
    assert played.num_turns <= budget.turns
    assert played.num_tokens <= max(budget.context, len(played.spans[0].ids))
    assert sum(not c.failed for c in played.calls) <= budget.calls
    assert all(len(span.ids) <= budget.new_tokens for span in played.spans if span.kind == "action")
    # The format is valid exactly if play ended with an answer.
    assert played.valid == (played.answer is not None)
    assert Violation.CONTEXT_EXHAUSTED not in played.violations or not played.num_turns
    assert conversation.closed


def _ends(played: Trajectory) -> list[tuple[int, Span]]:
    position = 0
    ends: list[tuple[int, Span]] = []
    for span in played.spans:
        position += len(span.ids)
        if span.kind == "action":
            ends.append((position - 1, span))
    return ends


def test_headers_and_results_have_no_log_probability() -> None:
    played, _ = play([SEARCH])
    (segment,) = played.segments
    untrained = [token for token, trained in zip(segment.ids, segment.action_mask, strict=True) if not trained]
    chat = FakeChat()
    assert untrained == [*chat.open("find", "Which?"), *chat.observe(["page of x"], after_cut=False)]


def test_a_turn_that_ends_in_another_token_gets_the_templates_end_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sampled is trained, and what follows reads as the template would have it."""
    monkeypatch.setattr(FakeChat, "stop_ids", (END, OTHER))
    played, _ = play([SEARCH + chr(OTHER), SEARCH])
    observations = [span.ids for span in played.spans if span.kind == "observation"]
    assert played.spans[1].ids == (*SEARCH.encode(), OTHER)
    assert observations[1] == (END, *observations[2])
    assert played.valid


def test_a_control_token_inside_of_a_turn_breaks_the_format_whatever_it_is_called() -> None:
    played, _ = play([f"I say{chr(START)} {SEARCH}"])
    assert played.violations == [Violation.CONTROL_TOKEN]


@pytest.mark.parametrize(
    ("turn", "violation"),
    [
        ("no action at all", Violation.NO_ACTION),
        (f"{SEARCH} then", Violation.TEXT_AFTER),
        (f"{SEARCH}<tool_response>Mont Blanc</tool_response>", Violation.TOOL_RESPONSE),
        ("<answer>cut off...", Violation.TRUNCATED),
        (f"{answer('x')}...", Violation.TRUNCATED),
    ],
)
def test_a_broken_rule_ends_the_trajectory_invalid(turn: str, violation: Violation) -> None:
    played, _ = play([SEARCH, turn])
    assert violation in played.violations
    assert (played.valid, played.answer, played.num_turns) == (False, None, 2)
    assert [c.result for c in played.calls] == ["page of x"], "what was found before stays"


@pytest.mark.parametrize(
    ("turn", "error"),
    [
        (call("browse", query="x"), "error: there is nothing called 'browse'. HINT: you may call ['search']."),
        (call("search", page=1), "error: search has no argument 'page'. HINT: its arguments are ['query']."),
        (call("search"), "error: search needs the argument 'query'."),
        (call("search", query=1), "error: search: query must be of type string, not 1."),
    ],
)
def test_a_wrong_call_is_answered_and_play_goes_on(turn: str, error: str) -> None:
    played, _ = play([turn])
    assert (played.valid, played.answer) == (True, "end")
    assert [(c.result, c.failed) for c in played.calls] == [(error, True)]
    assert tool_texts(played) == [error]


@pytest.mark.parametrize(
    ("raised", "shown"),
    [
        (ToolError("no page.", hint="search first."), "error: no page. HINT: search first."),
        (ConnectionResetError("gone"), "error: gone"),
        (TimeoutError(), "error: TimeoutError"),
    ],
)
def test_a_failing_tool_loses_no_other_call(raised: Exception, shown: str) -> None:
    async def run(query: str) -> str:
        if query == "bad":
            raise raised
        return await echo(query)

    both = HermesDialect().render(Action(calls=tuple(ToolCall("search", {"query": q}) for q in ("a", "bad", "b"))))
    played, _ = play([both], tool=FakeTool(run))
    assert tool_texts(played) == ["page of a", shown, "page of b"]
    assert [c.failed for c in played.calls] == [False, True, False]
    assert played.valid


@pytest.mark.parametrize("kind", ["async", "def"])
def test_a_tool_that_passes_its_limit_is_an_error_and_play_goes_on(kind: str) -> None:
    release = threading.Event()

    async def sleep(query: str) -> str:
        if query == "bad":
            await asyncio.sleep(3600)
        return query

    def hang(query: str) -> str:
        if query == "bad":
            release.wait()
        return query

    tool = function_tool(sleep if kind == "async" else hang)
    tool.name = "search"
    role = RoleConfig("fake", tools=["search"], limits=replace(limits(), tool_seconds=0.2))
    turns = [call("search", query="bad"), SEARCH, answer("end")]
    team, _ = make_team({"main": role}, {"main": lambda _, turn, __: turns[turn]}, {"search": tool})
    result = team.play(PlayRequest([question()], step=0, rollouts=1))
    release.set()
    played = result.groups[0].rollouts[0].main
    assert [(c.result, c.failed) for c in played.calls] == [
        ("error: search took longer than 0.2 s.", True),
        ("x", False),
    ]
    assert (played.answer, played.valid, result.counts["tool_failures"]) == ("end", True, 1)


def broken(query: str) -> str:
    raise ValueError(f"there is no {query}")


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_failure_is_told_once_with_what_led_to_it_and_then_counted(
    encrypted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    tool = function_tool(broken)
    tool.name = "search"
    both = HermesDialect().render(Action(calls=tuple(ToolCall("search", {"query": f"word {q}"}) for q in "ab")))
    role = RoleConfig("fake", tools=["search"], limits=limits())
    team, _ = make_team({"main": role}, {"main": lambda _, turn, __: [both, answer("end")][turn]}, {"search": tool})
    asked = replace(question(), metadata={"encrypted": "yes"} if encrypted else {})
    for step in range(3):
        result = team.play(PlayRequest([asked], step=step, rollouts=4))
        assert result.counts == {"tool_failures": 8}, "of this play"
    (told,) = [record.getMessage() for record in caplog.records]
    assert "tool search failed" in told
    assert "ValueError" in told
    assert 'raise ValueError(f"there is no {query}")' in told, "the place in the code"
    assert ("there is no word a" in told) == ('{"query": "word a"}' in told) == (not encrypted)


@pytest.mark.parametrize("error", [AssertionError, TypeError, KeyError])
def test_programming_errors_are_not_hidden(error: type[Exception]) -> None:
    async def run(query: str) -> str:
        raise error("a bug")

    with pytest.raises(error, match="a bug"):
        play([SEARCH], tool=FakeTool(run))


def test_the_calls_of_a_turn_run_at_once_and_answer_in_their_order() -> None:
    running: list[str] = []

    async def run(query: str) -> str:
        running.append(query)
        while len(running) < 3:
            await asyncio.sleep(0)
        for _ in range("cab".index(query)):
            await asyncio.sleep(0)
        return query

    calls = HermesDialect().render(Action(calls=tuple(ToolCall("search", {"query": q}) for q in "abc")))
    played, _ = play([calls], tool=FakeTool(run))
    assert tool_texts(played) == ["a", "b", "c"]


def test_text_that_no_tokenizer_can_encode_is_replaced() -> None:
    async def run(query: str) -> str:
        return "broken \ud800 page"

    assert tool_texts(play([SEARCH], tool=FakeTool(run))[0]) == ["broken ? page"]


def test_an_error_that_no_tokenizer_can_encode_is_replaced_too() -> None:
    async def run(query: str) -> str:
        raise ToolError("broken \ud800 name")

    assert tool_texts(play([SEARCH], tool=FakeTool(run))[0]) == ["error: broken ? name"]
