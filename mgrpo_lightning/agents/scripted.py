"""ScriptedConversation: a demonstrator in the sampler's place, for warm starts (its log-probabilities are all 0)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from typing_extensions import override

from mgrpo_lightning.policy.sampling.base import Conversation, SampledTurn, SamplingParams
from mgrpo_lightning.tasks.base import Script
from mgrpo_lightning.trajectory import Message

if TYPE_CHECKING:
    from mgrpo_lightning.policy.chat import Chat


class ScriptedConversation(Conversation):
    """Turns come from a script and are encoded, stop token included, under the same limits as sampled ones.

    Args:
        script: Who speaks.
        chat: Encodes its text.
        messages: The trajectory's messages, as they grow.
        length: Tokens of the prompt.
    """

    def __init__(self, script: Script, chat: Chat, messages: Sequence[Message], *, length: int) -> None:
        self._script = script
        self._chat = chat
        self._messages = messages
        self._length = length

    @property
    @override
    def length(self) -> int:
        return self._length

    @override
    def extend(self, ids: Sequence[int]) -> None:
        self._length += len(ids)

    @override
    async def sample(self, params: SamplingParams, stream: int) -> SampledTurn:
        ids = tuple(self._chat.encode_action(self._script.reply(tuple(self._messages))))
        kept = ids[: params.max_new_tokens]
        self._length += len(kept)
        return SampledTurn(kept, (0.0,) * len(kept), stopped=len(kept) == len(ids), version=0)

    @override
    def fork(self, n: int) -> list[Conversation]:
        raise NotImplementedError("a script plays one trajectory")

    @override
    def close(self) -> None:
        pass
