"""Agent: play one trajectory: sample a turn, parse it, run its calls, append results, until an answer or violation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from mgrpo_lightning.agents.calls import Delegate, run_calls
from mgrpo_lightning.agents.play import Watch
from mgrpo_lightning.agents.seat import Seat
from mgrpo_lightning.policy.sampling.base import Conversation, SampledTurn, SamplingParams
from mgrpo_lightning.protocol.actions import Action, Violation
from mgrpo_lightning.records.trajectory import Call, Message, Span, Trajectory


class Agent:
    """Plays one trajectory until it has an answer or breaks a format rule.

    If a call fails, has an unknown name or has wrong arguments, the observation is an ``error: ...`` text, and play
    goes on. If a turn breaks the protocol, the trajectory ends and is invalid.

    Args:
        seat: The role and everything it needs to play.
        trajectory: The record to fill. Its only span is the prompt on which ``conversation`` was opened.
        conversation: The token sequence at the sampler.
        delegate: Starts sub-agents and records tool calls.
        stream: Maps the index of a turn to the id of its random stream.
        watch: Called after each message that is added to the trajectory; None: nobody watches.
    """

    def __init__(
        self,
        seat: Seat,
        trajectory: Trajectory,
        conversation: Conversation,
        *,
        delegate: Delegate,
        stream: Callable[[int], int],
        watch: Watch | None = None,
    ) -> None:
        assert [span.kind for span in trajectory.spans] == ["observation"], "a trajectory starts with its prompt"
        self._spans = trajectory.segments[-1].spans
        self.seat = seat
        self.trajectory = trajectory
        self._conversation = conversation
        self._delegate = delegate
        self._stream = stream
        self._watch = watch
        self._last = self._is_last(conversation.length)

    async def play(self) -> None:
        """Play to the end and fill the trajectory. If this raises, the trajectory keeps the turns played so far."""
        with self.playing():
            while (action := await self.turn()) is not None and action.answer is None:
                self.observe([call.result for call in await self.call(action)])

    @contextmanager
    def playing(self) -> Iterator[None]:
        """Context in which the agent is played; on exit, frees the KV cache of the conversation."""
        try:
            yield
        except OSError:  # the engine failed; run_calls turns the errors of tools into text
            self._violate(Violation.INTERRUPTED)
            raise
        finally:
            self._conversation.close()

    async def turn(self) -> Action | None:
        """Sample, parse and record the next turn; returns None if it broke a format rule."""
        limits, record = self.seat.config.limits, self.trajectory
        room = limits.context - self._conversation.length
        # Only a prompt can fill the context: `observe` always leaves room for an answering turn.
        if room <= 0:
            self._violate(Violation.CONTEXT_EXHAUSTED)
            return None
        index = record.num_turns
        turn = await self._conversation.sample(self._params(min(limits.new_tokens, room)), self._stream(index))
        action = self._read(turn)
        if action.violations:
            self._violate(*action.violations)
            return None
        if action.answer is None and self._last:
            self._violate(Violation.NO_ANSWER_AT_END)
            return None
        record.answer = action.answer
        return action

    async def call(self, action: Action) -> list[Call]:
        """Run the calls of the last sampled turn, record them in the trajectory, and return them with their results.

        Args:
            action: The parsed turn; it has calls and no answer.
        """
        record = self.trajectory
        allowed = self.seat.config.limits.calls - len(record.calls)
        turn = record.num_turns - 1
        calls = await run_calls(self.seat, action.calls, turn=turn, allowed=allowed, delegate=self._delegate)
        record.calls += calls
        return calls

    def _read(self, turn: SampledTurn) -> Action:
        """Record a turn and parse it. A turn without a stop token is a violation, whatever its text."""
        chat = self.seat.chat
        self._spans.append(Span("action", turn.ids, turn.logprobs, turn.version, truncated=not turn.stopped))
        text = chat.decode_action(turn.ids)
        self._say(Message("assistant", text))
        if not turn.stopped:
            return Action(text, violations=(Violation.TRUNCATED,))
        action = self.seat.dialect.parse(text)
        # Not every special token has the form <|...|> that the parser finds, so the ids are checked too. The last id is
        # the stop token, which may be a control token.
        if self.seat.control_ids.isdisjoint(turn.ids[:-1]) or Violation.CONTROL_TOKEN in action.violations:
            return action
        return Action(action.thought, violations=(Violation.CONTROL_TOKEN, *action.violations))

    def observe(self, results: Sequence[str]) -> None:
        """Append an observation to the trajectory, cut to the limits of the role.

        Args:
            results: Results of the agent's calls, or texts of other agents' calls; at least one.
        """
        chat, limits, length = self.seat.chat, self.seat.config.limits, self._conversation.length
        contents = self.seat.cut(results)
        # A turn may end with a stop token other than the template's; the observation then begins with the template's.
        unended = self._spans[-1].ids[-1] != chat.end_id
        self._last = self._is_last(length + len(chat.observe(contents, after_cut=unended)))
        if self._last:
            # Reserve a whole turn for the answer.
            room = limits.context - limits.new_tokens - length
            contents = self.seat.cut_with_notice(results, room=room, after_cut=unended)
        ids = chat.observe(contents, after_cut=unended)
        self._conversation.extend(ids)
        self._spans.append(Span("observation", tuple(ids)))
        for content in contents:
            self._say(Message("tool", content))

    def _say(self, message: Message) -> None:
        self.trajectory.messages.append(message)
        if self._watch is not None:
            self._watch(self.trajectory)

    def _is_last(self, length: int) -> bool:
        return self.seat.is_last(turns=self.trajectory.num_turns, calls=len(self.trajectory.calls), length=length)

    def _params(self, max_new_tokens: int) -> SamplingParams:
        sampling = self.seat.config.sampling
        return SamplingParams(
            max_new_tokens, self.seat.chat.stop_ids, self.trajectory.temperature, sampling.top_p, sampling.top_k
        )

    def _violate(self, *violations: Violation) -> None:
        self.trajectory.violations += [str(violation) for violation in violations]
