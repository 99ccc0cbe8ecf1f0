"""From ids back to text, token by token, for a page that colours each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from mgrpo_lightning.errors import MgrpoError


class Decoder:
    """Texts of single tokens.

    Args:
        tokenizer: Of the policy that made the ids.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def text(self, ids: Sequence[int]) -> str:
        """The text of ids, control tokens included: what the policy saw.

        Args:
            ids: Any.
        """
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text of each id; one that begins a character is empty, and the one that ends it has it.

        Args:
            ids: Of one turn. Bytes that are no character at the end are the replacement character.
        """
        stream = DecodeStream(skip_special_tokens=False)
        found = [stream.step(self._tokenizer, token) or "" for token in ids]
        rest = self.text(ids)[len("".join(found)) :]
        if found and rest:
            found[-1] += rest
        return found


def decoder_of(base_model: str | None) -> Decoder | None:
    """The decoder of a base, None where its tokenizer is not there: a run may be looked at on another machine.

    Args:
        base_model: As the team file names it.
    """
    if base_model is None:
        return None
    from mgrpo_lightning.policy.loading import load_tokenizer  # imports torch; the first page need not wait for that

    try:
        tokenizer: Any = load_tokenizer(base_model)
    except (MgrpoError, OSError, ValueError):
        return None
    return Decoder(tokenizer.backend_tokenizer)
