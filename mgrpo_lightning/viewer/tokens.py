"""Decoder: the text of each token id for the viewer; loads the tokenizer from files on this machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from mgrpo_lightning.errors import MgrpoError
from mgrpo_lightning.policy.base_files import folder_of


class Decoder:
    """Decodes ids of one policy.

    Args:
        tokenizer: Tokenizer of the policy that produced the ids.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def text(self, ids: Sequence[int]) -> str:
        """Decode ids with control tokens included, as the policy saw them."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Decode each id. If a character spans several tokens, its last token has the character, the others are empty.

        Args:
            ids: Token ids of one turn. If the turn ends within a character, the last token has the replacement
                character.
        """
        stream = DecodeStream(skip_special_tokens=False)
        found = [stream.step(self._tokenizer, token) or "" for token in ids]
        # DecodeStream holds back an incomplete character at the end; take it from the text as a whole.
        rest = self.text(ids)[len("".join(found)) :]
        if found and rest:
            found[-1] += rest
        return found


def decoder_of(base_model: str | None) -> Decoder | None:
    """Return the decoder of a base; None if its tokenizer is not on this machine.

    Args:
        base_model: Name of the base in the team file; nothing is downloaded.
    """
    try:
        folder = None if base_model is None else folder_of(base_model)
        return None if folder is None else Decoder(_from_file(folder) or _from_transformers(folder))
    except (MgrpoError, OSError, ValueError):
        return None


def _from_file(folder: Path) -> Tokenizer | None:
    """Load the tokenizer from tokenizer.json; None if that file is missing or lacks some of the tokens."""
    if not (folder / "tokenizer.json").is_file():
        return None
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception:  # the Rust bindings raise plain Exception; transformers may still read the file
        return None
    config = folder / "tokenizer_config.json"
    settings = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    # transformers adds tokens that stand only in tokenizer_config.json; tokenizer.json alone would decode them wrongly.
    numbered = {int(token): entry["content"] for token, entry in settings.get("added_tokens_decoder", {}).items()}
    extra = settings.get("extra_special_tokens") or []
    named = [*settings.get("additional_special_tokens", []), *(extra.values() if isinstance(extra, dict) else extra)]
    contents = [token["content"] if isinstance(token, dict) else token for token in named]
    whole = all(tokenizer.id_to_token(token) == content for token, content in numbered.items())
    return tokenizer if whole and None not in map(tokenizer.token_to_id, contents) else None


def _from_transformers(folder: Path) -> Tokenizer:
    from mgrpo_lightning.policy.loading import load_tokenizer  # only if needed: it imports torch, which takes seconds

    loaded: Any = load_tokenizer(str(folder))
    tokenizer: Tokenizer = loaded.backend_tokenizer
    return tokenizer
