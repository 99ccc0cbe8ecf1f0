"""Recorded conversations of a team's roles, from a JSON Lines file: a warm start replays their assistant messages.

    {"messages": [{"role": "user", "content": "Which river flows through Vienna?"},
                  {"role": "assistant", "tool_calls": [
                      {"function": {"name": "searcher", "arguments": {"task": "rivers of Vienna"}}}]},
                  {"role": "tool", "content": "the Danube"},
                  {"role": "assistant", "content": "Danube"}]}
    {"role": "searcher", "messages": [{"role": "user", "content": "rivers of Vienna"}, ...]}

(each on one line). ``role`` is a role of the team; without it, it is main. Calls are in the form of the OpenAI API, or
written in the text in the team's own protocol. The last assistant message is the answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import override

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.protocol.actions import Action, HermesDialect, ToolCall, Violation
from mgrpo_lightning.protocol.prompts import LastMessage
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Message
from mgrpo_lightning.tasks.base import HEAD, Script
from mgrpo_lightning.tasks.chat_messages import BadMessages, question_in, text_of
from mgrpo_lightning.tasks.json_lines import Line, read_json_lines

LAYOUT = 'write {"role": "searcher", "messages": [{"role": "user", "content": "..."}, ...]} on every line.'
_DIALECT = HermesDialect()


@dataclass(frozen=True)
class Turn:
    """One assistant message in the team's protocol."""

    text: str
    action: Action
    number: int
    """Number of the message in its conversation, from 1."""


@dataclass(frozen=True)
class Conversation:
    """One recorded conversation: what a role was asked, and what it said."""

    line: Line
    role: str
    asked: frozenset[str]
    """Texts of the question or subtask that it is about, with and without system text above; see ``_key``."""
    turns: Sequence[Turn]
    """At least one; the last one answers, and no other."""


class Replay(Script):
    """Says the turns of a conversation in their order; tools and sub-agents give their results anew.

    When only an answer is legal, it says the last turn, whatever was recorded before it.

    Args:
        turns: Turns of the conversation; the last one answers.
    """

    def __init__(self, turns: Sequence[Turn]) -> None:
        self._turns = turns

    @override
    def reply(self, messages: Sequence[Message]) -> str:
        said = sum(message.role == "assistant" for message in messages)
        return self._turns[-1 if isinstance(messages[-1], LastMessage) else said].text


class Conversations:
    """The recorded conversations of a team.

    Args:
        path: The file, for errors.
        found: Its conversations.
        main: Name of the role that answers the questions.
    """

    def __init__(self, path: Path, found: Sequence[Conversation], main: str) -> None:
        self.path = path
        self.found = found
        self._main = main
        self._by_text: dict[tuple[str, str], list[Conversation]] = {}
        for one in found:
            for asked in sorted(one.asked):
                self._by_text.setdefault((one.role, asked), []).append(one)

    def has(self, role: str, asked: str) -> bool:
        """Return whether there is a conversation of a role about a question or subtask.

        Args:
            asked: Text of the question or subtask; white space does not count.
        """
        return (role, _key(asked)) in self._by_text

    def among(self, questions: Sequence[Question]) -> list[Question]:
        """Return the questions that main has a conversation about, in their order.

        Raises:
            DataError: There is none.
        """
        known = [question for question in questions if self.has(self._main, question.text)]
        if not known:
            raise DataError(
                f"{self.path} has no conversation of {self._main!r} about any of the {len(questions)} training "
                f"questions; the first one is {_shown(questions[0], questions[0].text)}.",
                hint="the last user message of a conversation must be the text of a question.",
            )
        return known

    def script(self, question: Question, role: str, subtask: str, seed: int, *, callees: Sequence[str]) -> Script:
        """Return the script of one trajectory, as ``Task.script`` does.

        Args:
            question: Question that main was asked.
            role: Role of the trajectory, ``main`` for the one that answers the question.
            subtask: Text that the role was given.
            seed: Chooses one of several conversations about the same text.
            callees: Not used.

        Raises:
            DataError: There is no conversation of the role about this text.
        """
        name = self._main if role == HEAD else role
        options = self._by_text.get((name, _key(subtask)))
        if not options:
            raise DataError(
                f"{self.path} has no conversation of {name!r} about {_shown(question, subtask)}.",
                hint="record one, or leave out the conversations that call for it.",
            )
        return Replay(options[seed % len(options)].turns)


