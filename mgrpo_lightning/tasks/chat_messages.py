"""Chat messages as data sets and logs record them: find the question in them, and the messages after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class BadMessages(ValueError):
    """Messages that cannot be read; the text says which and why, and fits after the name of their place."""


def question_in(messages: Sequence[Any]) -> tuple[str, Sequence[Mapping[str, Any]]]:
    """Return the question in a chat, and the messages after it.

    The last user message is the question. System text and earlier messages stand above it, in their order, one
    paragraph each, with the name of their role in front: ``system: Answer in French.``

    Args:
        messages: Objects with ``role`` and ``content``, as the OpenAI API has them. Null is the same as missing.

    Raises:
        BadMessages: There is no user message, a message has no text, or a tool is used before the question.
    """
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise BadMessages(f"message {number} is {message!r}, not an object with a role and a content")
    last = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=None)
    if last is None:
        raise BadMessages("no message has the role 'user'")
    above = list[str]()
    for number, message in enumerate(messages[:last], start=1):
        if message["role"] not in ("system", "developer", "user", "assistant") or message.get("tool_calls"):
            raise BadMessages(f"message {number} uses a tool before the last user message, which is the question")
        if text := text_of(message, number).strip():
            above.append(f"{message['role']}: {text}")
    question = text_of(messages[last], last + 1)
    if not question.strip():
        raise BadMessages(f"message {last + 1}, the question, is empty")
    return "\n\n".join([*above, question]), messages[last + 1 :]


def text_of(message: Mapping[str, Any], number: int) -> str:
    """Return the text of a message; "" if its content is null.

    Args:
        message: Its content is a text, or a list of parts of the type ``text``.
        number: Number of the message, from 1, for the error.

    Raises:
        BadMessages: The content is something else, such as an image.
    """
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list):
        parts = [one.get("text") if isinstance(one, Mapping) and one.get("type") == "text" else None for one in content]
        texts = [part for part in parts if isinstance(part, str)]
        if len(texts) == len(content):
            return "\n".join(texts)
    raise BadMessages(f"message {number} has the content {content!r}, not text")
