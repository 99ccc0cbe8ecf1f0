"""Training texts of the pocket model: for its tokenizer, retold demonstrations, random strings to copy; batches.

Held-out countries stay outside: no page of theirs is read, no question about them is played. Only their names occur, on
the pages of others and in lists of hits.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence

from benchmarks.pocket.demonstrations import SINGLE, TEAM, Transcript, encode, packaged_roles, play
from benchmarks.pocket.fiction import Storyteller, syllables
from benchmarks.pocket.pretraining import Document
from mgrpo_lightning.policy.chat import Chat
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.tasks.factbook import Factbook, held_out
from mgrpo_lightning.tasks.factbook.relations import RELATIONS, lookup
from mgrpo_lightning.tasks.factbook.world import LINKS, Page, load_world

LINE = 200
"""Characters of a fact that count for the tokenizer: notes would drown the values."""


def training_pages() -> list[Page]:
    """The pages of all countries that are not held out."""
    hidden = held_out()
    return [page for url, page in load_world().pages.items() if url not in hidden]


def tokenizer_texts(questions: Sequence[Question]) -> list[str]:
    """Facts, hits, questions, subtasks and calls, in about the proportion in which the roles see them."""
    sections = {relation.heading[0] for relation in RELATIONS.values()}
    pages = training_pages()
    lines = [entry.line[:LINE] for page in pages for entry in page.entries if entry.section in sections]
    hits = [passage.hit for page in pages for passage in page.passages if passage.section in sections]
    said = ["user assistant system main searcher tool not found No more calls: answer now.\n[cut]"] * len(questions)
    for question in questions:
        said.append(question.text)
        for step in map(lookup, question.evidence):
            url = {"url": "factbook/", "section": step.relation.heading[1]}
            calls = [("searcher", {"task": step.subtask}), ("search", {"query": step.query}), ("visit", url)]
            said += [json.dumps({"name": name, "arguments": arguments}) for name, arguments in calls]
    return lines + hits + said


def storyteller(vocabulary: Sequence[str]) -> Storyteller:
    """Pseudo-words are made of syllables of training pages and of the tokenizer's own lower-case tokens, half and half.

    Args:
        vocabulary: All tokens.
    """
    pages = training_pages()
    facts = [entry for page in pages for entry in page.entries if entry.section != LINKS]
    found = syllables(entry.text[:LINE] for entry in facts)
    pieces = random.Random(0).sample(found, 10_000)
    tokens = sorted(token for token in vocabulary if re.fullmatch("[a-z]{2,6}", token))
    labels = {text for entry in facts for text in (entry.section, entry.field, entry.subfield)}
    titles = [page.title for page in load_world().pages.values()]
    return Storyteller(titles, sorted(labels), pieces + tokens * (len(pieces) // len(tokens)))


def demonstrations(task: Factbook, questions: Sequence[Question], chat: Chat) -> list[Transcript]:
    """Right demonstrations of training questions, by the team and by a single agent; no held-out page is opened."""
    played = [t for team in (TEAM, SINGLE) for t in play(task, questions, chat, packaged_roles(team))]
    return [transcript for transcript in played if transcript.right]


def copying(length: int, vocabulary: int, generator: random.Random) -> Document:
    """Random tokens, noise, and the same tokens again: the loss counts the repetition from its third token on.

    Half the time the string has an alphabet of a few tokens, as numbers have.
    """
    noise = [generator.choices(range(3, vocabulary), k=generator.randint(1, 60)) for _ in range(2)]
    alphabet = range(3, vocabulary) if generator.random() < 0.5 else generator.choices(range(3, vocabulary), k=10)
    string = generator.choices(alphabet, k=length)
    ids = [*noise[0], *string, *noise[1], *string]
    return Document(tuple(ids), tuple(place >= len(ids) - length + 2 for place in range(len(ids))))


def stream(
    transcripts: Sequence[Transcript],
    chat: Chat,
    teller: Storyteller,
    *,
    vocabulary: int,
    fiction: float = 0.8,
    counts: tuple[int, int, int, int] = (8, 2, 8, 3),
    seed: int = 0,
) -> Iterator[list[list[Document]]]:
    """Batches for ever; each one has a micro-batch of searchers and single agents, one of mains and one of copying.

    Args:
        transcripts: Of all roles.
        chat: Message format.
        teller: Retells.
        vocabulary: Ids below it occur in the random strings.
        fiction: Share of transcripts that are retold.
        counts: Searchers, single agents, mains and copying documents of a batch.
        seed: Of the choice.
    """
    generator = random.Random(seed)
    by_role = {role: [t for t in transcripts if t.role == role] for role in ("searcher", "single", "main")}

    def document(role: str) -> Document:
        transcript = generator.choice(by_role[role])
        if generator.random() >= fiction:
            return encode(transcript, chat)
        return encode(
            transcript, chat, teller.retell(transcript.texts, transcript.names, seed=generator.getrandbits(40))
        )

    searchers, singles, mains, copies = counts
    while True:
        yield [
            [document(role) for role in ["searcher"] * searchers + ["single"] * singles],
            [document("main") for _ in range(mains)],
            [copying(generator.randint(8, 40), vocabulary, generator) for _ in range(copies)],
        ]
