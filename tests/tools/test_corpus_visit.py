"""The visit tool: where a page is read from, and what near matches an error names."""

from __future__ import annotations

import asyncio

import pytest

from mgrpo_lightning.errors import ToolError
from mgrpo_lightning.tools.corpus_search import Passage
from mgrpo_lightning.tools.corpus_visit import MOST_COMPARED, Document, visit_tool


def field(section: str, name: str, text: str) -> Passage:
    return Passage("w/france", "France", section, name, text)


PAGE = Document(
    "France",
    [
        field("Geography", "Climate", "Climate: mild"),
        field("Geography", "Elevation", "Elevation - highest point: Mont Blanc\nElevation - lowest point: Rhone"),
        field("Geography", "Terrain", "Terrain: hills"),
        field("Environment", "Climate", "Climate: cold"),
        field("Environment", "Geography", "Geography: a field named like a section"),
    ],
)
ELEVATION = "France | Geography\nElevation - highest point: Mont Blanc\nElevation - lowest point: Rhone\nTerrain: hills"


def visit(url: str = "w/france", section: str = "Elevation") -> str:
    return asyncio.run(visit_tool({"w/france": PAGE})(url=url, section=section))


@pytest.mark.parametrize("heading", ["Elevation", "Geography: Elevation", " elevation ", "GEOGRAPHY:  Elevation"])
def test_text_starts_at_the_field_and_ends_with_its_section(heading: str) -> None:
    assert visit(section=heading) == ELEVATION


def test_a_section_is_read_from_its_start_even_if_a_field_has_its_name() -> None:
    assert visit(section="Geography").startswith("France | Geography\nClimate: mild\nElevation")


def test_a_field_in_two_sections_is_the_first_unless_the_section_is_named() -> None:
    assert visit(section="Climate").splitlines()[1] == "Climate: mild"
    assert visit(section="Environment: Climate").splitlines()[:2] == ["France | Environment", "Climate: cold"]


def test_errors_name_near_matches() -> None:
    with pytest.raises(ToolError, match=r"no section 'elevations'.*did you mean Elevation"):
        visit(section="elevations")
    with pytest.raises(ToolError, match=r"no page 'w/frnce'.*did you mean w/france"):
        visit(url="w/frnce")
    with pytest.raises(ToolError, match=r"no page 'http://x'.*search"):
        visit(url="http://x")


@pytest.mark.parametrize(
    ("pages", "hint"), [(MOST_COMPARED, "did you mean w/france"), (MOST_COMPARED + 1, "search for")]
)
def test_a_world_of_many_pages_is_not_searched_for_near_matches(pages: int, hint: str) -> None:
    documents = {"w/france": PAGE, **{f"{number:09}": PAGE for number in range(1, pages)}}
    with pytest.raises(ToolError, match=rf"no page 'w/frnce'.*{hint}"):
        asyncio.run(visit_tool(documents)(url="w/frnce", section="Elevation"))
    with pytest.raises(ToolError, match="did you mean Elevation"):
        asyncio.run(visit_tool(documents)(url="w/france", section="elevations"))
