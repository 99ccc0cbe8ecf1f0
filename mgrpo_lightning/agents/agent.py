"""Agent: one trajectory, played as a coroutine. Sample a turn, read it, run its calls, show the results, again."""

from __future__ import annotations

from collections.abc import Callable

from mgrpo_lightning.agents.actions import Action, Violation
from mgrpo_lightning.agents.calls import Delegate, run_calls
from mgrpo_lightning.agents.seat import Seat
from mgrpo_lightning.policy.sampling.base import Conversation, SampledTurn, SamplingParams
from mgrpo_lightning.trajectory import Message, Span, Trajectory


class Agent:
    """Plays one trajectory to its end: an answer, or the first broken format rule.

    A call that fails, names nothing or has wrong arguments is answered with an ``error: ...`` observation and play
    goes on; text that breaks the protocol ends the trajectory, invalid.

    Args:
        seat: The role.
        trajectory: The record to fill; its first span is the prompt on which ``conversation`` was opened.
        conversation: The policy's token sequence.
        delegate: Starts sub-agents.
        stream: Random stream of a turn, by its index.
    """

    def __init__(
        self,
        seat: Seat,
        trajectory: Trajectory,
        conversation: Conversation,
        *,
        delegate: Delegate,
        stream: Callable[[int], int],
    ) -> None:
        assert [span.kind for span in trajectory.spans] == ["observation"], "a trajectory starts with its prompt"
        self.seat = seat
        self.trajectory = trajectory
        self._conversation = conversation
        self._delegate = delegate
        self._stream = stream
        self._last = self._is_last(conversation.length)

    async def play(self) -> None:
        """Fill the trajectory; what is recorded stays there when this raises."""
        try:
            while await self._advance():
                pass
        except OSError:
            self._violate(Violation.INTERRUPTED)
            raise
        finally:
            self._conversation.close()

    async def _advance(self) -> bool:
        """One turn and its observation; whether another turn follows."""
        limits, record = self.seat.config.limits, self.trajectory
        room = limits.context - self._conversation.length
        if room <= 0:
            return self._violate(Violation.CONTEXT_EXHAUSTED)
        index = record.num_turns
        turn = await self._conversation.sample(self._params(min(limits.new_tokens, room)), self._stream(index))
        action = self._read(turn)
        if action.violations:
            return self._violate(*action.violations)
        if action.answer is not None:
            record.answer = action.answer
            return False
        if self._last:
            return self._violate(Violation.NO_ANSWER_AT_END)
        allowed = limits.calls - len(record.calls)
        calls = await run_calls(self.seat, action.calls, turn=index, allowed=allowed, delegate=self._delegate)
        record.calls += calls
        self._observe([call.result for call in calls])
        return True

    def _read(self, turn: SampledTurn) -> Action:
        """Record a turn and parse it; a cut one is a violation whatever its text."""
        record, chat = self.trajectory, self.seat.chat
        record.spans.append(Span("action", turn.ids, turn.logprobs, turn.version, truncated=not turn.stopped))
        text = chat.decode_action(turn.ids)
        record.messages.append(Message("assistant", text))
        if not turn.stopped:
            return Action(text, violations=(Violation.TRUNCATED,))
        return self.seat.dialect.parse(text)

    def _observe(self, results: list[str]) -> None:
        """Put results in front of the policy, cut to what its limits leave room for."""
        chat, limits, length = self.seat.chat, self.seat.config.limits, self._conversation.length
        contents = self.seat.cut(results)
        self._last = self._is_last(length + len(chat.observe(contents, after_cut=False)))
        if self._last:
            contents = self.seat.cut_with_notice(results, room=limits.context - limits.new_tokens - length)
        ids = chat.observe(contents, after_cut=False)
        self._conversation.extend(ids)
        self.trajectory.spans.append(Span("observation", tuple(ids)))
        self.trajectory.messages += [Message("tool", content) for content in contents]

    def _is_last(self, length: int) -> bool:
        return self.seat.is_last(turns=self.trajectory.num_turns, calls=len(self.trajectory.calls), length=length)

    def _params(self, max_new_tokens: int) -> SamplingParams:
        sampling = self.seat.config.sampling
        return SamplingParams(
            max_new_tokens, self.seat.chat.stop_ids, self.trajectory.temperature, sampling.top_p, sampling.top_k
        )

    def _violate(self, *violations: Violation) -> bool:
        self.trajectory.violations += [str(violation) for violation in violations]
        return False
