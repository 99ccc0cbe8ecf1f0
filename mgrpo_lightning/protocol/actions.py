"""The strict parser of a turn, in the Hermes/Qwen convention, and its inverse for demonstrators.

A turn is free text (thoughts), then either one or more calls or exactly one answer, and nothing after::

    thoughts <tool_call>{"name": "search", "arguments": {"query": "France"}}</tool_call>
    thoughts <answer>Mont Blanc</answer>

Text in ``<think>...</think>`` is skipped: a tag in there is a word, not an action. A turn that breaks a rule has no
calls and no answer, only the names of the rules it broke: the format reward pays for the whole protocol or nothing
(correctness.md 30).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from typing_extensions import override

from mgrpo_lightning.unicode import visible


class Violation(StrEnum):
    """The format rules a trajectory can break, by name."""

    NO_ACTION = "no action"
    """The turn holds neither a call nor an answer."""
    CALL_AND_ANSWER = "call and answer in one turn"
    SEVERAL_ANSWERS = "several answers"
    TEXT_AFTER = "text after"
    """Something other than white space stands behind the first call or the answer."""
    UNCLOSED_CALL = "unclosed tool_call"
    UNCLOSED_ANSWER = "unclosed answer"
    UNCLOSED_THINK = "unclosed think"
    STRAY_TAG = "stray closing tag"
    TOOL_RESPONSE = "tool response written by the policy"
    CONTROL_TOKEN = "control token"
    """A token of the chat template, such as ``<|im_start|>``, inside a turn."""
    BAD_JSON = "bad json"
    """A call that is not one strict JSON object (no duplicate keys, NaN or lone surrogates)."""
    BAD_CALL = "call is not a name with arguments"
    BAD_ARGUMENTS = "arguments not an object"
    EMPTY_ANSWER = "empty answer"
    """White space, or characters that nobody sees."""
    TRUNCATED = "truncated"
    """A limit cut the turn."""
    NO_ANSWER_AT_END = "answer missing at the end"
    """The last turn, in which only an answer is legal, held something else."""
    CONTEXT_EXHAUSTED = "context exhausted"
    """The prompt left no room for a turn."""
    INTERRUPTED = "interrupted"
    """The engine failed during play; no fault of the policy, so scoring takes the sample out of its group."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call as the policy wrote it: a tool or a role, and its arguments."""

    name: str
    arguments: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Action:
    """What one turn does. With violations it does nothing: no calls, no answer."""

    thought: str = ""
    """The text before the first call or the answer, thinking included, stripped."""
    calls: tuple[ToolCall, ...] = ()
    answer: str | None = None
    violations: tuple[Violation, ...] = ()


class Dialect(Protocol):
    """How calls and answers are written as text."""

    def parse(self, text: str) -> Action:
        """Read a turn (without its stop token). Never raises: what is wrong is named in the violations."""
        ...

    def render(self, action: Action) -> str:
        """Write a turn that ``parse`` reads back as the same action."""
        ...


TAG = re.compile(r"</?(?:tool_call|tool_response|answer|think)>")
"""The protocol's own words in pointed brackets; a tokenizer may have tokens for them."""
_CONTROL = re.compile(r"<\|[^|<>\s]+\|>")


class HermesDialect(Dialect):
    """``<tool_call>`` with a JSON object, ``<answer>`` with text."""

    @override
    def parse(self, text: str) -> Action:
        found = _Findings()
        if _CONTROL.search(text):
            found.violations.append(Violation.CONTROL_TOKEN)
        for kind, body, position in _pieces(text):
            found.add(kind, body, position)
        violations = (*found.violations, *found.verdict())
        thought = text[: found.start].strip()
        if violations:
            return Action(thought, violations=tuple(dict.fromkeys(violations)))
        return Action(thought, tuple(found.calls), found.answers[0] if found.answers else None)

    @override
    def render(self, action: Action) -> str:
        """Write a turn that ``parse`` reads back as the same action.

        Raises:
            ValueError: The action cannot be written as a legal turn, for instance an answer that holds a tag.
        """
        blocks = [f"<tool_call>\n{_write_call(call)}\n</tool_call>" for call in action.calls]
        if action.answer is not None:
            blocks.append(f"<answer>{action.answer}</answer>")
        text = "\n".join([action.thought, *blocks] if action.thought else blocks)
        if self.parse(text) != action:
            raise ValueError(f"no legal turn says {action!r}: it reads back as {self.parse(text)!r}.")
        return text


