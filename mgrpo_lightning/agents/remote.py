"""RemoteCalls: exchange delegations and reports with roles of other processes through the store; wait for their rounds.

The caller's process publishes a call as a delegation. The callee's process publishes the report as a return, which
names the delegation by its hash. Under the ``rounds`` schedule the processes synchronise after each round: each one
publishes its records of the round and a round mark, and goes on when its callers and callees have published theirs.
So every round holds the same turns as in a single process.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

from mgrpo_lightning.agents.play import PlayRequest
from mgrpo_lightning.errors import DataError, ToolError
from mgrpo_lightning.persistence.resume_log import key_of
from mgrpo_lightning.policy.sampling.scheduler import Scheduler
from mgrpo_lightning.protocol.prompts import error_text
from mgrpo_lightning.records.trajectory import Key, Trajectory
from mgrpo_lightning.roles.config import RoleConfig
from mgrpo_lightning.store.exchange import PAUSES, Exchange
from mgrpo_lightning.store.layout import BEAT
from mgrpo_lightning.store.record import Record
from mgrpo_lightning.unicode import encodable

T = TypeVar("T")


class RemoteCalls:
    """The calls of one play to and from roles that other processes play.

    Args:
        exchange: This process's connection to the store.
        scheduler: Runs the agents of this process.
        roles: Configuration of every role of the team, by name.
        local: Roles that this process plays.
        request: What is played. Its resume log is flushed to disk before records are published, so that a resumed
            process says the same again.
        answer: Plays a delegation from another process and returns its trajectory.
    """

    def __init__(
        self,
        exchange: Exchange,
        scheduler: Scheduler,
        roles: Mapping[str, RoleConfig],
        local: set[str],
        request: PlayRequest,
        answer: Callable[[Record], Awaitable[Trajectory]],
    ) -> None:
        self.exchange = exchange
        self.local = local
        self._scheduler = scheduler
        self._place = (request.stage, request.step)
        self._queries = request.queries
        self._resume_log = request.resume_log
        self._answer = answer
        # Peers: the roles elsewhere that call a local role or are called by one.
        self._peers = sorted(
            name
            for name, role in roles.items()
            if name not in local and (local & set(role.calls) or any(name in roles[here].calls for here in local))
        )
        self._round = 0
        self._said: list[Record] = []
        self._spoke = asyncio.Event()
        self._pending: dict[str, tuple[Record, asyncio.Future[Record]]] = {}
        """Calls from here that have no report yet, by the hash of the delegation."""
        self._lost_since: float | None = None
        self._taken: set[str] = set()
        self._answered: set[str] = set()
        self._over: asyncio.Future[None] | None = None
        self.delegations: dict[Key, str] = {}
        """Hashes of the delegations that this process made or played for others, by key."""

    def delegate(self, key: Key, role: str, task: str, parent: int) -> Awaitable[str]:
        """Call a role of another process; returns an awaitable of its report, which may raise ToolError.

        Args:
            key: Key of the new invocation.
            role: Name of the called role.
            task: Text of the subtask.
            parent: Invocation index of the caller.
        """
        stage, _ = self._place
        call = Record("delegations", stage, key, role, text=encodable(task), parent=parent, round=self._number)
        self._note(call)
        self.delegations[key] = call.hash
        answered: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
        self._pending[call.hash] = call, answered
        return self._report(answered)

    async def serve(self) -> None:
        """Wait until main's play is over. This is the only agent in a process that does not play main."""
        self._over = asyncio.get_running_loop().create_future()
        with self._scheduler.blocked():
            await self._scheduler.elsewhere(self._over)

    async def meet(self) -> None:
        """Synchronise with the peers at the end of a round; see ``Link.meet``."""
        stage, step = self._place
        mark = Record("frontiers", stage, self._key, self.exchange.role, event="round", round=self._round)
        said, self._said = [*self._said, mark], []
        await asyncio.to_thread(self._say, said)
        self.exchange.at(stage=stage, step=step, round=self._round)
        await self._until(self._all_met, f"round {self._round} of {stage} step {step}")
        self._deliver(self._round)
        if self._pending and self._marks("play"):
            await self._refuse_lost_calls()
            # A peer whose play is over does not hold up a round: without a pause, the rounds would spin.
            await asyncio.sleep(PAUSES[1])
        self._round += 1

    async def run(self) -> None:
        """Publish and read records continuously (``eager`` schedule) until cancelled; see ``Link.run``."""
        self.exchange.at(stage=self._place[0], step=self._place[1])
        first, longest = PAUSES
        pause, looked = first, time.monotonic()
        while True:
            self._spoke.clear()
            said, self._said = self._said, []
            if said:
                await asyncio.to_thread(self._say, said)
            heard = await asyncio.to_thread(self.exchange.refresh)
            self._deliver(None)
            # When main's play is over, its process may end: that is no error.
            if self._over is None or not self._over.done():
                self.exchange.check("calls and reports of the other roles")
            if self._pending and time.monotonic() - looked > BEAT:
                await self._refuse_lost_calls()
                looked = time.monotonic()
            pause = first if said or heard else min(pause * 1.3, longest)
            with suppress(TimeoutError):  # a new local record is published at once, without waiting for the next poll
                await asyncio.wait_for(self._spoke.wait(), pause)

    def finish(self) -> None:
        """Publish the last records and then the mark that this play is over."""
        stage, _ = self._place
        over = Record("frontiers", stage, self._key, self.exchange.role, event="play")
        self._say([*self._said, over])
        self._said = []

    @property
    def _key(self) -> Key:
        return Key(self._place[1], self._queries.start, -1, -1)

    @property
    def _number(self) -> int | None:
        return self._round if self._scheduler.schedule == "rounds" else None

    async def _report(self, answered: asyncio.Future[Record]) -> str:
        record = await self._scheduler.elsewhere(answered)
        if record.failed:
            raise ToolError((record.text or "").removeprefix("error: "))
        return record.text or ""

    def _marks(self, event: str) -> list[Record]:
        stage, step = self._place
        return [
            record
            for record in self.exchange.ledger.find("frontiers", stage, step)
            if record.event == event and record.key == self._key and record.role in self._peers
        ]

    def _all_met(self) -> bool | None:
        over = {record.role for record in self._marks("play")}
        met = {record.role for record in self._marks("round") if record.round == self._round}
        return True if over | met >= set(self._peers) else None

    def _deliver(self, number: int | None) -> None:
        """Deliver the returns and delegations of a round (None: ``eager``) to the agents here, in the order of keys."""
        stage, step = self._place
        ledger = self.exchange.ledger
        for record in sorted(ledger.find("returns", stage, step), key=lambda record: record.key):
            # A faster peer may have published records of the next round already: they wait.
            if record.round == number and (asked := self._pending.pop(record.of or "", None)):
                _, report = asked
                if not report.done():
                    report.set_result(record)
        calls = [
            record
            for record in ledger.find("delegations", stage, step)
            if record.role in self.local and record.key.query in self._queries
        ]
        for record in sorted(calls, key=lambda record: record.key):
            if record.round == number and record.hash not in self._taken:
                self._taken.add(record.hash)
                self._scheduler.spawn(self._serve(record))
        # A restarted process may find that main's play is over; it still has to play its own part of it first.
        answered = all(record.hash in self._answered for record in calls)
        if self._over is not None and not self._over.done() and answered and self._marks("play"):
            self._over.set_result(None)

    async def _serve(self, call: Record) -> None:
        trajectory: Trajectory | None = None
        # A resumed caller may reword a call under the same key: the later one replaces both hash and trajectory.
        self.delegations[call.key] = call.hash
        try:
            trajectory = await self._answer(call)
            text, failed = trajectory.answer, False
            if text is None:
                raise ToolError(f"{call.role} gave no answer.")
        except (ToolError, OSError) as error:
            text, failed = error_text(error), True
        except BaseException as error:
            if self._over is not None and not self._over.done() and not isinstance(error, asyncio.CancelledError):
                self._over.set_exception(error)
            raise
        self._answered.add(call.hash)
        self._note(
            Record(
                "returns",
                call.stage,
                call.key,
                call.role,
                of=call.hash,
                text=encodable(text),
                failed=failed,
                trajectory=digest(trajectory) if trajectory else None,
                version=max((span.version for span in trajectory.spans), default=0) if trajectory else None,
                round=self._number,
            )
        )

    def _note(self, record: Record) -> None:
        """Queue a record for the next publication."""
        self._said.append(record)
        self._spoke.set()

    def _say(self, records: Sequence[Record]) -> None:
        # fsync first: a record that others have read must survive a crash of this machine.
        if self._resume_log is not None:
            self._resume_log.sync()
        self.exchange.say(records)

    async def _refuse_lost_calls(self) -> None:
        """Raise DataError if a pending call can never be answered, because the called process is past this play.

        Its earlier answers may become visible late, as late as its heartbeat. So the error waits for ``lost_after`` s.
        """
        stage, step = self._place
        calls = [call for call, _ in self._pending.values()]
        gone = {
            role
            for role in {call.role for call in calls}
            if await asyncio.to_thread(self.exchange.past, role, stage, step)
        }
        lost = [call for call in calls if call.role in gone and call.hash in self._pending]
        if not lost:
            self._lost_since = None
        elif self._lost_since is None:
            self._lost_since = time.monotonic()
        elif time.monotonic() - self._lost_since > self.exchange.lost_after:
            raise DataError(
                f"role {lost[0].role!r} has finished {stage} step {step} without the call "
                f"{lost[0].text!r}: {self.exchange.role!r} was resumed and calls something else than before.",
                hint=f"resume all roles from checkpoints of step {step} or earlier; remove later ones.",
            )

    async def _until(self, found: Callable[[], T | None], what: str) -> T:
        # Cancelling a coroutine does not end its thread; the event does.
        stop = threading.Event()
        try:
            return await asyncio.to_thread(self.exchange.until, found, what, stop)
        finally:
            stop.set()


def digest(trajectory: Trajectory) -> str:
    """A hash of a trajectory's training data: role, key, and the ids and log-probabilities of all spans."""
    return key_of(trajectory.role, trajectory.key, *(segment.spans for segment in trajectory.segments))
