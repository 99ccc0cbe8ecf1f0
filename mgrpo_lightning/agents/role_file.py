"""The file beside an exported adapter that says how its role is played: prompt, tools, limits, loading of the base."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from mgrpo_lightning.agents.seat import Seat
from mgrpo_lightning.protocol.prompts import NOTICE

FILE_NAME = "role.json"
"""Name of the file of the role that owns the adapter. A role that shares it has ``role.NAME.json`` beside it."""


def role_file(seat: Seat, load: Mapping[str, Any]) -> str:
    """The content of a role's file, as JSON.

    Args:
        seat: The role, ready to play.
        load: Arguments of ``from_pretrained`` for the base; see ``NamedBase.load``.
    """
    config, chat = seat.config, seat.chat
    content = {
        "role": seat.role,
        # What stands before the user's message; empty for a role without a system prompt.
        "messages": [{"role": "system", "content": seat.system}] if seat.system else [],
        "tools": [offer.function for offer in seat.offers],
        # Those of `tools` that are other roles: a call of one is a subtask for it.
        "calls": list(seat.callees),
        "tool_results": "tool" if chat.has_tool_role else "user, in <tool_response> tags",
        # Appended to the text before the last turn.
        "last_notice": NOTICE,
        "limits": {name: None if value == math.inf else value for name, value in asdict(config.limits).items()},
        "sampling": asdict(config.sampling),
        "load": dict(load),
        "generate": {
            "max_new_tokens": config.limits.new_tokens,
            "do_sample": False,
            "eos_token_id": list(chat.stop_ids),
            "pad_token_id": chat.end_id,
        },
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def file_name(role: str, owner: str) -> str:
    """The name of a role's file in the folder of its adapter.

    Args:
        role: The role.
        owner: The role that owns the adapter; the same one, unless the adapter is shared.
    """
    return FILE_NAME if role == owner else f"role.{role}.json"
