"""Requests and replies of OpenAI's chat format: what is read, what is refused by name, and what is said."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.records.trajectory import Call, Key, Message, Rollout, Segment, Span, Trajectory
from mgrpo_lightning.serving.chat_format import IGNORED, NEUTRAL, READ, Reply, details, progress, read_request, usage

USER = {"role": "user", "content": "Which?"}


def body(*messages: Any, **more: Any) -> dict[str, Any]:
    return {"model": "team", "messages": list(messages or (USER,)), **more}


def test_one_message_is_the_question_and_a_conversation_is_a_transcript() -> None:
    assert read_request(body()).text == "Which?"
    parts = {"role": "user", "content": [{"type": "text", "text": "Which"}, {"type": "text", "text": "one?"}]}
    assert read_request(body(parts)).text == "Which\none?"
    said = [{"role": "system", "content": "Be brief."}, USER, {"role": "assistant", "content": "This."}, USER]
    assert read_request(body(*said)).text == "system: Be brief.\n\nuser: Which?\n\nassistant: This.\n\nuser: Which?"


def test_options_are_read() -> None:
    assert read_request(body()).temperature is None
    read = read_request(body(temperature=0, stream=True, stream_options={"include_usage": True}))
    assert (read.temperature, read.stream, read.usage) == (0.0, True, True)


@pytest.mark.parametrize("name", sorted(IGNORED | set(NEUTRAL) | {"anything"}))
def test_null_is_taken_for_every_parameter(name: str) -> None:
    assert read_request(body(**{name: None})).text == "Which?"


@pytest.mark.parametrize("name", sorted(NEUTRAL))
def test_a_parameter_that_would_change_the_answer_is_refused_by_name(name: str) -> None:
    for value in NEUTRAL[name]:
        read_request(body(**{name: value}))
    with pytest.raises(DataError, match=f"a team cannot use {name} = 'other'"):
        read_request(body(**{name: "other"}))


@pytest.mark.parametrize("name", sorted(IGNORED))
def test_a_parameter_without_effect_is_taken(name: str) -> None:
    assert read_request(body(**{name: 7})) == read_request(body())


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ([], "the body is no JSON object"),
        (None, "the body is no JSON object"),
        (body(stop="x"), "the parameter 'stop' is not known"),
        (body(temperature=True), "the temperature is True"),
        (body(temperature=3), "the temperature is 3"),
        (body(temperature=float("nan")), "the temperature is nan"),
        (body(stream="yes"), "`stream` is no boolean"),
        (body(stream_options=[1]), "`stream_options` no object"),
        ({"model": "team"}, "there are no messages"),
        (body() | {"messages": []}, "there are no messages"),
        (body() | {"messages": "Which?"}, "there are no messages"),
        (body("Which?"), "message 0 is of 'Which\\?'"),
        (body(USER, {"role": "tool", "content": "x"}), "message 1 is of 'tool'"),
        (body(USER, {"role": "assistant", "content": "x"}), "the last message is of 'assistant'"),
        (body({"role": "user", "content": "  "}), "the last message is empty"),
        (body({"role": "user"}), "the content of message 0 is no text"),
        (body({"role": "user", "content": [{"type": "image_url"}]}), "the content of message 0 is no text"),
        (body({"role": "user", "content": [{"type": "text", "text": 1}]}), "the content of message 0 is no text"),
    ],
)
def test_what_cannot_be_read_is_told(wrong: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        read_request(wrong)


def test_every_parameter_has_one_meaning() -> None:
    assert not IGNORED & set(NEUTRAL)
    assert not (IGNORED | set(NEUTRAL)) & set(READ)


def played(answer: str | None = "This.", *, truncated: bool = False) -> Rollout:
    def trajectory(role: str, number: int, *messages: Message, **more: Any) -> Trajectory:
        spans = [Span("observation", (1, 2, 3)), Span("action", (4, 5), (-0.1, -0.2), truncated=truncated)]
        return Trajectory(
            role, Key(0, 0, 0, number), "Which?", segments=[Segment(spans)], messages=list(messages), **more
        )

    call = Call(0, "searcher", {"task": "look"}, "found", invocation=1)
    main = trajectory("main", 0, calls=[call], answer=answer, violations=[] if answer else ["truncated"])
    sub = trajectory("searcher", 1, parent=0, calls=[Call(0, "search", {}, "page"), Call(1, "search", {}, "page")])
    return Rollout(main, [sub])


def test_counts_are_of_all_trajectories() -> None:
    assert usage(played()) == {"prompt_tokens": 6, "completion_tokens": 4, "total_tokens": 10}
    assert details(played()) == {"violations": [], "calls": {"searcher": 1, "search": 2}}


@pytest.mark.parametrize(
    ("rollout", "reason"),
    [(played(), "stop"), (played(None), "stop"), (played(None, truncated=True), "length")],
)
def test_a_reply_whole_and_in_chunks_says_the_same(rollout: Rollout, reason: str) -> None:
    reply = Reply("team")
    whole = reply.whole(rollout)
    *chunks, counts, done = reply.end(rollout, with_usage=True)
    read = [json.loads(chunk.removeprefix("data: ")) for chunk in (*chunks, counts)]
    assert done == "data: [DONE]\n\n"
    assert all(chunk.endswith("\n\n") for chunk in chunks)
    text = "".join(choice["delta"].get("content", "") for chunk in read for choice in chunk["choices"])
    assert text == whole["choices"][0]["message"]["content"] == (rollout.main.answer or "")
    assert read[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"] == reason
    assert read[-2]["mgrpo"] == whole["mgrpo"]
    assert read[-1]["usage"] == whole["usage"]
    assert read[-1]["choices"] == []
    assert {chunk["id"] for chunk in read} == {whole["id"]}
    assert len(reply.end(rollout, with_usage=False)) == 3


@pytest.mark.parametrize(
    ("role", "message", "shown"),
    [
        (
            "main",
            Message("assistant", 'I ask.\n<tool_call>\n{"name": "searcher", "arguments": {"task": "é"}}\n</tool_call>'),
            'main: I ask.\nmain calls searcher({"task": "é"})\n',
        ),
        ("main", Message("assistant", "<answer>This.</answer>"), ""),
        ("searcher", Message("assistant", "<answer>found</answer>"), "searcher reports: found\n"),
        ("searcher", Message("tool", "a page"), "    a page\n"),
        (
            "searcher",
            Message("tool", "\n".join("abcdefghij")),
            "".join(f"    {c}\n" for c in "abcdefgh") + "    ... 2 more lines\n",
        ),
    ],
)
def test_progress_is_what_people_wait_for(role: str, message: Message, shown: str) -> None:
    trajectory = Trajectory(role, Key(0, 0, 0, 0), "Which?", messages=[message], parent=None if role == "main" else 0)
    assert progress(trajectory) == shown
