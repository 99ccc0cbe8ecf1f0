"""Encoders: tokenize a text with control tokens and tags, with tags only, or as plain text that can forge neither.

The plain encoder is a copy of the fast tokenizer without its added tokens. So no text can produce them, and nothing
needs to be escaped or filtered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from mgrpo_lightning.errors import ConfigurationError


class Encoders:
    """The three encoders of one tokenizer.

    Raises:
        ConfigurationError: The tokenizer is not a fast tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise ConfigurationError(
                f"{type(tokenizer).__name__} is not a fast tokenizer.", hint="use a model that has a tokenizer.json."
            )
        self.description = backend.to_str()
        """The tokenizer as JSON."""
        description = json.loads(self.description)
        self._tokenizer = tokenizer
        added = description["added_tokens"]
        self._added: dict[str, int] = {entry["content"]: entry["id"] for entry in added if _is_control(entry)}
        self.specials: dict[str, int] = {entry["content"]: entry["id"] for entry in added if entry["special"]}
        """The special tokens, by their text."""
        # Longest first in the pattern, because a regular expression takes the first alternative that matches.
        tags = sorted(self._added.keys() - self.specials.keys(), key=len)
        self._tags = re.compile(f"({'|'.join(map(re.escape, reversed(tags)))})") if tags else None
        self._full = _reader(description, added=True)
        self._plain = _reader(description, added=False)

    def full(self, text: str) -> list[int]:
        """Ids with control tokens and tags. Only for the template's own pieces."""
        return list(self._full.encode(text, add_special_tokens=False).ids)

    def tagged(self, text: str) -> list[int]:
        """Ids with tags (added tokens that are not special), but without control tokens."""
        pieces = self._tags.split(text) if self._tags else [text]
        return [token for piece in pieces for token in self._tag_or_plain(piece)]

    def plain(self, text: str) -> list[int]:
        """Ids without control tokens and tags: every character is plain text."""
        return list(self._plain.encode(text, add_special_tokens=False).ids)

    def _tag_or_plain(self, piece: str) -> list[int]:
        is_tag = self._tags is not None and self._tags.fullmatch(piece)
        return [self._added[piece]] if is_tag else self.plain(piece)

    def ends(self, text: str) -> list[int]:
        """For each plain id of ``text``, the index of the first character after it."""
        return [end for _, end in self._plain.encode(text, add_special_tokens=False).offsets]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, control tokens included."""
        return self._full.decode(list(ids), skip_special_tokens=False)

    def check(self) -> None:
        """Require that plain encoding never gives an added token and that encoded texts can be joined.

        Raises:
            ConfigurationError: It gives an added token, or decoding does not return the text. The message names it.
        """
        added, specials = set(self._added.values()), set(self.specials.values())
        for token in self._added:
            if added & set(self.plain(token)) or specials & set(self.tagged(token)):
                raise ConfigurationError(
                    f"the tokenizer reads {token!r} as a control token even in plain text.",
                    hint="use a model with a byte-level BPE tokenizer.",
                )
        # ["x", "y"] finds tokenizers that put a space before each text: some decoders hide a space at the very start.
        for texts in (["x"], [" x"], ["\nx"], ["x", "y"]):
            text, read = "".join(texts), self.decode([token for text in texts for token in self.plain(text)])
            if read != text:
                raise ConfigurationError(
                    f"the tokenizer reads {text!r} as {read!r}: pieces of a conversation cannot be joined exactly.",
                    hint="use a model whose tokenizer adds no space before a text.",
                )


def _is_control(entry: dict[str, Any]) -> bool:
    """Whether an added token is a control token or tag. Some models also list plain white space as added tokens."""
    return entry["special"] or bool(entry["content"].strip())


def _reader(description: dict[str, Any], *, added: bool) -> Tokenizer:
    """A copy of the tokenizer that adds nothing around a text, with or without the added tokens.

    Raises:
        ConfigurationError: The tokenizer does not work without its added tokens.
    """
    copy = {**description, "post_processor": None, "padding": None, "truncation": None}
    if not added:
        # The tokenizer model needs its unknown token. check() refuses the tokenizer if that token is special.
        unknown = description["model"].get("unk_token")
        dropped = {entry["content"] for entry in description["added_tokens"] if _is_control(entry)} - {unknown}
        copy["added_tokens"] = [entry for entry in description["added_tokens"] if not _is_control(entry)]
        vocabulary = description["model"].get("vocab")
        if isinstance(vocabulary, dict):
            # Some tokenizers also list control tokens in the vocabulary, and a text of exactly that word would match.
            kept = {token: index for token, index in vocabulary.items() if token not in dropped}
            copy["model"] = {**description["model"], "vocab": kept}
    try:
        return Tokenizer.from_str(json.dumps(copy))
    except Exception as error:  # the Rust bindings raise plain Exception
        raise ConfigurationError(
            f"the tokenizer cannot be loaded without its control tokens: {error}.",
            hint="use a model with a byte-level BPE tokenizer.",
        ) from error
