"""The words the package itself puts in front of a policy: system prompts, the answer-now notice, error texts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mgrpo_lightning.records.trajectory import Call, Message
from mgrpo_lightning.roles.config import RoleConfig
from mgrpo_lightning.tools.base import Tool

NOTICE = "No more calls: answer now."
"""Ends the observation (or the task) before a turn in which only an answer is legal. Holds no tags: it is encoded
as text from outside is."""

ROLE_SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {"task": {"type": "string", "description": "What to find out, complete in itself."}},
    "required": ["task"],
}
"""Arguments of a delegation."""


_HEARD = re.compile(r"^\w+: [\w.-]+\(\{.*\}\)\n", re.MULTILINE)
"""First line of what ``heard`` writes."""


@dataclass(frozen=True)
class Signature:
    """What a caller is told about a tool or a role."""

    name: str
    description: str
    parameters: Mapping[str, object]


def signatures(callees: Mapping[str, RoleConfig], tools: Iterable[Tool]) -> list[Signature]:
    """Roles first, then tools, in the order of the team file."""
    delegations = [
        Signature(name, role.description or f"The agent {name}.", ROLE_SCHEMA) for name, role in callees.items()
    ]
    return [*delegations, *(Signature(tool.name, tool.description, tool.parameters) for tool in tools)]


def system_prompt(name: str, role: RoleConfig, offers: Iterable[Signature], equals: Sequence[str] = ()) -> str:
    """The role's own system prompt, or one written from its description, its equals and what it may call.

    Args:
        name: Name of the role.
        role: Its configuration; ``system_prompt`` wins.
        offers: What it may call.
        equals: Roles with whom it discusses.
    """
    if role.system_prompt is not None:
        return role.system_prompt
    purpose = f"You are {name}. {role.description}".strip()
    if equals:
        purpose += (
            f"\n\nYou work on the question together with {', '.join(equals)}, as equals: you act in turn, and each "
            "sees what the others did. The first answer is the answer of all."
        )
    functions = "\n".join(
        json.dumps(
            {
                "type": "function",
                "function": {"name": o.name, "description": o.description, "parameters": o.parameters},
            },
            ensure_ascii=False,
        )
        for o in offers
    )
    ending = "give it in <answer></answer> tags, with nothing after it."
    if not functions:
        return f"{purpose}\n\nThink first if it helps; then answer: {ending}"
    return f"""{purpose}

# Tools

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{functions}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>

A message holds either one or more calls or the answer, never both. When you know the answer, {ending}"""


def heard(name: str, call: Call) -> str:
    """What an agent is shown of another one's call, in a discussion: who called what, and below it the result.

    Args:
        name: Of the one who called.
        call: Finished or failed.
    """
    return f"{name}: {call.name}({json.dumps(call.arguments, ensure_ascii=False)})\n{call.result}"


@dataclass(frozen=True, slots=True)
class LastMessage(Message):
    """What a demonstrator sees before a turn in which only an answer is legal: a message without its notice."""


def for_scripts(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Messages as a demonstrator sees them: the notice is no part of a text, it makes a ``LastMessage``.

    A policy sees it behind the task, or behind what a tool said. A script that repeats what a tool said must not
    repeat the notice.

    Args:
        messages: Of one trajectory.
    """
    *before, last = messages
    if last.role == "assistant" or not last.content.endswith(NOTICE):
        return tuple(messages)
    return (*before, LastMessage(last.role, last.content.removesuffix(NOTICE).removesuffix("\n")))


def results(messages: Iterable[Message]) -> Iterator[str]:
    """What came of every call so far, the agent's own and those it has heard of, in their order; for demonstrators.

    Args:
        messages: Of one trajectory, as ``for_scripts`` gives them.
    """
    for message in messages:
        text = message.content.rstrip()
        if message.role == "user":
            yield from (entry.rstrip() for entry in _HEARD.split(text)[1:])
        elif message.role == "tool":
            yield _HEARD.sub("", text, count=1) if _HEARD.match(text) else text


def error_text(error: Exception) -> str:
    """What a policy is shown of a failed call."""
    return f"error: {str(error) or type(error).__name__}"
