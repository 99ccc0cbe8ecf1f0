"""Chat: messages to ids and back, token-exactly, from a tokenizer's own template.

Text that comes from outside is never rendered. The template is rendered with private-use characters in its place, cut
there, and its pieces are encoded with control tokens on, the text between with control tokens and tags off, so that no
text can forge a control token (correctness.md 28). What stands between two turns is the template's own difference,
checked at construction to extend what was there (correctness.md 2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
"""How much of a text is encoded at first to see where it is to be cut; more where its tokens are longer."""


class Chat:
    """The message format of one policy.

    Args:
        tokenizer: A fast tokenizer.
        template: None for the tokenizer's own template, a name from ``chatml.py``, else the path of a Jinja file.
        eos_ids: Further ids that end a turn (the model's generation settings).

    Raises:
        ConfigurationError: There is no template, it is not prefix-preserving, its turns end in no control token, or
            they begin inside of a thought.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: str | None = None, *, eos_ids: Sequence[int] = ()
    ) -> None:
        self._encoders = Encoders(tokenizer)
        self.source = _source(tokenizer, template)
        """Jinja source of the template."""
        self._template = Template(tokenizer, self.source)
        # Constant pieces are rendered and encoded once: agents ask for them thousands of times a step.
        self._pieces = cache(self._encode_pieces)
        self.check()
        end = self._encoders.full(self._template.turn_end(results=1)[0])
        assert end, "check() made sure that a turn has an end"
        self.end_id: int = end[0]
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys((self.end_id, *eos_ids)))
        if self.end_id not in self.specials.values():
            raise ConfigurationError(
                f"the chat template ends a turn with {tokenizer.decode([self.end_id])!r}, which is no special token.",
                hint="take a template whose turns end in a special token of this tokenizer.",
            )

    def check(self) -> None:
        """Render conversations of several turns and require that each extends the one before.

        Raises:
            ConfigurationError: The template rewrites, drops or repeats earlier turns; the message shows where.
        """
        self._template.check()
        self._encoders.check()

    def open(self, system: str, user: str) -> list[int]:
        """Ids of a system and a user message with the header of the first turn.

        ``system`` is the team's own text, so its protocol tags are tags; ``user`` is encoded as text from outside.
        """
        pieces = self._pieces(bool(system), 0)
        texts = [self.encode_tagged(system), self.encode(user)] if system else [self.encode(user)]
        return _interleave(pieces, texts)

    def observe(self, results: Sequence[str], *, after_cut: bool) -> list[int]:
        """Ids that stand between a finished turn and the next one.

        Args:
            results: One text per tool result or report, in order; at least one.
            after_cut: The turn has no stop token, or not the template's: that becomes part of the observation.
        """
        assert results, "an observation has at least one result"
        ids = _interleave(self._pieces(False, len(results)), [self.encode(text) for text in results])
        return ids if after_cut else ids[1:]

    @property
    def vocabulary(self) -> str:
        """All that decides how text becomes ids, as one text."""
        return self._encoders.description

    @property
    def specials(self) -> Mapping[str, int]:
        """The tokenizer's special tokens, by their text."""
        return self._encoders.specials

    def encode(self, text: str) -> list[int]:
        """Text from outside: neither control tokens nor tags."""
        return self._encoders.plain(text)

    def encode_tagged(self, text: str) -> list[int]:
        """Text of the team itself: protocol tags are tokens, control tokens are not."""
        return self._encoders.tagged(text)

    def encode_action(self, text: str) -> list[int]:
        """A demonstrated turn, its stop token included."""
        return [*self.encode_tagged(text), self.end_id]

    def decode_action(self, ids: Sequence[int]) -> str:
        """The text of a sampled turn, without its stop token."""
        end = len(ids) - 1 if ids and ids[-1] in self.stop_ids else len(ids)
        return self._encoders.decode(ids[:end])

    def cut(self, text: str, max_tokens: int) -> str:
        """``text`` if it fits, else a start of it that ends at a line or sentence and fits with the mark below it.

        Of a long text only as much is encoded as shows where to cut: twice the tokens, so that where it was cut for
        that, maybe inside of a word, does not matter.
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
                hint=f"give {' or '.join(TEMPLATES)} or the path of a Jinja file, or nothing for the tokenizer's own.",
            ) from error
    own = getattr(tokenizer, "chat_template", None)
    if not isinstance(own, str):
        raise ConfigurationError(
            "the tokenizer has no single chat template of its own.", hint="set `chat_template: chatml` or a Jinja file."
        )
    return own


def _interleave(pieces: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]) -> list[int]:
    """piece, text, piece, text, ..., piece."""
    ids = list(pieces[0])
    for text, piece in zip(texts, pieces[1:], strict=True):
        ids += text
        ids += piece
    return ids


def _at_border(text: str, end: int) -> str:
    """``text[:end]``, cut back to the last line or sentence border, to the last space where there is none."""
    seen = text[: end + 1]  # a border may stand right behind the end
    sentence = max(seen.rfind(mark) for mark in (". ", "! ", "? ", "; "))
    border = max(seen.rfind("\n"), sentence + 1 if sentence >= 0 else -1)
    if border <= 0:
        border = seen.rfind(" ")
    return text[: border if border > 0 else end]
