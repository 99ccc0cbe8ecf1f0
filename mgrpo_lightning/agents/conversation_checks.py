"""Check recorded conversations against a team before it replays them: roles, tools, arguments, limits, sub-agents."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from mgrpo_lightning.agents.seat import Seat
from mgrpo_lightning.errors import ConfigurationError, DataError, ToolError
from mgrpo_lightning.protocol.actions import ToolCall
from mgrpo_lightning.protocol.arguments import check_arguments
from mgrpo_lightning.protocol.prompts import ROLE_SCHEMA
from mgrpo_lightning.tasks.conversations import Conversation, Conversations, read_conversations


def conversations_of(path: Path, main: str, roles: Collection[str], seats: Mapping[str, Seat]) -> Conversations:
    """Read the recorded conversations of a team, and check that its roles can play them.

    Args:
        path: File of the conversations.
        main: Name of the role that answers the questions.
        roles: Names of all roles of the team.
        seats: The roles that this process plays, by name; only their conversations are checked against tools.

    Raises:
        DataError: A conversation cannot be read, is of an unknown role, calls something that its role does not have or
            for which no conversation is recorded, or does not fit into the limits of its role.
        ConfigurationError: The team discusses; its turns depend on each other, and cannot be replayed.
    """
    if any(seat.equals for seat in seats.values()):
        raise ConfigurationError(
            "recorded conversations cannot be replayed by roles that discuss.",
            hint="leave out data.demonstrations, or discusses_with.",
        )
    conversations = read_conversations(path, main)
    for one in conversations.found:
        if one.role not in roles:
            raise one.line.bad("role", f"the team has no role {one.role!r}, but {sorted(roles)}")
        if one.role in seats:
            _check(one, seats[one.role], conversations)
    return conversations


def _check(one: Conversation, seat: Seat, conversations: Conversations) -> None:
    limits = seat.config.limits
    calls = sum(len(turn.action.calls) for turn in one.turns)
    for name, count, limit in (("turns", len(one.turns), limits.turns), ("calls", calls, limits.calls)):
        if count > limit:
            raise _unfit(one, f"it has {count} {name}, but limits.{name} of {seat.role!r} is {limit}")
    for turn in one.turns:
        place = f"message {turn.number}"
        if (tokens := len(seat.chat.encode_action(turn.text))) > limits.new_tokens:
            raise _unfit(
                one, f"{place} has {tokens} tokens, but limits.new_tokens of {seat.role!r} is {limits.new_tokens}"
            )
        for call in turn.action.calls:
            if problem := _misfit(call, seat, conversations):
                raise _unfit(one, f"{place}: {problem}")


def _misfit(call: ToolCall, seat: Seat, conversations: Conversations) -> str:
    """Return why a role cannot make a call; "" if it can."""
    tool = seat.tools.get(call.name)
    if tool is None and call.name not in seat.callees:
        return f"{seat.role!r} may not call {call.name!r}, only {[offer.name for offer in seat.offers]}"
    try:
        check_arguments(call.name, ROLE_SCHEMA if tool is None else tool.parameters, call.arguments)
    except ToolError as error:
        return error.message.rstrip(".")
    if tool is None and not conversations.has(call.name, str(call.arguments["task"])):
        return f"it gives {call.name!r} the task {call.arguments['task']!r}, about which there is no conversation of it"
    return ""


def _unfit(one: Conversation, problem: str) -> DataError:
    return one.line.bad("messages", f"the conversation does not fit the team: {problem}")
