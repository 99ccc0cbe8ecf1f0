"""Conversations whose turns arrive as text, from a demonstrator's script or a chat endpoint, and are then encoded.

The role's own tokenizer encodes each turn, under the same limits as sampled turns. The log-probabilities are all 0, so
these turns cannot be trained on by reinforcement learning.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from mgrpo_lightning.persistence.resume_log import ResumeLog, key_of
from mgrpo_lightning.policy.sampling.base import Conversation, SampledTurn, SamplingParams
from mgrpo_lightning.protocol.prompts import for_scripts
from mgrpo_lightning.records.trajectory import Key, Message
from mgrpo_lightning.services.endpoint import ChatEndpoint, Completion
from mgrpo_lightning.tasks.base import Script
from mgrpo_lightning.unicode import encodable

if TYPE_CHECKING:
    from mgrpo_lightning.policy.chat import Chat


class TextConversation(Conversation):
    """Base class: a subclass answers messages with text, and this class encodes the text.

    Args:
        chat: Encodes the text, including the stop token.
        messages: The trajectory's message list, which the agent extends during play.
        length: Number of prompt tokens.
    """

    def __init__(self, chat: Chat, messages: Sequence[Message], *, length: int) -> None:
        self._chat = chat
        self._messages = messages
        self._length = length

    @abstractmethod
    async def reply(self, params: SamplingParams, stream: int) -> Completion:
        """The text of the next turn.

        Args:
            params: Sampling parameters; scripts ignore them.
            stream: Id of the turn's random stream; neither subclass uses it.
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
        # The limit in tokens also holds if an endpoint ignores `max_tokens` or counts with another tokenizer.
        kept = ids[: params.max_new_tokens]
        self._length += len(kept)
        # Without the stop token at its end, the turn counts as truncated, like a sampled one.
        return SampledTurn(kept, (0.0,) * len(kept), stopped=len(kept) == len(ids) and not said.cut, version=0)

    @override
    def fork(self, n: int) -> list[Conversation]:
        raise NotImplementedError("it plays one trajectory")

    @override
    def close(self) -> None:
        pass


class ScriptedConversation(TextConversation):
    """A script (demonstrator) in place of the sampler, for supervised warm starts.

    Args:
        chat: Encodes the text, including the stop token.
        messages: The trajectory's message list, which the agent extends during play.
        length: Number of prompt tokens.
    """

    def __init__(self, script: Script, chat: Chat, messages: Sequence[Message], *, length: int) -> None:
        super().__init__(chat, messages, length=length)
        self._script = script

    @override
    async def reply(self, params: SamplingParams, stream: int) -> Completion:
        return Completion(self._script.reply(for_scripts(self._messages)), cut=False)


class EndpointConversation(TextConversation):
    """A model behind an OpenAI-compatible endpoint in place of the sampler, for a role that is not trained.

    Tool results are sent as user messages, because the team's protocol is plain text and not the API's tool calls.

    Args:
        chat: Encodes the text, including the stop token.
        messages: The trajectory's message list, which the agent extends during play.
        length: Number of prompt tokens.
        key: Key of the trajectory, for the resume log.
        resume_log: Resume log of the step; a turn recorded in it is not requested again.
    """

    def __init__(
        self,
        endpoint: ChatEndpoint,
        chat: Chat,
        messages: Sequence[Message],
        *,
        length: int,
        key: Key,
        resume_log: ResumeLog | None = None,
    ) -> None:
        super().__init__(chat, messages, length=length)
        self._endpoint = endpoint
        self._key = key
        self._resume_log = resume_log

    @override
    async def reply(self, params: SamplingParams, stream: int) -> Completion:
        config = self._endpoint.config
        # The parameters of the endpoint may change its answer, so they are part of the key.
        asked = [config.parameters] if config.parameters else []
        place = key_of("endpoint", config.model, self._key, tuple(self._messages), params, *asked)
        if self._resume_log is not None and (known := self._resume_log.get(place)) is not None:
            return Completion(**known)
        sampling: dict[str, Any] = {"temperature": params.temperature, "max_tokens": params.max_new_tokens}
        if params.top_p < 1:
            sampling["top_p"] = params.top_p
        said = await self._endpoint.ask([_sent(message) for message in self._messages], lambda found: found, **sampling)
        if self._resume_log is not None:
            self._resume_log.put(place, {"text": said.text, "cut": said.cut})
        return said


def _sent(message: Message) -> dict[str, str]:
    if message.role == "tool":
        # Prompt injection: text after a closing tag inside a page would look like words of the user.
        content = message.content.replace("</tool_response>", "</ tool_response>")
        return {"role": "user", "content": f"<tool_response>\n{content}\n</tool_response>"}
    return {"role": message.role, "content": message.content}
