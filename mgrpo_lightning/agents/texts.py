"""Conversations whose turns are text before they are tokens: of a script, or of a model behind an endpoint.

Their tokens are made by the role's own tokenizer, under the same limits as sampled ones; log-probabilities are all 0,
so nothing of them can be trained on by reinforcement.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from mgrpo_lightning.persistence.resume_log import OpenStep, key_of
from mgrpo_lightning.policy.sampling.base import Conversation, SampledTurn, SamplingParams
from mgrpo_lightning.protocol.prompts import for_scripts
from mgrpo_lightning.records.trajectory import Key, Message
from mgrpo_lightning.services.endpoint import ChatEndpoint, Completion
from mgrpo_lightning.tasks.base import Script
from mgrpo_lightning.unicode import encodable

if TYPE_CHECKING:
    from mgrpo_lightning.policy.chat import Chat


class TextConversation(Conversation):
    """Whoever speaks sees messages and answers with text.

    Args:
        chat: Encodes the text, stop token included.
        messages: The trajectory's messages, as they grow.
        length: Tokens of the prompt.
    """

    def __init__(self, chat: Chat, messages: Sequence[Message], *, length: int) -> None:
        self._chat = chat
        self._messages = messages
        self._length = length

    @abstractmethod
    async def reply(self, params: SamplingParams, stream: int) -> Completion:
        """The next turn.

        Args:
            params: How to sample it, where it is sampled.
            stream: Of random numbers.
        """

    @property
    @override
    def length(self) -> int:
        return self._length

    @override
    def extend(self, ids: Sequence[int]) -> None:
        self._length += len(ids)

    @override
    async def sample(self, params: SamplingParams, stream: int) -> SampledTurn:
        said = await self.reply(params, stream)
        ids = tuple(self._chat.encode_action(encodable(said.text)))
        kept = ids[: params.max_new_tokens]
        self._length += len(kept)
        return SampledTurn(kept, (0.0,) * len(kept), stopped=len(kept) == len(ids) and not said.cut, version=0)

    @override
    def fork(self, n: int) -> list[Conversation]:
        raise NotImplementedError("it plays one trajectory")

    @override
    def close(self) -> None:
        pass


class ScriptedConversation(TextConversation):
    """A demonstrator in the sampler's place, for warm starts.

    Args:
        script: Who speaks.
        chat: Encodes its text.
        messages: The trajectory's messages, as they grow.
        length: Tokens of the prompt.
    """

    def __init__(self, script: Script, chat: Chat, messages: Sequence[Message], *, length: int) -> None:
        super().__init__(chat, messages, length=length)
        self._script = script

    @override
    async def reply(self, params: SamplingParams, stream: int) -> Completion:
        return Completion(self._script.reply(for_scripts(self._messages)), cut=False)


class EndpointConversation(TextConversation):
    """A model behind an OpenAI-compatible endpoint in the sampler's place, for a role that is not trained.

    Tool results go as a user's words: the protocol is the team's own text, not the API's tool calls.

    Args:
        endpoint: Who speaks.
        chat: Encodes its text.
        messages: The trajectory's messages, as they grow.
        length: Tokens of the prompt.
        key: Of the trajectory.
        memory: What a killed play of this step has finished.
    """

    def __init__(
        self,
        endpoint: ChatEndpoint,
        chat: Chat,
        messages: Sequence[Message],
        *,
        length: int,
        key: Key,
        memory: OpenStep | None = None,
    ) -> None:
        super().__init__(chat, messages, length=length)
        self._endpoint = endpoint
        self._key = key
        self._memory = memory

    @override
    async def reply(self, params: SamplingParams, stream: int) -> Completion:
        config = self._endpoint.config
        asked = [config.parameters] if config.parameters else []
        place = key_of("endpoint", config.model, self._key, tuple(self._messages), params, *asked)
        if self._memory is not None and (known := self._memory.get(place)) is not None:
            return Completion(**known)
        sampling: dict[str, Any] = {"temperature": params.temperature, "max_tokens": params.max_new_tokens}
        if params.top_p < 1:
            sampling["top_p"] = params.top_p
        said = await self._endpoint.ask([_sent(message) for message in self._messages], lambda found: found, **sampling)
        if self._memory is not None:
            self._memory.put(place, {"text": said.text, "cut": said.cut})
        return said


def _sent(message: Message) -> dict[str, str]:
    if message.role == "tool":
        # A page that closes its own frame would go on as the user.
        content = message.content.replace("</tool_response>", "</ tool_response>")
        return {"role": "user", "content": f"<tool_response>\n{content}\n</tool_response>"}
    return {"role": message.role, "content": message.content}
