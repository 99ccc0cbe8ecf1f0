"""The Factbook task: its arguments, its scores, and how hard its search is."""

from __future__ import annotations

import asyncio

import pytest

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.records.trajectory import Call, Key, Trajectory
from mgrpo_lightning.tasks import Evidence, Factbook, Question
from mgrpo_lightning.tasks.factbook import held_out
from mgrpo_lightning.tasks.factbook.facts import Facts
from mgrpo_lightning.tasks.factbook.relations import RELATIONS, lookup
from mgrpo_lightning.tasks.factbook.split import ORDER
from mgrpo_lightning.tasks.factbook.world import World
from mgrpo_lightning.tools.corpus_search import Fts5Backend

PARIS = Evidence("factbook/france", "Government: Capital", "France", "Paris", "country_by_capital")
PEAK = Evidence("factbook/france", "Geography: Elevation", "Mont Blanc", "France", "highest_point")
QUESTION = Question("q", "?", ("Mont Blanc",), "2 hops", (PARIS, PEAK))


@pytest.fixture(scope="module")
def task() -> Factbook:
    return Factbook(max_questions=20)


def report(answer: str | None, *urls: str, failed: bool = False) -> Trajectory:
    calls = [Call(0, "search", {"query": "France"}, "")]
    calls += [Call(1, "visit", {"url": url, "section": "Elevation"}, "", failed=failed) for url in urls]
    return Trajectory("searcher", Key(0, 0, 0, 1), "highest point of France", calls=calls, answer=answer)


@pytest.mark.parametrize(
    ("trajectory", "score"),
    [
        (report("Mont Blanc", "factbook/france"), 1.0),
        (report(" mont blanc.", "factbook/spain", "factbook/france "), 1.0),
        (report("France", "factbook/france"), 1.0),
        (report("Mont Blanc"), 0.0),
        (report("Mont Blanc", "factbook/spain"), 0.0),
        (report("Mont Blanc", "factbook/france", failed=True), 0.0),
        (report("Rhone River delta", "factbook/france"), 0.0),
        (report("Mont Blanc 4,810", "factbook/france"), 0.0),
        (report(None, "factbook/france"), 0.0),
    ],
)
def test_expert_wants_a_gold_value_and_its_page_visited(task: Factbook, trajectory: Trajectory, score: float) -> None:
    assert asyncio.run(task.expert(QUESTION, trajectory)) == score


def test_correct_forgives_case_space_and_final_punctuation_only(task: Factbook) -> None:
    for answer, right in ((" MONT  blanc. ", 1.0), ("Mont Blanc 4,810", 0.0), ("", 0.0), (None, 0.0)):
        assert asyncio.run(task.correct(QUESTION, answer)) == right


def test_questions_are_limited_balanced_and_kept(task: Factbook) -> None:
    for split in ORDER:
        questions = task.questions(split)
        assert [question.level for question in questions] == ["1 hop", "2 hops"] * 10
        assert task.questions(split) is questions
        assert {question.evidence[-1].url for question in questions} <= set(task.countries(split))
    assert set(task.tools()) == {"search", "visit"}


def test_held_out_pages_are_those_of_validation_and_test(task: Factbook) -> None:
    countries = {split: set(task.countries(split)) for split in ORDER}
    assert countries["validation"] | countries["test"] <= held_out()
    assert not countries["train"] & held_out()
    shares = [len(countries[split]) / 254 for split in ORDER]
    assert shares == pytest.approx([0.7, 0.15, 0.15], abs=0.05)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"hops": [0]}, r"hops\[0\] is 0"),
        ({"hops": [1, 5]}, r"hops\[1\] is 5"),
        ({"hops": [2, 2]}, "has a number twice"),
        ({"hops": []}, "hops is empty"),
        ({"max_questions": 0}, "max_questions is 0"),
        ({"backend": "bing"}, "'bing'"),
        ({"mistakes": {"lazy": 1.0}}, "'lazy'"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        Factbook(**arguments)  # type: ignore[arg-type]


def test_an_unknown_split_is_named(task: Factbook) -> None:
    with pytest.raises(ConfigurationError, match="'dev'"):
        task.questions("dev")  # type: ignore[arg-type]


@pytest.mark.parametrize("each", [36, pytest.param(12, marks=pytest.mark.slow)])
def test_search_shows_the_right_field_but_not_always_first(facts: Facts, world: World, each: int) -> None:
    backend = Fts5Backend(world.passages())
    first = among = asked = 0
    for name, relation in RELATIONS.items():
        for fact in facts.of(name)[::each]:
            hits = [(hit.url, f"{hit.section}: {hit.field}") for hit in backend.search(lookup(fact.evidence).query, 5)]
            first += hits[:1] == [(fact.url, relation.place)]
            among += (fact.url, relation.place) in hits
            asked += 1
    assert asked > 3600 / each
    assert among / asked > 0.97
    assert 0.5 < first / asked < 0.8