def parse(text: str) -> Action:
    """Read a turn in the Hermes convention; see ``HermesDialect.parse``."""
    return HermesDialect().parse(text)


@dataclass
class _Findings:
    """What a turn was found to hold, piece by piece."""

    start: int | None = None
    """Where the first action, or attempt at one, begins."""
    calls: list[ToolCall] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)

    def add(self, kind: str | Violation, body: str, position: int) -> None:
        if kind == "text":
            if self.start is not None and body.strip():
                self.violations.append(Violation.TEXT_AFTER)
            return
        if self.start is None:
            self.start = position
        if isinstance(kind, Violation):
            self.violations.append(kind)
        elif kind == "answer":
            self.answers.append(body.strip())
        else:
            self._add_call(_read_call(body))

    def _add_call(self, call: ToolCall | Violation) -> None:
        if isinstance(call, Violation):
            self.violations.append(call)
        else:
            self.calls.append(call)

    def verdict(self) -> Iterator[Violation]:
        """The rules about the turn as a whole."""
        # A broken call is named by its own rule; "no action" is for turns that did not even try.
        if self.start is None:
            yield Violation.NO_ACTION
        if len(self.answers) > 1:
            yield Violation.SEVERAL_ANSWERS
        if self.answers and self.calls:
            yield Violation.CALL_AND_ANSWER
        if any(not visible(answer).strip() for answer in self.answers):
            yield Violation.EMPTY_ANSWER


def _pieces(text: str) -> Iterator[tuple[str | Violation, str, int]]:
    """Cut a turn into (kind, body, position): kind is text, tool_call, answer, or the rule broken there."""
    position = 0
    while tag := TAG.search(text, position):
        yield "text", text[position : tag.start()], position
        name, position = tag.group().strip("</>"), tag.end()
        if tag.group().startswith("</"):
            yield Violation.STRAY_TAG, "", tag.start()
        elif name == "tool_response":
            yield Violation.TOOL_RESPONSE, "", tag.start()
        elif name == "think":
            end = text.find("</think>", position)
            if end < 0:
                yield Violation.UNCLOSED_THINK, "", tag.start()
                return
            # As text: thinking is legal where thoughts are, before the action.
            yield "text", text[tag.start() : end + len("</think>")], tag.start()
            position = end + len("</think>")
        else:
            close = TAG.search(text, position)
            if close is None or close.group() != f"</{name}>":
                yield Violation.UNCLOSED_CALL if name == "tool_call" else Violation.UNCLOSED_ANSWER, "", tag.start()
                continue
            yield name, text[position : close.start()], tag.start()
            position = close.end()
    yield "text", text[position:], position


def _read_call(body: str) -> ToolCall | Violation:
    try:
        content = json.loads(body, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)
        # Lone surrogates survive json.loads but no tokenizer, tool or file.
        json.dumps(content, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return Violation.BAD_JSON
    if not isinstance(content, dict):
        return Violation.BAD_JSON
    name, arguments = content.get("name"), content.get("arguments")
    if set(content) != {"name", "arguments"} or not isinstance(name, str) or not name:
        return Violation.BAD_CALL
    return ToolCall(name, arguments) if isinstance(arguments, dict) else Violation.BAD_ARGUMENTS


def _write_call(call: ToolCall) -> str:
    body = json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False)
    # A tag inside an argument is written with a JSON escape, so that it cannot end the call.
    return body.replace("<", "\\u003c") if TAG.search(body) or _CONTROL.search(body) else body


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("duplicate key")
    return content


def _finite(text: str) -> float:
    if math.isfinite(value := float(text)):
        return value
    raise ValueError(f"{text} is too large")


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")
