"""Retelling: no real country stays, names change alike everywhere, the protocol and the headings stay."""

import json
import re

import pytest

from benchmarks.pocket.fiction import Storyteller, syllables

TITLES = ["France", "Spain", "United Kingdom", "Guinea", "Guinea-Bissau", "Cote d'Ivoire"]
LABELS = ["Geography", "Elevation", "highest point", "Exports - partners", "National anthem(s)"]
TEXTS = [
    "Find the highest point of France.",
    '<tool_call>\n{"name": "search", "arguments": {"query": "France highest point"}}\n</tool_call>',
    "1. factbook/france | France | Geography: Elevation\n"
    "2. factbook/cote-divoire | Cote d'Ivoire | Geography: Elevation",
    '<tool_call>\n{"name": "visit", "arguments": {"url": "factbook/france", "section": "Elevation"}}\n</tool_call>',
    "France | Geography\nElevation - highest point: Mont Blanc 4,810\n"
    "Exports - partners: Spain 8%, United Kingdom 7%\n[cut]",
    "highest point: Mont Blanc\n<answer>Mont Blanc</answer>",
]


@pytest.fixture(scope="module")
def teller() -> Storyteller:
    return Storyteller(TITLES, LABELS, ["ka", "lo", "ri", "mu"])


def test_the_same_name_is_the_same_new_name_everywhere(teller: Storyteller) -> None:
    told = teller.retell(TEXTS, ["France", "Mont Blanc"], seed=3)
    title = told[4].split(" | ")[0]
    assert told[0] == f"Find the highest point of {title}."
    assert json.loads(told[1].split("\n")[1])["arguments"]["query"] == f"{title} highest point"
    url, hit_title, heading = told[2].split("\n")[0].removeprefix("1. ").split(" | ")
    assert (hit_title, heading) == (title, "Geography: Elevation")
    assert json.loads(told[3].split("\n")[1])["arguments"] == {"url": url, "section": "Elevation"}
    answer = told[5].removeprefix("highest point: ").split("\n")[0]
    assert told[5] == f"highest point: {answer}\n<answer>{answer}</answer>"
    assert told[4].split("\n")[1].startswith(f"Elevation - highest point: {answer} ")


@pytest.mark.parametrize("seed", range(20))
def test_no_title_stays_and_the_shape_does(teller: Storyteller, seed: int) -> None:
    told = teller.retell(TEXTS, ["France"], seed=seed)
    for title in [*TITLES, "france", "cote-divoire", "Mont", "Blanc", "4,810"]:
        assert not any(re.search(rf"\b{re.escape(title)}\b", text) for text in told)
    assert [text.count("\n") for text in told] == [text.count("\n") for text in TEXTS]
    assert told[2].startswith("1. factbook/")
    assert told[4].endswith("%\n[cut]")


def test_another_seed_tells_another_story(teller: Storyteller) -> None:
    assert teller.retell(TEXTS, [], seed=1) == teller.retell(TEXTS, [], seed=1)
    assert teller.retell(TEXTS, [], seed=1) != teller.retell(TEXTS, [], seed=2)


def test_a_longer_title_is_not_mistaken_for_a_shorter_one(teller: Storyteller) -> None:
    short, long, again = teller.retell(["Guinea", "Guinea-Bissau", "Guinea 9%"], [], seed=0)
    assert not long.startswith(short)
    assert again.startswith(f"{short} ")


@pytest.mark.parametrize("seed", range(20))
def test_what_is_derived_from_a_title_keeps_its_new_stem(teller: Storyteller, seed: int) -> None:
    texts = ["nationality of Spain", "adjective: Spainoan", "Spainoan pesetas", "Franconian"]
    told = teller.retell(texts, [], seed=seed)
    stem = re.findall("[A-Za-z]+", told[0])[-1][:-1]
    adjective = told[1].removeprefix("adjective: ")
    assert adjective.startswith(stem)
    assert adjective.endswith("oan")
    assert told[2] == f"{adjective} pesetas"
    assert not told[3].endswith("ian")


def test_some_titles_take_the_shape_of_a_long_one(teller: Storyteller) -> None:
    words = {len(teller.retell(["France"], [], seed=seed)[0].split()) for seed in range(50)}
    assert words == {1, 2}


def test_lower_case_answers_change_as_a_whole(teller: Storyteller) -> None:
    quote, report = teller.retell(["Currency: euros (EUR) per US dollar", "euros"], ["euros"], seed=0)
    assert report != "euros"
    assert f" {report} (" in quote


def test_syllables_are_pieces_of_the_words() -> None:
    assert syllables(["Banana banana 12"]) == ["ba", "ba", "na", "na", "na", "na"]
