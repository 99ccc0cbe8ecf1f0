"""Run the calls of one turn: all at once, results in the order of the calls, failures as text the policy can read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from mgrpo_lightning.agents.seat import Seat
from mgrpo_lightning.errors import ToolBroken, ToolError
from mgrpo_lightning.protocol.actions import ToolCall
from mgrpo_lightning.protocol.arguments import check_arguments
from mgrpo_lightning.protocol.prompts import ROLE_SCHEMA, error_text
from mgrpo_lightning.records.trajectory import Call
from mgrpo_lightning.tools.apart import Limit
from mgrpo_lightning.unicode import encodable, start_of


class Delegate(Protocol):
    """How an agent starts a sub-agent."""

    def start(self, role: str, task: str) -> tuple[int, Awaitable[str]]:
        """Number the invocation and start its play; the awaitable gives the report or raises ToolError.

        Args:
            role: Whom to call.
            task: The subtask.
        """
        ...

    def waiting(self) -> AbstractContextManager[None]:
        """Entered while the caller does nothing but wait for sub-agents."""
        ...

    async def once(self, place: tuple[int, int], call: ToolCall, run: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """The outcome of a tool call, run now unless a killed play of the same step has finished it.

        Args:
            place: Index of the turn, and of the call within it.
            call: What is called.
            run: Calls the tool.
        """
        ...

    def broken(self, call: ToolCall, error: ToolBroken) -> None:
        """Note that a tool broke down.

        Args:
            call: What was called.
            error: What the policy will see.
        """
        ...


@dataclass(frozen=True)
class Outcome:
    """What became of a call."""

    text: str
    failed: bool
    seconds: float


async def run_calls(
    seat: Seat, calls: Sequence[ToolCall], *, turn: int, allowed: int, delegate: Delegate
) -> list[Call]:
    """Run all calls of a turn concurrently.

    What a tool or a sub-agent raises as ToolError or OSError (timeouts included) becomes the result of that call;
    any other exception is a programming error and ends the play. Invocations are numbered before anything is awaited.

    Args:
        seat: Who calls.
        calls: The turn's calls, at least one.
        turn: Index of the turn.
        allowed: Calls left in the budget; those behind it fail.
        delegate: Starts sub-agents.
    """
    invocations: dict[int, int] = {}
    outcomes: dict[int, asyncio.Task[Outcome]] = {}
    for position, call in enumerate(calls):
        work: Awaitable[Outcome]
        try:
            if position >= allowed:
                raise ToolError("the budget of calls is used up.")
            if call.name in seat.callees:
                check_arguments(call.name, ROLE_SCHEMA, call.arguments)
                invocations[position], report = delegate.start(call.name, str(call.arguments["task"]))
                work = _outcome(seat, report)
            else:
                work = delegate.once((turn, position), call, partial(_run_tool, seat, call, delegate.broken))
        except ToolError as error:
            work = _outcome(seat, _fail(error))
        outcomes[position] = asyncio.ensure_future(work)
    try:
        # Tools first: only then does the caller merely wait for its sub-agents, which a round of sampling may skip.
        await asyncio.gather(*(task for position, task in outcomes.items() if position not in invocations))
        if invocations:
            with delegate.waiting():
                await asyncio.gather(*(outcomes[position] for position in invocations))
    except BaseException:
        for task in outcomes.values():
            task.cancel()
        raise
    return [
        Call(turn, call.name, call.arguments, done.text, done.failed, invocations.get(position), done.seconds)
        for position, call in enumerate(calls)
        for done in (outcomes[position].result(),)
    ]


async def _outcome(seat: Seat, work: Awaitable[str]) -> Outcome:
    started = time.perf_counter()
    try:
        text, failed = await work, False
    except (ToolError, OSError) as error:
        text, failed = error_text(error), True
    return Outcome(encodable(start_of(text, seat.kept)), failed, time.perf_counter() - started)


async def _run_tool(seat: Seat, call: ToolCall, broken: Callable[[ToolCall, ToolBroken], None]) -> Outcome:
    async def work() -> str:
        try:
            return await _tool_call(seat, call)
        except ToolBroken as error:
            broken(call, error)
            raise

    return await _outcome(seat, work())


async def _tool_call(seat: Seat, call: ToolCall) -> str:
    tool = seat.tools.get(call.name)
    if tool is None:
        names = [offer.name for offer in seat.offers]
        raise ToolError(f"there is nothing called {call.name!r}.", hint=f"you may call {names}.")
    check_arguments(call.name, tool.parameters, call.arguments)
    seconds = seat.config.limits.tool_seconds
    limit = Limit(seconds)
    try:
        async with limit:
            return await tool(**call.arguments)
    except TimeoutError as error:
        if not limit.passed:
            raise
        raise ToolBroken(f"{call.name} took longer than {seconds:g} s.") from error


async def _fail(error: ToolError) -> str:
    raise error
