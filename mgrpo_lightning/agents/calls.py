"""Run a turn's tool calls and delegations concurrently: budget of calls, argument check, timeout, error texts."""

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
from mgrpo_lightning.tools.daemon_thread import Limit
from mgrpo_lightning.unicode import encodable, start_of


class Delegate(Protocol):
    """The services that a rollout gives to one of its agents: delegation, and the bookkeeping of tool calls."""

    def start(self, role: str, task: str) -> tuple[int, Awaitable[str]]:
        """Start a sub-agent; return its invocation index and an awaitable of its report (which may raise ToolError).

        Args:
            role: Name of the role to call.
            task: Text of the subtask.
        """
        ...

    def waiting(self) -> AbstractContextManager[None]:
        """A context that the caller holds while it only waits for sub-agents; see ``Scheduler.blocked``."""
        ...

    async def once(self, place: tuple[int, int], call: ToolCall, run: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """The outcome of a tool call: from the resume log if an earlier, killed process finished it, else from ``run``.

        Args:
            place: Index of the turn, and index of the call within the turn.
            call: The call, which identifies the entry of the resume log together with ``place``.
        """
        ...

    def broken(self, call: ToolCall, error: ToolBroken) -> None:
        """Count and log a tool breakdown.

        Args:
            call: The call that failed.
            error: The error that the policy will see.
        """
        ...


@dataclass(frozen=True)
class Outcome:
    """The result text of a call, whether it failed, and its duration in seconds."""

    text: str
    failed: bool
    seconds: float


async def run_calls(
    seat: Seat, calls: Sequence[ToolCall], *, turn: int, allowed: int, delegate: Delegate
) -> list[Call]:
    """Run all calls of a turn concurrently.

    A ToolError or OSError (timeouts included) of a tool or a sub-agent becomes the result of that call. Any other
    exception is a programming error and ends the play. Invocations are numbered before anything is awaited, so their
    numbers follow the order of the calls.

    Args:
        seat: The role that calls.
        calls: The calls of the turn, at least one.
        turn: Index of the turn in its trajectory.
        allowed: Number of calls left in the budget of the trajectory. Calls beyond it fail with an error text.
        delegate: Starts sub-agents and records tool calls.
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
        # Await the tools first. Inside of `waiting`, the agent counts as blocked by sub-agents, so the scheduler may
        # start a round. It must not do so while a tool runs: the batch would depend on the speed of the tool.
        await asyncio.gather(*(task for position, task in outcomes.items() if position not in invocations))
        if invocations:
            with delegate.waiting():
                await asyncio.gather(*(outcomes[position] for position in invocations))
    except BaseException:
        # No task may outlive the play: gather leaves the others running when one fails.
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
    # `kept` bounds memory and journal; the cut to the observation limit in tokens comes later.
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
        if not limit.passed:  # a TimeoutError of the tool itself
            raise
        raise ToolBroken(f"{call.name} took longer than {seconds:g} s.") from error


async def _fail(error: ToolError) -> str:
    raise error
