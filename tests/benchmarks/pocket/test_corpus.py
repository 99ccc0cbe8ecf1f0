"""Nothing of a held-out country is in the tokenizer's texts, in the demonstrations or in what is made of them."""

import random
import re
from collections.abc import Iterable

import pytest
import torch

from benchmarks.pocket.build import QUESTIONS, WEIGHTS
from benchmarks.pocket.corpus import copying, demonstrations, storyteller, stream, tokenizer_texts, training_pages
from benchmarks.pocket.demonstrations import Transcript, encode
from mgrpo_lightning.policy.chat import Chat
from mgrpo_lightning.policy.loading import load_base
from mgrpo_lightning.tasks.factbook import Factbook, held_out
from mgrpo_lightning.tasks.factbook.world import LINKS, load_world

KEY = 60
"""Characters that make a line of a page known again: longer ones may be cut."""


@pytest.fixture(scope="module")
def task() -> Factbook:
    return Factbook(hops=[1, 2])


@pytest.fixture(scope="module")
def chat() -> Chat:
    return Chat(load_base(str(WEIGHTS), quantization="none", compute_dtype=torch.float32).tokenizer)


@pytest.fixture(scope="module")
def secrets() -> set[str]:
    """Lines of held-out pages that stand on no training page."""
    pages, hidden = load_world().pages, held_out()
    known = {e.line[:KEY] for page in training_pages() for e in page.entries}
    return {e.line[:KEY] for url in hidden for e in pages[url].entries if e.section != LINKS} - known


def leaks(texts: Iterable[str], secrets: set[str]) -> set[str]:
    lines = {line[:KEY] for text in texts for line in text.split("\n")}
    return lines & secrets


def demonstrated(task: Factbook, chat: Chat, secrets: set[str], *, number: int) -> list[Transcript]:
    questions = task.questions("train")[:number]
    hidden = held_out()
    assert not any(hop.url in hidden for question in questions for hop in question.evidence)
    assert not leaks(tokenizer_texts(questions), secrets)
    transcripts = demonstrations(task, questions, chat)
    assert not leaks((text for t in transcripts for text in t.texts), secrets)
    opened = {url for t in transcripts for text in t.texts for url in re.findall(r'"url": "([^"]+)"', text)}
    assert opened
    assert not opened & hidden
    return transcripts


def test_the_search_for_leaks_finds_one(secrets: set[str]) -> None:
    assert len(secrets) > 10_000
    page = load_world().pages[min(held_out())]
    assert leaks(["hello\n" + page.entries[0].line], secrets)


def test_a_part_of_the_corpora_holds_no_held_out_page(task: Factbook, chat: Chat, secrets: set[str]) -> None:
    transcripts = demonstrated(task, chat, secrets, number=60)
    assert {t.role for t in transcripts} == {"main", "searcher", "single"}
    assert all(t.right for t in transcripts)


@pytest.mark.slow
def test_the_whole_corpora_hold_no_held_out_page(task: Factbook, chat: Chat, secrets: set[str]) -> None:
    demonstrated(task, chat, secrets, number=QUESTIONS)


def test_retold_transcripts_name_no_country(task: Factbook, chat: Chat) -> None:
    transcripts = demonstrations(task, task.questions("train")[:30], chat)
    teller = storyteller(["xi", "zo"])
    titles = "|".join(re.escape(page.title) for page in load_world().pages.values())
    for transcript in transcripts:
        told = "\n".join(teller.retell(transcript.texts, transcript.names, seed=1))
        assert not re.search(rf"\b(?:{titles})\b", told)


def test_documents_are_what_the_roles_see(task: Factbook, chat: Chat) -> None:
    transcript = next(t for t in demonstrations(task, task.questions("train")[:4], chat) if t.role == "searcher")
    document = encode(transcript, chat)
    turns = [text for i, text in enumerate(transcript.texts) if i % 2]
    trained = [token for token, counts in zip(document.ids, document.mask, strict=True) if counts]
    assert trained == [token for turn in turns for token in chat.encode_action(turn)]
    assert document.ids[: len(chat.open("searcher", transcript.texts[0]))] == tuple(
        chat.open("searcher", transcript.texts[0])
    )


def test_batches_are_deterministic(task: Factbook, chat: Chat) -> None:
    transcripts = demonstrations(task, task.questions("train")[:20], chat)
    teller = storyteller(["xi", "zo"])
    first, second = (next(stream(transcripts, chat, teller, vocabulary=1500, seed=4)) for _ in range(2))
    assert first == second
    assert [len(documents) for documents in first] == [10, 8, 3]


def test_a_copying_document_counts_the_repetition() -> None:
    document = copying(10, 100, random.Random(0))
    assert sum(document.mask) == 8
    assert document.ids[-10:] == document.ids[document.ids.index(document.ids[-10]) :][:10]
    assert document.mask[-8:] == (True,) * 8
