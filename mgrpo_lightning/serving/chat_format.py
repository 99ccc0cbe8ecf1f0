"""Read requests of OpenAI's chat-completions format, and write a team's answers and progress in that format."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.protocol.actions import parse
from mgrpo_lightning.protocol.tree import MAX_LINES
from mgrpo_lightning.records.trajectory import Rollout, Trajectory

IGNORED = frozenset(
    ("max_tokens", "max_completion_tokens", "user", "metadata", "store", "seed", "service_tier", "parallel_tool_calls")
)
"""Parameters without effect: the team file sets the limits, and each question has random numbers of its own."""
NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "n": (1,),
    "top_p": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logprobs": (False,),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "modalities": (["text"],),
}
"""Parameters of which only these values are taken; null is taken for every parameter."""
READ = ("model", "messages", "stream", "stream_options", "temperature")


@dataclass(frozen=True)
class ChatRequest:
    """One request, checked."""

    text: str
    """What the team is asked."""
    stream: bool = False
    usage: bool = False
    """Whether a stream ends with a chunk of token counts."""
    temperature: float | None = None
    """Sampling temperature of all roles; None: that of the team's validation."""


def read_request(body: object) -> ChatRequest:
    """Check the body of a request.

    Args:
        body: The JSON value.

    Raises:
        DataError: A field is wrong, or asks for what a team cannot do.
    """
    if not isinstance(body, dict):
        raise DataError("the body is no JSON object.", hint="send an object with `model` and `messages`.")
    for name, value in body.items():
        if name in READ or name in IGNORED or value is None:
            continue
        if name not in NEUTRAL:
            raise DataError(f"the parameter {name!r} is not known.", hint=f"leave it out; known are {[*READ]}.")
        if value not in NEUTRAL[name]:
            raise DataError(f"a team cannot use {name} = {value!r}.", hint="leave it out.")
    temperature = body.get("temperature")
    if temperature is not None and not (type(temperature) in (int, float) and 0 <= temperature <= 2):
        raise DataError(f"the temperature is {temperature!r}.", hint="give a number from 0 to 2, 0 for greedy.")
    options = body.get("stream_options") or {}
    if not isinstance(options, dict) or not isinstance(body.get("stream") or False, bool):
        raise DataError("`stream` is no boolean, or `stream_options` no object.", hint="correct them.")
    return ChatRequest(
        _question(body.get("messages")),
        stream=bool(body.get("stream")),
        usage=bool(options.get("include_usage")),
        temperature=None if temperature is None else float(temperature),
    )


def _question(messages: object) -> str:
    """The text that the team is asked: the one message of the user, or the whole conversation as a transcript."""
    if not isinstance(messages, list) or not messages:
        raise DataError("there are no messages.", hint="send at least one message of the user.")
    said = [_message(message, index) for index, message in enumerate(messages)]
    if said[-1][0] != "user":
        raise DataError(f"the last message is of {said[-1][0]!r}.", hint="end with a message of the user.")
    if not said[-1][1].strip():
        raise DataError("the last message is empty.", hint="send a question.")
    if len(said) == 1:
        return said[0][1]
    return "\n\n".join(f"{role}: {text}" for role, text in said)


def _message(message: object, index: int) -> tuple[str, str]:
    if not isinstance(message, dict) or message.get("role") not in ("system", "developer", "user", "assistant"):
        role = message.get("role") if isinstance(message, dict) else message
        raise DataError(f"message {index} is of {role!r}.", hint="send messages of system, user and assistant.")
    content = message.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list) or any(
        not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str)
        for part in parts
    ):
        raise DataError(f"the content of message {index} is no text.", hint="a team reads text only.")
    return message["role"], "\n".join(part["text"] for part in parts)


@dataclass(frozen=True)
class Reply:
    """The identity of one reply, which all its chunks share."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, rollout: Rollout) -> dict[str, Any]:
        """The body of a reply that is not streamed.

        Args:
            rollout: What the team played.
        """
        message = {"role": "assistant", "content": rollout.main.answer or "", "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": _finish(rollout), "logprobs": None}
        head = {"id": self.id, "object": "chat.completion", "created": self.created, "model": self.model}
        return {**head, "choices": [choice], "usage": usage(rollout), "mgrpo": details(rollout)}

    def chunk(self, delta: Mapping[str, Any] | None, **more: Any) -> str:
        """One event of a stream.

        Args:
            delta: What is new; None for a chunk without a choice.
            **more: More fields; ``finish_reason`` belongs to the choice.
        """
        choices = []
        if delta is not None:
            choices = [{"index": 0, "delta": dict(delta), "finish_reason": more.pop("finish_reason", None)}]
        head = {"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model}
        return event({**head, "choices": choices, **more})

    def end(self, rollout: Rollout, *, with_usage: bool) -> list[str]:
        """The last events of a stream: the answer, its end, and on demand the token counts.

        Args:
            rollout: What the team played.
            with_usage: Whether the counts are sent.
        """
        events = [
            self.chunk({"content": rollout.main.answer or ""}),
            self.chunk({}, finish_reason=_finish(rollout), mgrpo=details(rollout)),
        ]
        return [*events, *([self.chunk(None, usage=usage(rollout))] if with_usage else []), "data: [DONE]\n\n"]


def event(value: Mapping[str, Any]) -> str:
    """A server-sent event.

    Args:
        value: Its data, which JSON can hold.
    """
    return f"data: {json.dumps(value)}\n\n"


def progress(trajectory: Trajectory) -> str:
    """What is new in a trajectory, for people who wait for the answer: a thought, calls, or the start of a result.

    Args:
        trajectory: Its last message is new.
    """
    message = trajectory.messages[-1]
    if message.role != "assistant":
        lines = message.content.splitlines()
        more = [f"... {len(lines) - MAX_LINES} more lines"] if len(lines) > MAX_LINES else []
        return "".join(f"    {line}\n" for line in [*lines[:MAX_LINES], *more])
    action = parse(message.content)
    thought = [f"{trajectory.role}: {' '.join(action.thought.split())}\n"] if action.thought else []
    calls = [
        f"{trajectory.role} calls {call.name}({json.dumps(call.arguments, ensure_ascii=False)})\n"
        for call in action.calls
    ]
    # Main's answer is the content of the reply; that of a sub-agent is a report to its caller.
    report = (
        [f"{trajectory.role} reports: {action.answer}\n"] if action.answer and trajectory.parent is not None else []
    )
    return "".join([*thought, *calls, *report])


def usage(rollout: Rollout) -> dict[str, int]:
    """Token counts of all trajectories: what was put in front of the policies, and what they sampled."""
    sampled = sum(trajectory.num_actions for trajectory in rollout.trajectories())
    every = sum(trajectory.num_tokens for trajectory in rollout.trajectories())
    return {"prompt_tokens": every - sampled, "completion_tokens": sampled, "total_tokens": every}


def details(rollout: Rollout) -> dict[str, Any]:
    """What OpenAI's format has no field for: broken format rules of main, and how many calls were made by whom."""
    calls: dict[str, int] = {}
    for trajectory in rollout.trajectories():
        for call in trajectory.calls:
            calls[call.name] = calls.get(call.name, 0) + 1
    return {"violations": rollout.main.violations, "calls": calls}


def _finish(rollout: Rollout) -> str:
    return "length" if rollout.main.answer is None and rollout.main.truncated else "stop"
