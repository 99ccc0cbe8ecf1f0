"""Every question of the Factbook has one right answer: checked by a second way, against the raw snapshot.

Nothing of the package reads the pages here: lines are found by their labels, values by plain string operations, and
countries by comparing letters. So a mistake in extractors, in uniqueness or in paths does not check itself.
"""

from __future__ import annotations

import functools
import json
import lzma
import re
import string
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise

import pytest

from mgrpo_lightning.records.question import Evidence, Split
from mgrpo_lightning.tasks import Factbook, Question
from mgrpo_lightning.tasks.factbook.world import SNAPSHOT

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
PLACES = {
    "capital": "Government|Capital|name",
    "highest_point": "Geography|Elevation|highest point",
    "lowest_point": "Geography|Elevation|lowest point",
    "mean_elevation": "Geography|Elevation|mean elevation",
    "area": "Geography|Area|total",
    "coastline": "Geography|Coastline|",
    "population": "People and Society|Population|total",
    "life_expectancy": "People and Society|Life expectancy at birth|total population",
    "median_age": "People and Society|Median age|total",
    "nationality": "People and Society|Nationality|adjective",
    "official_name": "Government|Country name|conventional long form",
    "government_type": "Government|Government type|",
    "independence": "Government|Independence|",
    "anthem": "Government|National anthem(s)|title",
    "holiday": "Government|National holiday|",
    "time_zone": "Government|Capital|time difference",
    "currency": "Economy|Exchange rates|Currency",
    "main_export": "Economy|Exports - commodities|",
    "main_import": "Economy|Imports - commodities|",
    "internet_code": "Communications|Internet country code|",
    "airports": "Transportation|Airports|",
    "longest_border": "Geography|Land boundaries|border countries",
    "export_partner": "Economy|Exports - partners|",
    "import_partner": "Economy|Imports - partners|",
}
"""Where each relation stands, written down once more."""


@functools.cache
def raw() -> dict[str, dict[str, list[str]]]:
    """Texts by place, by title."""
    pages: dict[str, dict[str, list[str]]] = {}
    for line in lzma.decompress(SNAPSHOT.read_bytes()).decode().splitlines():
        page = json.loads(line)
        assert page["title"] not in pages, "a title is the name of one page"
        texts: dict[str, list[str]] = defaultdict(list)
        for section, field, subfield, text in page["facts"]:
            texts[f"{section}|{field}|{subfield}"].append(text)
        pages[page["title"]] = texts
    return pages


def line(title: str, relation: str) -> str:
    """The one text of a relation, its first line."""
    (text,) = raw()[title][PLACES[relation]]
    return text.partition("\n")[0]


@functools.cache
def letters(text: str) -> str:
    """Letters and digits without accents and case."""
    plain = unicodedata.normalize("NFKD", text).lower()
    return "".join(one for one in plain if one in string.ascii_lowercase + string.digits or ord(one) > 0x2FF)


@functools.cache
def words(text: str) -> list[str]:
    return [one for one in map(letters, re.split(r"[\s()\-/,;:]+", text)) if one]


def distance(one: str, other: str) -> int:
    """Levenshtein's, by the textbook."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        row, above = [i], row
        for j, b in enumerate(other, start=1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (a != b)))
    return row[-1]


@functools.cache
def countries_with(relation: str, value: str) -> list[str]:
    """Titles of all pages in whose line a reader could find the value, or whose own name for it is nearly the same."""
    wanted, count = letters(value), len(words(value))
    name = len(wanted) >= 6 and not any(one.isdigit() for one in wanted)
    return [title for title in raw() if _says(title, relation, wanted, count, name)]


def _says(title: str, relation: str, wanted: str, count: int, name: bool) -> bool:
    for text in raw()[title].get(PLACES[relation], ()):
        said = words(text)
        windows = range(max(count - 1, 1), count + 2)
        runs = ("".join(said[start : start + size]) for start in range(len(said)) for size in windows)
        if wanted in letters(text) and wanted in runs:
            return True
        own = letters(re.split(r"[;(\d]", text.strip('"'))[0])
        if name and abs(len(own) - len(wanted)) <= 1 and distance(own, wanted) <= 1:
            return True
    return False


def amounts(text: str) -> dict[str, float]:
    """Names with the number behind each, of a list of borders or partners."""
    found = re.findall(r"(?:^|[;,] )([A-Z].*?) <?(\d[\d,.]*) ?(?:km|%)", re.sub(r"\(.*?\)", "", text))
    return {name: float(number.replace(",", "")) for name, number in found}


def check(hop: Evidence) -> None:
    """A hop finds one thing, which stands where it says."""
    relation = hop.relation.removeprefix("country_by_")
    if relation != hop.relation:
        assert countries_with(relation, hop.subject) == [hop.value], hop
        return
    text = line(hop.subject, relation)
    assert hop.value in text, hop
    if relation in ("longest_border", "export_partner", "import_partner"):
        shares = amounts(text)
        assert [name for name, share in shares.items() if share == max(shares.values())] == [hop.value], (hop, shares)
        assert hop.value in raw(), "a link leads to a page"
    elif relation in ("main_export", "main_import"):
        assert text.split(",")[0] == hop.value, hop
    elif relation == "holiday":
        months = "January|February|March|April|May|June|July|August|September|October|November|December"
        assert re.findall(rf"\d+ (?:{months})", text) == [hop.value], hop
    else:
        around = text.replace(hop.value, "", 1)
        assert not around.strip(' ."').startswith((",", "/", "and ", "or ")), (hop, text)
        outside = re.sub(r"\(.*?\)", "", around.partition("; note")[0])
        assert " or " not in outside, (hop, text)
        assert ";" not in outside, (hop, text)


def asked(question: Question) -> None:
    """The hops are those of the text, each about what the one before found; the last one finds the answer."""
    hops = question.evidence
    (answer,) = question.answers
    if question.level == "comparison":
        values = {hop.subject: float(re.sub(r"[^\d.-]", "", hop.value)) for hop in hops}
        assert all(title in question.text for title in values)
        assert [title for title, value in values.items() if value == max(values.values())] == [answer]
        return
    assert answer == hops[-1].value
    assert hops[0].subject in question.text
    assert all(hop.subject == before.value for before, hop in pairwise(hops))
    assert len({hop.url for hop in hops}) >= len(hops) - 1


def answers_by_text(questions: Iterable[Question]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for question in questions:
        found[letters(question.text)].add(question.answers[0])
    return found


def walk(questions: list[Question]) -> None:
    for hop in {hop for question in questions for hop in question.evidence}:
        check(hop)
    for question in questions:
        asked(question)
    twice = {text: answers for text, answers in answers_by_text(questions).items() if len(answers) > 1}
    assert not twice, "no text asks for two things"


def test_one_right_answer_each_in_the_quickstart() -> None:
    task = Factbook(hops=[1, 2])
    walk([question for split in SPLITS for question in task.questions(split)[:300]])


@pytest.mark.slow
def test_one_right_answer_each_in_all_questions() -> None:
    """Every question of every level and split: each level alone, as one list ends with its shortest level."""
    found: list[Question] = []
    for hops, comparisons in ([1], False), ([2], False), ([3], False), ([4], False), ([], True):
        task = Factbook(hops=hops, comparisons=comparisons)
        found += [question for split in SPLITS for question in task.questions(split)]
    assert len(found) > 100_000
    walk(found)
