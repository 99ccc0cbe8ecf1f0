"""Cutting a text: the same as when all of it is encoded, and no more work than its tokens are worth."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mgrpo_lightning.policy import chat as module
from mgrpo_lightning.policy.chat import CHARACTERS, CHARACTERS_A_TOKEN, Chat, _at_border
from mgrpo_lightning.policy.loading import load_tokenizer
from mgrpo_lightning.unicode import CUT_MARK
from tests.support.tiny import make_tiny_tokenizer

CHATS = {"tiny": Chat(make_tiny_tokenizer()), "pocket": Chat(load_tokenizer("pocket"))}
PIECES = [
    "word ",
    "another. ",
    "\n",
    " ",
    "   ",
    "x",
    "Zürich, ",
    "河",
    "\U0001f600",
    "12345",
    "---",
    "<|im_end|>",
    "e\u0301",
]
TEXTS = st.builds(
    lambda pieces, times: "".join(pieces) * times,
    st.lists(st.sampled_from(PIECES) | st.text(max_size=4), min_size=1, max_size=12),
    st.integers(1, 400),
)


def cut_whole(chat: Chat, text: str, max_tokens: int) -> str:
    """The same, from the tokens of the whole text."""
    ends = chat._encoders.ends(text)
    if len(ends) <= max_tokens:
        return text
    tail = f"\n{CUT_MARK}"
    budget = max_tokens - len(chat.encode(tail))
    while budget > 0:
        head = _at_border(text, ends[budget - 1]).rstrip()
        if len(chat.encode(head + tail)) <= max_tokens:
            return head + tail if head else CUT_MARK
        budget -= 1
    return CUT_MARK


@pytest.mark.parametrize("name", CHATS)
@given(text=TEXTS, max_tokens=st.integers(1, 200))
@settings(max_examples=60)
def test_a_cut_is_the_same_as_from_the_tokens_of_the_whole_text(name: str, text: str, max_tokens: int) -> None:
    assert CHATS[name].cut(text, max_tokens) == cut_whole(CHATS[name], text, max_tokens)


@pytest.mark.parametrize("name", CHATS)
@given(text=TEXTS, max_tokens=st.integers(1, 200))
@settings(max_examples=60)
def test_so_it_is_where_little_is_encoded_at_first(name: str, text: str, max_tokens: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHARACTERS", 8)
        patch.setattr(module, "CHARACTERS_A_TOKEN", 1)
        assert CHATS[name].cut(text, max_tokens) == cut_whole(CHATS[name], text, max_tokens)


@pytest.mark.parametrize("piece", ["word ", "x", " ", "\n", "\U0001f600"])
def test_of_a_long_text_only_a_start_is_encoded(piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = CHATS["pocket"]
    encoded: list[int] = []
    ends = chat._encoders.ends

    def counted(text: str) -> list[int]:
        encoded.append(len(text))
        return ends(text)

    monkeypatch.setattr(chat._encoders, "ends", counted)
    text = piece * (5_000_000 // len(piece))
    assert chat.cut(text, 100).endswith(CUT_MARK)
    assert sum(encoded) < 64 * (CHARACTERS + 100 * CHARACTERS_A_TOKEN)
