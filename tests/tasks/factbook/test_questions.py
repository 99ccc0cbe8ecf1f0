"""Questions: gold paths that hold, splits that share no answer country, balance and determinism."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

import pytest

from mgrpo_lightning.tasks import Question, Split
from mgrpo_lightning.tasks.factbook.facts import Facts
from mgrpo_lightning.tasks.factbook.paths import COMPARISON
from mgrpo_lightning.tasks.factbook.questions import generate
from mgrpo_lightning.tasks.factbook.relations import INVERSE, RELATIONS, lookup
from mgrpo_lightning.tasks.factbook.split import ORDER, question_split, split_of
from mgrpo_lightning.tasks.factbook.world import World

Questions = dict[Split, list[Question]]


@pytest.fixture(scope="session")
def questions(facts: Facts) -> Questions:
    return {split: generate(facts, hops=[1, 2, 3, 4], with_comparisons=True, split=split) for split in ORDER}


def answer_urls(questions: list[Question], world: World) -> set[str]:
    compared = {world.url(q.answers[0]) or "" for q in questions if q.level == COMPARISON}
    return compared | {q.evidence[-1].url for q in questions if q.level != COMPARISON}


def test_thousands_of_questions_equally_many_of_each_level(questions: Questions) -> None:
    for split, least in zip(ORDER, (3000, 550, 600), strict=True):
        levels = Counter(question.level for question in questions[split])
        assert set(levels) == {"1 hop", "2 hops", "3 hops", "4 hops", "comparison"}
        assert len(set(levels.values())) == 1
        assert levels["1 hop"] > least


def test_prefixes_are_mixed_like_the_whole(questions: Questions) -> None:
    assert set(Counter(question.level for question in questions["test"][:300]).values()) == {60}
    two = [question for question in questions["test"][:1000] if question.level == "2 hops"]
    kinds = Counter(question.evidence[0].relation for question in two)
    assert len(kinds) == 9
    assert max(kinds.values()) < 0.35 * len(two)
    assert max(Counter(question.evidence[-1].url for question in two).values()) < 0.1 * len(two)


def test_no_answer_country_is_in_two_splits(questions: Questions, world: World) -> None:
    urls = {split: answer_urls(found, world) for split, found in questions.items()}
    for split, found in urls.items():
        assert {split_of(url) for url in found} == {split}
    assert not urls["train"] & (urls["validation"] | urls["test"])
    assert not urls["validation"] & urls["test"]


def test_training_never_touches_a_held_out_page_nor_validation_a_test_page(questions: Questions) -> None:
    pages = {split: {hop.url for q in found for hop in q.evidence} for split, found in questions.items()}
    assert {split_of(url) for url in pages["train"]} == {"train"}
    assert "test" not in {split_of(url) for url in pages["validation"]}


def test_a_hop_hands_its_value_to_the_next(questions: Questions, world: World) -> None:
    for question in (q for found in questions.values() for q in found if q.level != COMPARISON):
        assert len(question.evidence) == int(question.level[0])
        for one, other in pairwise(question.evidence):
            assert one.value == other.subject == world[other.url].title
        assert question.answers == (question.evidence[-1].value,)
        assert len({hop.url for hop in question.evidence if not hop.relation.startswith(INVERSE)}) == sum(
            not hop.relation.startswith(INVERSE) for hop in question.evidence
        )


def test_every_hop_can_be_copied_from_its_page(questions: Questions, world: World) -> None:
    for question in (q for found in questions.values() for q in found):
        for hop in question.evidence:
            page, step = world[hop.url], lookup(hop)
            entry = step.relation.entry(page)
            assert entry is not None
            assert hop.section == f"{entry.section}: {entry.field}"
            on_line, on_title = (hop.subject, hop.value) if step.inverse else (hop.value, hop.subject)
            assert on_line in entry.line.splitlines()[0]
            assert on_title == page.title


def test_comparisons_are_clear_and_right(questions: Questions) -> None:
    def value(text: str) -> float:
        return float(re.sub(r"[^\d.]", "", text))

    found = [q for q in questions["test"] if q.level == COMPARISON]
    positions: Counter[bool] = Counter()
    for question in found:
        first, second = question.evidence
        assert first.relation == second.relation
        larger = max(question.evidence, key=lambda hop: value(hop.value))
        assert question.answers == (larger.subject,)
        assert value(larger.value) > 1.1 * min(value(hop.value) for hop in question.evidence)
        positions[larger is first] += 1
        assert re.search(f"{re.escape(first.subject)} or {re.escape(second.subject)}", question.text)
    assert 0.4 < positions[True] / len(found) < 0.6


def test_questions_are_named_once_and_do_not_hold_their_answer(questions: Questions) -> None:
    ids = [question.id for found in questions.values() for question in found]
    assert len(set(ids)) == len(ids)
    for question in (q for found in questions.values() for q in found if q.level != COMPARISON):
        assert not re.search(rf"(?<!\w){re.escape(question.answers[0])}(?!\w)", question.text, re.IGNORECASE)


def test_one_wording_has_one_answer(questions: Questions) -> None:
    answers: dict[str, set[str]] = {}
    for question in (q for found in questions.values() for q in found):
        answers.setdefault(question.text, set()).add(question.answers[0])
    assert max(map(len, answers.values())) == 1


def test_wording(questions: Questions) -> None:
    texts = [question.text for found in questions.values() for question in found]
    assert not [text for text in texts if "{" in text or not text.endswith(("?", "."))]
    forms = Counter(q.text.replace(q.evidence[0].subject, "X") for q in questions["train"] if q.level == "1 hop")
    assert len(forms) >= 3 * sum(not relation.link for relation in RELATIONS.values())


def test_another_seed_gives_another_sample_of_the_same_split(facts: Facts, world: World) -> None:
    one, again, other = (generate(facts, hops=[1, 2], seed=seed, split="test") for seed in (0, 0, 1))
    assert one == again
    assert [q.id for q in one] != [q.id for q in other]
    assert {split_of(url) for url in answer_urls(other, world)} == {"test"}


def test_question_split_is_decided_by_the_answer_and_never_needs_a_later_page() -> None:
    by_split = {split_of(f"p/{i}"): f"p/{i}" for i in range(100)}
    train, validation, test = (by_split[split] for split in ORDER)
    assert question_split([train, validation, test], answer_url=test) == "test"
    assert question_split([train, validation], answer_url=validation) == "validation"
    assert question_split([test, train], answer_url=train) is None
    assert question_split([validation, train], answer_url=train) is None
    assert question_split([test, validation], answer_url=validation) is None
