"""Parse a turn strictly (Hermes/Qwen tags) into calls, an answer or format violations; write a turn from an action.

A turn is free text (thoughts), followed by either one or more calls or exactly one answer, and nothing else::

    thoughts <tool_call>{"name": "search", "arguments": {"query": "France"}}</tool_call>
    thoughts <answer>Mont Blanc</answer>

The parser skips the text in ``<think>...</think>``: a tag in there is not an action. A turn that breaks a rule has no
calls and no answer, only the names of the broken rules, because the format reward is all or nothing (correctness.md
30).
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
    """The format rules that a trajectory can break."""

    NO_ACTION = "no action"
    """The turn holds neither a call nor an answer."""
    CALL_AND_ANSWER = "call and answer in one turn"
    SEVERAL_ANSWERS = "several answers"
    TEXT_AFTER = "text after"
    """After the first call or the answer there is text other than white space or further calls."""
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
    """The answer holds only white space or invisible characters."""
    TRUNCATED = "truncated"
    """The token limit ended the turn before its stop token."""
    NO_ANSWER_AT_END = "answer missing at the end"
    """The last turn, in which only an answer is legal, held calls."""
    CONTEXT_EXHAUSTED = "context exhausted"
    """The prompt fills the context, so there is no room for a turn."""
    INTERRUPTED = "interrupted"
    """The engine failed during play. This is not the policy's fault, so scoring removes the sample from its group."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call as the policy wrote it: the name of a tool or a role, and the arguments (not checked yet)."""

    name: str
    arguments: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Action:
    """The parsed content of one turn. If there are violations, ``calls`` is empty and ``answer`` is None."""

    thought: str = ""
    """The text before the first call or the answer, stripped; includes ``<think>`` blocks."""
    calls: tuple[ToolCall, ...] = ()
    answer: str | None = None
    violations: tuple[Violation, ...] = ()


class Dialect(Protocol):
    """A text format of calls and answers."""

    def parse(self, text: str) -> Action:
        """Parse a turn (without its stop token). Never raises: errors are listed in ``Action.violations``."""
        ...

    def render(self, action: Action) -> str:
        """Write an action as a turn, so that ``parse`` returns an equal action."""
        ...


TAG = re.compile(r"</?(?:tool_call|tool_response|answer|think)>")
"""The tags of the protocol. Some tokenizers have a single token for each of them."""
_CONTROL = re.compile(r"<\|[^|<>\s]+\|>")


class HermesDialect(Dialect):
    """Calls are JSON objects in ``<tool_call>`` tags, answers are text in ``<answer>`` tags."""

    @override
    def parse(self, text: str) -> Action:
        found = _Findings()
        # In the whole turn, thinking included: no control token is legal before the stop token.
        if _CONTROL.search(text):
            found.violations.append(Violation.CONTROL_TOKEN)
        for kind, body, position in _pieces(text):
            found.add(kind, body, position)
        violations = (*found.violations, *found.verdict())
        thought = text[: found.start].strip()
        if violations:
            # dict.fromkeys removes duplicates and keeps the order.
            return Action(thought, violations=tuple(dict.fromkeys(violations)))
        return Action(thought, tuple(found.calls), found.answers[0] if found.answers else None)

    @override
    def render(self, action: Action) -> str:
        """Write an action as a turn, so that ``parse`` returns an equal action.

        Raises:
            ValueError: No legal turn expresses the action, for instance because the answer contains a tag.
        """
        blocks = [f"<tool_call>\n{_write_call(call)}\n</tool_call>" for call in action.calls]
        if action.answer is not None:
            blocks.append(f"<answer>{action.answer}</answer>")
        text = "\n".join([action.thought, *blocks] if action.thought else blocks)
        if self.parse(text) != action:
            raise ValueError(f"{action!r} cannot be written as a legal turn: it is parsed as {self.parse(text)!r}.")
        return text


def parse(text: str) -> Action:
    """Parse a turn in the Hermes convention; see ``HermesDialect.parse``."""
    return HermesDialect().parse(text)


@dataclass
class _Findings:
    """Collects what the parser finds in a turn, piece by piece."""

    start: int | None = None
    """Character position of the first action, valid or broken."""
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
        """Check the rules that concern the turn as a whole."""
        # A broken call sets `start` and has a violation of its own; "no action" means there was no attempt at one.
        if self.start is None:
            yield Violation.NO_ACTION
        if len(self.answers) > 1:
            yield Violation.SEVERAL_ANSWERS
        if self.answers and self.calls:
            yield Violation.CALL_AND_ANSWER
        if any(not visible(answer).strip() for answer in self.answers):
            yield Violation.EMPTY_ANSWER


def _pieces(text: str) -> Iterator[tuple[str | Violation, str, int]]:
    """Cut a turn into (kind, body, position). The kind is text, tool_call, answer, or the rule that is broken there."""
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
            # Yield it as text: thinking is legal where text is legal, before the first action.
            yield "text", text[tag.start() : end + len("</think>")], tag.start()
            position = end + len("</think>")
        else:
            close = TAG.search(text, position)
            if close is None or close.group() != f"</{name}>":
                # Parsing goes on behind the opening tag, so violations in the body are found as well.
                yield Violation.UNCLOSED_CALL if name == "tool_call" else Violation.UNCLOSED_ANSWER, "", tag.start()
                continue
            yield name, text[position : close.start()], tag.start()
            position = close.end()
    yield "text", text[position:], position


def _read_call(body: str) -> ToolCall | Violation:
    try:
        content = json.loads(body, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)
        # json.loads accepts lone surrogates, but they cannot be encoded for a tokenizer, a tool or a file.
        json.dumps(content, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return Violation.BAD_JSON
    if not isinstance(content, dict):
        return Violation.BAD_JSON
    name, arguments = content.get("name"), content.get("arguments")
    # Additional keys are refused as well: the format is strict.
    if set(content) != {"name", "arguments"} or not isinstance(name, str) or not name:
        return Violation.BAD_CALL
    return ToolCall(name, arguments) if isinstance(arguments, dict) else Violation.BAD_ARGUMENTS


def _write_call(call: ToolCall) -> str:
    body = json.dumps({"name": call.name, "arguments": call.arguments}, ensure_ascii=False)
    # Inside an argument, a tag gets a JSON escape: otherwise the parser would take it for the end of the call.
    return body.replace("<", "\\u003c") if TAG.search(body) or _CONTROL.search(body) else body


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    # json.loads would silently keep the last of two equal keys.
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("duplicate key")
    return content


def _finite(text: str) -> float:
    # A literal such as 1e999 is legal JSON but becomes inf, which cannot be written as JSON again.
    if math.isfinite(value := float(text)):
        return value
    raise ValueError(f"{text} is too large")


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")
