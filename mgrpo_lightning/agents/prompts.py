"""The words the package itself puts in front of a policy: system prompts, the answer-now notice, error texts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mgrpo_lightning.roles import RoleConfig
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


def system_prompt(name: str, role: RoleConfig, offers: Iterable[Signature]) -> str:
    """The role's own system prompt, or one written from its description and what it may call.

    Args:
        name: Name of the role.
        role: Its configuration; ``system_prompt`` wins.
        offers: What it may call.
    """
    if role.system_prompt is not None:
        return role.system_prompt
    purpose = f"You are {name}. {role.description}".strip()
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


def error_text(error: Exception) -> str:
    """What a policy is shown of a failed call."""
    return f"error: {str(error) or type(error).__name__}"