def read_conversations(path: Path, main: str) -> Conversations:
    """Read a file of recorded conversations.

    Args:
        path: A JSON Lines file; each line has ``messages`` and, unless it is main's, ``role``.
        main: Name of the role that answers the questions.

    Raises:
        DataError: The file is missing or empty, or a conversation cannot be read; the message names file and line.
    """
    found = [_conversation(line, record, main) for line, record in read_json_lines(path, LAYOUT, what="file")]
    if not found:
        raise DataError(f"{path} has no conversations.", hint=LAYOUT)
    return Conversations(path, found, main)


def _conversation(line: Line, record: Mapping[str, Any], main: str) -> Conversation:
    role, messages = record.get("role", main), record.get("messages")
    if not isinstance(role, str):
        raise line.bad("role", f"'role' is {role!r}, not the name of a role")
    if not isinstance(messages, list):
        raise line.bad("messages", f"'messages' is {messages!r}, not a list of messages")
    try:
        asked, after = question_in(messages)
        # Logs record the system prompt too, which is not part of the question.
        plain, _ = question_in([one for one in messages if one["role"] not in ("system", "developer")])
        turns = list(_turns(after, first=len(messages) - len(after) + 1))
    except BadMessages as error:
        raise line.bad("messages", str(error)) from error
    if not turns or turns[-1].action.answer is None:
        raise line.bad("messages", "the last message is no answer of the assistant")
    return Conversation(line, role, frozenset((_key(asked), _key(plain))), turns)


def _turns(messages: Sequence[Mapping[str, Any]], *, first: int) -> Iterator[Turn]:
    """Yield the assistant messages after the question as turns.

    Args:
        first: Number of the first message.
    """
    called = False
    for number, message in enumerate(messages, start=first):
        last = number == first + len(messages) - 1
        if message["role"] == "assistant":
            turn = _turn(message, number)
            if turn.action.answer is not None and not last:
                raise BadMessages(f"message {number} is an answer, but not the last message")
            called = bool(turn.action.calls)
            yield turn
        elif message["role"] != "tool" or not called:
            why = "without a call before it" if message["role"] == "tool" else "after the question"
            raise BadMessages(f"message {number} has the role {message['role']!r} {why}")


def _turn(message: Mapping[str, Any], number: int) -> Turn:
    text = text_of(message, number).strip()
    calls = message.get("tool_calls") or ()
    if calls:
        action = Action(text, tuple(_call(call, number) for call in calls))
    else:
        action = _DIALECT.parse(text)
        if action.violations == (Violation.NO_ACTION,):
            # Plain text is the answer. What was thought before it stays in front of the answer's tags.
            thought, end, answer = text.rpartition("</think>")
            action = Action(thought + end, answer=answer.strip())
        elif action.violations:
            raise BadMessages(f"message {number} is no turn of the team's protocol: {', '.join(action.violations)}")
        else:
            return Turn(text, action, number)
    try:
        return Turn(_DIALECT.render(action), action, number)
    except ValueError as error:
        raise BadMessages(f"message {number} cannot be written in the team's protocol: {error}") from error


def _call(call: Any, number: int) -> ToolCall:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(name := function.get("name"), str) or not name:
        raise BadMessages(f"message {number} has the call {call!r}, without a function that has a name")
    arguments = function.get("arguments")
    with suppress(ValueError, RecursionError):  # then it stays text, and is refused below
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    if not isinstance(arguments, dict):
        raise BadMessages(f"message {number} calls {name!r} with {arguments!r}, not an object of arguments")
    return ToolCall(name, arguments)


def _shown(question: Question, text: str) -> str:
    """Return a text about a question for an error; texts of encrypted benchmarks must not be shown."""
    return f"question {question.id!r}" if question.encrypted else f"{text!r} (question {question.id!r})"


def _key(text: str) -> str:
    return " ".join(text.split())
