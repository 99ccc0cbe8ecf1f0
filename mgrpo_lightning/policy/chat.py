"""Chat: messages to token ids and sampled ids to text, by the chat template; stop tokens; cut a text to a token limit.

Outside text (questions, tool results) is never rendered by the template. The template is rendered with placeholders and
split there. Its own pieces are encoded with control tokens, the outside text without control tokens and tags. So no
text can forge a control token (correctness.md 28). The pieces between two turns come from the template too. The
constructor checks that the template only appends and never changes earlier tokens (correctness.md 2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from functools import cache
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.policy.chatml import TEMPLATES
from mgrpo_lightning.policy.encoders import Encoders
from mgrpo_lightning.policy.template import Template
from mgrpo_lightning.unicode import CUT_MARK

CHARACTERS = 4096
CHARACTERS_A_TOKEN = 16
"""``Chat.cut`` first encodes CHARACTERS + CHARACTERS_A_TOKEN x max_tokens characters of a long text, and more if its
tokens are longer than that."""


class Chat:
    """The message format of one policy.

    Args:
        template: None for the tokenizer's own template, a name from ``chatml.py``, or the path of a Jinja file.
        eos_ids: More ids that end a turn, from the model's generation settings.

    Raises:
        ConfigurationError: There is no template, it is not prefix-preserving, its turns do not end with a special
            token, or its header of a turn opens a thought.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: str | None = None, *, eos_ids: Sequence[int] = ()
    ) -> None:
        self._tokenizer = tokenizer
        self._encoders = Encoders(tokenizer)
        self.source = _source(tokenizer, template)
        """Jinja source of the template."""
        self._template = Template(tokenizer, self.source)
        # Cache the constant pieces: agents ask for them thousands of times a step.
        self._pieces = cache(self._encode_pieces)
        self.check()
        end = self._encoders.full(self._template.turn_end(results=1)[0])
        assert end, "check() made sure that a turn has an end"
        self.end_id: int = end[0]
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys((self.end_id, *eos_ids)))
        if self.end_id not in self.specials.values():
            raise ConfigurationError(
                f"the chat template ends turns with {tokenizer.decode([self.end_id])!r}, which is not a special token.",
                hint="use a template whose turns end with a special token of this tokenizer.",
            )

    def check(self) -> None:
        """Render conversations of several turns, and require that each new message only appends text.

        Raises:
            ConfigurationError: The template rewrites, drops or repeats earlier turns. The message shows where.
        """
        self._template.check()
        self._encoders.check()

    def open(self, system: str, user: str) -> list[int]:
        """Ids of a system and a user message, up to the header of the first turn.

        ``system`` is the team's own text, so its protocol tags become tag tokens. ``user`` is encoded as outside text.
        """
        pieces = self._pieces(bool(system), 0)
        texts = [self.encode_tagged(system), self.encode(user)] if system else [self.encode(user)]
        return _interleave(pieces, texts)

    def observe(self, results: Sequence[str], *, after_cut: bool) -> list[int]:
        """Ids between a finished turn and the next turn: the observation.

        Args:
            results: The text of each tool result or report, in order; at least one.
            after_cut: True if the turn was cut or ended with another stop token than the template's. The template's
                stop token then becomes the first id of the observation.
        """
        assert results, "an observation has at least one result"
        # The first id is the template's stop token. After a normal turn it was sampled, so it is in the action already.
        ids = _interleave(self._pieces(False, len(results)), [self.encode(text) for text in results])
        return ids if after_cut else ids[1:]

    @property
    def vocabulary(self) -> str:
        """Everything that decides how text becomes ids, as one JSON text."""
        return self._encoders.description

    @property
    def specials(self) -> Mapping[str, int]:
        """The tokenizer's special tokens, by their text."""
        return self._encoders.specials

    @property
    def has_tool_role(self) -> bool:
        """Whether tool results are ``tool`` messages; else they are user messages in ``<tool_response>`` tags."""
        return self._template.has_tool_role

    def save(self, folder: Path) -> None:
        """Write the tokenizer with this template into a folder, for ``AutoTokenizer.from_pretrained``."""
        tokenizer = copy(self._tokenizer)  # roles with other templates may share it
        tokenizer.chat_template = self._template.source
        tokenizer.save_pretrained(str(folder))

    def encode(self, text: str) -> list[int]:
        """Ids of outside text, without control tokens and tags."""
        return self._encoders.plain(text)

    def encode_tagged(self, text: str) -> list[int]:
        """Ids of the team's own text, with protocol tags as tokens but without control tokens."""
        return self._encoders.tagged(text)

    def encode_action(self, text: str) -> list[int]:
        """Ids of a demonstrated turn, with its stop token at the end."""
        return [*self.encode_tagged(text), self.end_id]

    def decode_action(self, ids: Sequence[int]) -> str:
        """The text of a sampled turn, without its stop token."""
        end = len(ids) - 1 if ids and ids[-1] in self.stop_ids else len(ids)
        return self._encoders.decode(ids[:end])

    def cut(self, text: str, max_tokens: int) -> str:
        """Cut ``text`` to at most ``max_tokens`` tokens, at the end of a line or sentence, with CUT_MARK below.

        A text that fits is returned unchanged. Of a long text only a start of over 2 x max_tokens tokens is encoded.
        The start may end inside a word, but so far after the cut that this does not matter.
        """
        start = CHARACTERS + CHARACTERS_A_TOKEN * max_tokens
        while len(ends := self._encoders.ends(text[:start])) <= 2 * max_tokens and start < len(text):
            start *= 2
        if len(ends) <= max_tokens:
            return text
        tail = f"\n{CUT_MARK}"
        budget = max_tokens - len(self.encode(tail))
        while budget > 0:
            head = _at_border(text, ends[budget - 1]).rstrip()
            # Encode again: tokens may merge differently at the cut, so the count can differ from the budget.
            if len(self.encode(head + tail)) <= max_tokens:
                return head + tail if head else CUT_MARK
            budget -= 1
        return CUT_MARK

    def _encode_pieces(self, system: bool, results: int) -> tuple[tuple[int, ...], ...]:
        pieces = self._template.turn_end(results=results) if results else self._template.opening(system=system)
        return tuple(tuple(self._encoders.full(piece)) for piece in pieces)


