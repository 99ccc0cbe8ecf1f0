"""Texts that the package writes for policies: system prompt with tool signatures, last-turn notice, call errors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mgrpo_lightning.records.trajectory import Call, Message
from mgrpo_lightning.roles.config import RoleConfig
from mgrpo_lightning.tools.base import Tool

NOTICE = "No more calls: answer now."
"""Appended to the observation (or the task) before a turn in which only an answer is legal. It contains no tags, since
it is encoded like tool results: as plain text, where a tag is not a tag token."""

ROLE_SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {"task": {"type": "string", "description": "What to find out, complete in itself."}},
    "required": ["task"],
}
"""JSON schema of the arguments of a delegation (a call of a role)."""


_HEARD = re.compile(r"^\w+: [\w.-]+\(\{.*\}\)\n", re.MULTILINE)
"""Matches the first line of a text that ``heard`` wrote."""


@dataclass(frozen=True)
class Signature:
    """Description of a tool or a role in the system prompt of its caller."""

    name: str
    description: str
    parameters: Mapping[str, object]

    @property
    def function(self) -> dict[str, object]:
        """The description as JSON, in the shape that OpenAI's API and Hugging Face's chat templates use."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}


def signatures(callees: Mapping[str, RoleConfig], tools: Iterable[Tool]) -> list[Signature]:
    """The signatures of all callees: roles first, then tools, in the order of the team file."""
    delegations = [
        Signature(name, role.description or f"The agent {name}.", ROLE_SCHEMA) for name, role in callees.items()
    ]
    return [*delegations, *(Signature(tool.name, tool.description, tool.parameters) for tool in tools)]


def system_prompt(name: str, role: RoleConfig, offers: Iterable[Signature], equals: Sequence[str] = ()) -> str:
    """The system prompt of a role: the configured one, or one written from its description, equals and callees.

    Args:
        name: Name of the role.
        role: Configuration of the role. If it has a ``system_prompt``, that text is returned unchanged.
        offers: Signatures of the tools and roles that the role may call.
        equals: Names of the other roles in its discussion (horizontal teams).
    """
    if role.system_prompt is not None:
        return role.system_prompt
    purpose = f"You are {name}. {role.description}".strip()
    if equals:
        purpose += (
            f"\n\nYou work on the question together with {', '.join(equals)}, as equals: you act in turn, and each "
            "sees what the others did. The first answer is the answer of all."
        )
    # The layout and wording of tools follow Qwen's chat template, which models of this family know from training.
    functions = "\n".join(json.dumps(offer.function, ensure_ascii=False) for offer in offers)
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
    """The text that shows one agent's call to the other agents of a discussion: a line with the call, then its result.

    Args:
        name: Role that made the call.
        call: The call with its result; it may have failed.
    """
    return f"{name}: {call.name}({json.dumps(call.arguments, ensure_ascii=False)})\n{call.result}"


@dataclass(frozen=True, slots=True)
class LastMessage(Message):
    """Marks, for a demonstrator, that only an answer is legal in the next turn; the content has no notice."""


def for_scripts(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Messages for a demonstrator: the notice is removed, and a message that had it becomes a ``LastMessage``.

    A policy sees the notice as text after the task or after a tool result. A script may copy a tool result into its
    turn, and must not copy the notice with it.

    Args:
        messages: All messages of one trajectory so far; at least one.
    """
    *before, last = messages
    if last.role == "assistant" or not last.content.endswith(NOTICE):
        return tuple(messages)
    return (*before, LastMessage(last.role, last.content.removesuffix(NOTICE).removesuffix("\n")))


def results(messages: Iterable[Message]) -> Iterator[str]:
    """Results of all calls so far in order, for demonstrators: the agent's own calls and those of its equals.

    Args:
        messages: Messages of one trajectory, as ``for_scripts`` returns them.
    """
    for message in messages:
        text = message.content.rstrip()
        if message.role == "user":
            # An agent that joins a discussion late finds the earlier calls of its equals below the task.
            yield from (entry.rstrip() for entry in _HEARD.split(text)[1:])
        elif message.role == "tool":
            yield _HEARD.sub("", text, count=1) if _HEARD.match(text) else text


def error_text(error: Exception) -> str:
    """The observation that a policy gets for a failed call."""
    return f"error: {str(error) or type(error).__name__}"
