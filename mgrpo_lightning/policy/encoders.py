"""One vocabulary read three ways: with control tokens and tags, with tags only, with neither.

The plain reader is a copy of the fast tokenizer from which the added tokens are taken out, so that no text whatsoever
reaches them; nothing is escaped or filtered.
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
    """The three readers of one tokenizer.

    Raises:
        ConfigurationError: The tokenizer is not a fast one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise ConfigurationError(
                f"{type(tokenizer).__name__} is no fast tokenizer.", hint="take a model that has a tokenizer.json."
            )
        self.description = backend.to_str()
        """The tokenizer as JSON."""
        description = json.loads(self.description)
        self._tokenizer = tokenizer
        added = description["added_tokens"]
        self._added: dict[str, int] = {entry["content"]: entry["id"] for entry in added if _is_control(entry)}
        self.specials: dict[str, int] = {entry["content"]: entry["id"] for entry in added if entry["special"]}
        """The special tokens, by their text."""
        tags = sorted(self._added.keys() - self.specials.keys(), key=len)
        self._tags = re.compile(f"({'|'.join(map(re.escape, reversed(tags)))})") if tags else None
        self._full = _reader(description, added=True)
        self._plain = _reader(description, added=False)

    def full(self, text: str) -> list[int]:
        """Control tokens and tags are read as such: for the template's own pieces."""
        return list(self._full.encode(text, add_special_tokens=False).ids)

    def tagged(self, text: str) -> list[int]:
        """Tags (added tokens that are not special) are read as such, control tokens are not."""
        pieces = self._tags.split(text) if self._tags else [text]
        return [token for piece in pieces for token in self._tag_or_plain(piece)]

    def plain(self, text: str) -> list[int]:
        """Every character is text."""
        return list(self._plain.encode(text, add_special_tokens=False).ids)

    def _tag_or_plain(self, piece: str) -> list[int]:
        is_tag = self._tags is not None and self._tags.fullmatch(piece)
        return [self._added[piece]] if is_tag else self.plain(piece)

    def ends(self, text: str) -> list[int]:
        """For each plain id of ``text`` the index of the character behind it."""
        return [end for _, end in self._plain.encode(text, add_special_tokens=False).offsets]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, control tokens shown."""
        return self._full.decode(list(ids), skip_special_tokens=False)

    def check(self) -> None:
        """Require that the plain reader cannot make an added token and adds nothing to a text.

        Raises:
            ConfigurationError: It does; the message names the token or the text.
        """
        added, specials = set(self._added.values()), set(self.specials.values())
        for token in self._added:
            if added & set(self.plain(token)) or specials & set(self.tagged(token)):
                raise ConfigurationError(
                    f"the tokenizer reads {token!r} as a control token even as plain text.",
                    hint="take a model with a byte-level BPE tokenizer.",
                )
        for texts in (["x"], [" x"], ["\nx"], ["x", "y"]):  # the last: some decoders hide a space at the very front
            text, read = "".join(texts), self.decode([token for text in texts for token in self.plain(text)])
            if read != text:
                raise ConfigurationError(
                    f"the tokenizer reads {text!r} as {read!r}: pieces of a conversation cannot be joined exactly.",
                    hint="take a model whose tokenizer adds no space in front of a text.",
                )


def _is_control(entry: dict[str, Any]) -> bool:
    """Whether an added token is more than text: some models list runs of white space among the added tokens."""
    return entry["special"] or bool(entry["content"].strip())


def _reader(description: dict[str, Any], *, added: bool) -> Tokenizer:
    """A copy that puts nothing around a text, with or without the added tokens.

    Raises:
        ConfigurationError: The vocabulary cannot do without them.
    """
    copy = {**description, "post_processor": None, "padding": None, "truncation": None}
    if not added:
        unknown = description["model"].get("unk_token")  # the model needs it; check() refuses it where it is special
        dropped = {entry["content"] for entry in description["added_tokens"] if _is_control(entry)} - {unknown}
        copy["added_tokens"] = [entry for entry in description["added_tokens"] if not _is_control(entry)]
        vocabulary = description["model"].get("vocab")
        if isinstance(vocabulary, dict):
            # Some tokenizers list control tokens in the vocabulary too, where a whole-word match could find them.
            kept = {token: index for token, index in vocabulary.items() if token not in dropped}
            copy["model"] = {**description["model"], "vocab": kept}
    try:
        return Tokenizer.from_str(json.dumps(copy))
    except Exception as error:  # the bindings raise nothing more exact
        raise ConfigurationError(
            f"the tokenizer cannot be read without its control tokens: {error}.",
            hint="take a model with a byte-level BPE tokenizer.",
        ) from error