def _source(tokenizer: PreTrainedTokenizerBase, template: str | None) -> str:
    if template in TEMPLATES:
        return TEMPLATES[template]
    if template is not None:
        try:
            return Path(template).read_text()
        except OSError as error:
            raise ConfigurationError(
                f"chat_template {template!r} cannot be read: {error.strerror}.",
                hint=f"give {' or '.join(TEMPLATES)} or the path of a Jinja file, or leave it out.",
            ) from error
    own = getattr(tokenizer, "chat_template", None)
    if not isinstance(own, str):
        raise ConfigurationError(
            "the tokenizer has no chat template, or several.", hint="set `chat_template` to chatml or to a Jinja file."
        )
    return own


def _interleave(pieces: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]) -> list[int]:
    """Concatenate piece, text, piece, text, ..., piece."""
    ids = list(pieces[0])
    for text, piece in zip(texts, pieces[1:], strict=True):
        ids += text
        ids += piece
    return ids


def _at_border(text: str, end: int) -> str:
    """``text[:end]``, cut back to the last end of a line or sentence, or to the last space if there is none."""
    seen = text[: end + 1]  # one more character, as the border may be right after the end
    sentence = max(seen.rfind(mark) for mark in (". ", "! ", "? ", "; "))
    border = max(seen.rfind("\n"), sentence + 1 if sentence >= 0 else -1)
    if border <= 0:
        border = seen.rfind(" ")
    return text[: border if border > 0 else end]
