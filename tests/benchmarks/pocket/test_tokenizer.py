"""The pocket tokenizer: lossless, pairs of digits and capitals alone, the same tokens wherever a name stands."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from benchmarks.pocket.build import WEIGHTS
from benchmarks.pocket.tokenizer import SPECIALS, TAGS, train_tokenizer, twins
from mgrpo_lightning.policy.chat import Chat


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    loaded = AutoTokenizer.from_pretrained(WEIGHTS)
    assert isinstance(loaded, PreTrainedTokenizerFast)
    return loaded


@settings(max_examples=200, deadline=None)
@given(text=st.text())
def test_any_text_comes_back(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("text", ["Mont Blanc 4,810 m", "1234567890", "UTC+3 (2023 est.)", "factbook/area-51"])
def test_numbers_are_pairs_of_digits_from_the_left(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    tokens = [str(tokenizer.decode([i])).strip() for i in tokenizer.encode(text)]
    wanted = [run[i : i + 2] for run in re.findall(r"\d+", text) for i in range(0, len(run), 2)]
    assert [token for token in tokens if any(c.isdigit() for c in token)] == wanted


def test_every_pair_of_digits_is_a_token(tokenizer: PreTrainedTokenizerFast) -> None:
    pairs = [f"{n:02d}" for n in range(100)]
    assert {*pairs, *(f"Ġ{pair}" for pair in pairs)} <= tokenizer.get_vocab().keys()


@pytest.mark.parametrize("value", ["16,116", "Kingston", "constitutional monarchy", ".jm"])
def test_a_value_starts_as_it_does_in_an_answer(tokenizer: PreTrainedTokenizerFast, value: str) -> None:
    alone = tokenizer.encode(value)
    assert tokenizer.encode(f"Label: {value}")[-len(alone) :] == alone
    assert tokenizer.encode(f"<answer>{value}")[1:] == alone


def test_no_token_holds_three_digits_or_a_capital_with_another_letter(tokenizer: PreTrainedTokenizerFast) -> None:
    for token in tokenizer.get_vocab():
        bare = token.removeprefix("Ġ")
        if token not in (*SPECIALS, *TAGS) and bare.isascii():
            assert sum(c.isdigit() for c in bare) <= 2, token
            assert bare == bare.lower() or len(bare) == 1, token


@pytest.mark.parametrize("name", ["France", "Kralovia", "Ouagadougou"])
def test_a_name_ends_in_the_same_tokens_everywhere(tokenizer: PreTrainedTokenizerFast, name: str) -> None:
    rest = tokenizer.encode(f"of {name}")[2:]
    for text in (name, f'"{name}', f"\n{name}", f"factbook/{name.lower()}"):
        assert tokenizer.encode(text)[-len(rest) :] == rest


def test_control_tokens_and_tags_are_one_token_each(tokenizer: PreTrainedTokenizerFast) -> None:
    for token in (*SPECIALS, *TAGS):
        assert len(tokenizer.encode(token)) == 1
    special = set(tokenizer.all_special_tokens)
    assert set(SPECIALS) <= special
    assert not special & set(TAGS)


def test_the_template_keeps_what_was_said(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [
        {"role": "system", "content": "main"},
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "A"},
        {"role": "tool", "content": "B"},
    ]
    start = str(tokenizer.apply_chat_template(messages[:3], tokenize=False))
    whole = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    assert whole.startswith(start)
    assert whole.endswith("<|im_start|>user\n<tool_response>\nB\n</tool_response><|im_end|>\n<|im_start|>assistant\n")
    assert Chat(tokenizer).stop_ids == (tokenizer.convert_tokens_to_ids("<|im_end|>"),)


def test_training_is_deterministic() -> None:
    texts = ["Elevation - highest point: Mont Blanc 4,810", "capital of France", "factbook/france | France"] * 50
    first, second = (train_tokenizer(texts, size=640) for _ in range(2))
    assert first.get_vocab() == second.get_vocab()
    assert len(first) <= 640


def test_twins_are_one_letter_or_word(tokenizer: PreTrainedTokenizerFast) -> None:
    groups = [{str(tokenizer.convert_ids_to_tokens(i)) for i in group} for group in twins(tokenizer)]
    assert {"g", "G", "Ġg", "ĠG"} in groups
    assert {"77", "Ġ77"} in groups
    openings = {":Ġ", ':Ġ"', "<answer>"}
    assert openings in groups
    words = [group for group in groups if group != openings]
    assert all(len({token.removeprefix("Ġ").lower() for token in group}) == 1 for group in words)
