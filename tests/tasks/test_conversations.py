"""Recorded conversations: the forms that are read, what is replayed, and errors that name file and line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.protocol.prompts import LastMessage
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Message
from mgrpo_lightning.tasks.conversations import Conversations, read_conversations

USER = {"role": "user", "content": "Which river?"}
CALL = {"id": "c1", "type": "function", "function": {"name": "searcher", "arguments": '{"task": "rivers"}'}}
CALLED = {"role": "assistant", "content": "I ask.", "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "the Danube"}
ANSWER = {"role": "assistant", "content": "Danube"}
TEXT_CALL = '<tool_call>\n{"name": "searcher", "arguments": {"task": "rivers"}}\n</tool_call>'
QUESTION = Question("q1", "Which river?", ("Danube",))


def read(folder: Path, *lines: dict[str, Any]) -> Conversations:
    path = folder / "talks.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_conversations(path, "planner")


def said(messages: list[dict[str, Any]], folder: Path) -> list[str]:
    (one,) = read(folder, {"messages": messages}).found
    return [turn.text for turn in one.turns]


@pytest.mark.parametrize(
    "call",
    [
        CALLED,
        {**CALLED, "tool_calls": [{"function": {"name": "searcher", "arguments": {"task": "rivers"}}}]},
        {"role": "assistant", "content": f"I ask.\n{TEXT_CALL}", "tool_calls": None},
    ],
)
@pytest.mark.parametrize("answer", [ANSWER, {"role": "assistant", "content": " <answer>Danube</answer>"}])
def test_calls_of_the_api_and_of_the_protocol_are_the_same_turns(
    tmp_path: Path, call: dict[str, Any], answer: dict[str, Any]
) -> None:
    assert said([USER, call, RESULT, answer], tmp_path) == [f"I ask.\n{TEXT_CALL}", "<answer>Danube</answer>"]


def test_thoughts_stay_in_front(tmp_path: Path) -> None:
    thinking = {"role": "assistant", "content": "<think>Vienna.</think>\nDanube"}
    assert said([USER, thinking], tmp_path) == ["<think>Vienna.</think>\n<answer>Danube</answer>"]
    several = {"role": "assistant", "tool_calls": [CALL, CALL]}
    assert said([USER, several, RESULT, RESULT, ANSWER], tmp_path)[0] == f"{TEXT_CALL}\n{TEXT_CALL}"


def messages(*roles: str) -> list[Message]:
    return [Message(role, "text") for role in roles]  # type: ignore[arg-type]


def test_turns_are_said_in_their_order_and_the_answer_when_nothing_else_is_legal(tmp_path: Path) -> None:
    script = read(tmp_path, {"messages": [USER, CALLED, RESULT, CALLED, RESULT, ANSWER]}).script(
        QUESTION, "main", " Which\n river? ", 0, callees=["searcher"]
    )
    start = messages("system", "user")
    first, second, answer = (script.reply([*start, *messages(*["assistant", "tool"] * number)]) for number in range(3))
    assert first == second == f"I ask.\n{TEXT_CALL}"
    assert answer == "<answer>Danube</answer>"
    assert script.reply([*start, *messages("assistant"), LastMessage("tool", "text")]) == answer


def test_a_conversation_is_found_by_role_and_text_with_or_without_its_system_prompt(tmp_path: Path) -> None:
    system = {"role": "system", "content": "You are a planner."}
    sub = {"role": "searcher", "messages": [{"role": "user", "content": "rivers"}, {**ANSWER, "content": "the Danube"}]}
    found = read(tmp_path, {"messages": [system, USER, ANSWER]}, sub)
    assert [one.role for one in found.found] == ["planner", "searcher"]
    assert found.has("planner", "Which river?")
    assert found.has("planner", "system: You are a planner.\n\nWhich river?")
    assert found.has("searcher", " rivers")
    assert not found.has("planner", "rivers")
    other = Question("q2", "Which lake?", ("Baikal",))
    assert found.among([other, QUESTION]) == [QUESTION]
    with pytest.raises(DataError, match=r"has no conversation of 'planner' about any of the 1 .*'Which lake"):
        found.among([other])
    with pytest.raises(DataError, match=r"no conversation of 'searcher' about 'lakes' \(question 'q1'\).*HINT"):
        found.script(QUESTION, "searcher", "lakes", 0, callees=[])
    secret = Question("q3", "Which secret?", ("x",), metadata={"encrypted": "yes"})
    with pytest.raises(DataError) as error:
        found.among([secret])
    assert "secret" not in str(error.value)
    assert "'q3'" in str(error.value)


def test_of_several_conversations_about_one_text_the_seed_chooses(tmp_path: Path) -> None:
    lines = [{"messages": [USER, {**ANSWER, "content": river}]} for river in ("Danube", "Donau", "Duna")]
    found = read(tmp_path, *lines)
    start = messages("user")
    answers = {found.script(QUESTION, "main", "Which river?", seed, callees=[]).reply(start) for seed in range(9)}
    assert answers == {f"<answer>{river}</answer>" for river in ("Danube", "Donau", "Duna")}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ({}, "'messages' is None, not a list"),
        ({"messages": [USER, ANSWER], "role": 3}, "'role' is 3, not the name of a role"),
        ({"messages": [ANSWER]}, "no message has the role 'user'"),
        ({"messages": [USER]}, "the last message is no answer"),
        ({"messages": [USER, CALLED, RESULT]}, "the last message is no answer"),
        ({"messages": [USER, ANSWER, ANSWER]}, "message 2 is an answer, but not the last message"),
        ({"messages": [USER, RESULT, ANSWER]}, "message 2 has the role 'tool' without a call before it"),
        ({"messages": [USER, {"role": "system", "content": "x"}, ANSWER]}, "message 2 has the role 'system' after"),
        ({"messages": [USER, {**ANSWER, "content": "<answer>a"}]}, "message 2 is no turn .*: unclosed answer"),
        ({"messages": [USER, {**ANSWER, "content": ""}]}, "message 2 cannot be written in the team's protocol"),
        (
            {"messages": [USER, {**ANSWER, "content": [{"type": "audio"}]}]},
            "message 2 has the content .*audio",
        ),
        ({"messages": [USER, {**CALLED, "tool_calls": [{}]}, RESULT, ANSWER]}, r"message 2 has the call \{\}, without"),
        (
            {"messages": [USER, {**CALLED, "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}, ANSWER]},
            r"message 2 calls 'f' with '\{', not an object",
        ),
    ],
)
def test_what_cannot_be_read_is_named_by_its_line(tmp_path: Path, line: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=rf"talks.jsonl, line 2, column \d+: {problem}.*HINT"):
        read(tmp_path, {"messages": [USER, ANSWER]}, line)


def test_an_empty_file_and_one_that_is_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"talks.jsonl has no conversations"):
        read(tmp_path)
    with pytest.raises(DataError, match=r"nowhere.jsonl: No such file"):
        read_conversations(tmp_path / "nowhere.jsonl", "main")


def test_the_conversations_of_the_guide_are_read(root: Path, tmp_path: Path) -> None:
    guide = (root / "docs" / "guides" / "task.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```text\n(\{.*?)```", guide, re.DOTALL)
    (tmp_path / "talks.jsonl").write_text(block, encoding="utf-8")
    main, sub = read_conversations(tmp_path / "talks.jsonl", "main").found
    assert (main.role, sub.role) == ("main", "searcher")
    assert sub.asked == {str(main.turns[0].action.calls[0].arguments["task"])}
    assert main.turns[-1].action.answer == "Danube"
