"""Facts: known values, evidence that can be copied, and identification that is really unique."""

from __future__ import annotations

import pytest

from mgrpo_lightning.tasks.factbook.facts import Facts
from mgrpo_lightning.tasks.factbook.relations import RELATIONS
from mgrpo_lightning.tasks.factbook.world import World

KNOWN = {
    ("france", "capital"): "Paris",
    ("france", "highest_point"): "Mont Blanc",
    ("france", "population"): "68,512,806",
    ("france", "official_name"): "French Republic",
    ("france", "longest_border"): "Spain",
    ("france", "export_partner"): "Germany",
    ("france", "area"): None,
    ("france", "internet_code"): None,
    ("france", "time_zone"): None,
    ("germany", "capital"): "Berlin",
    ("germany", "internet_code"): ".de",
    ("japan", "nationality"): "Japanese",
    ("japan", "longest_border"): None,
    ("kenya", "independence"): "12 December 1963",
    ("kenya", "currency"): "Kenyan shillings",
    ("peru", "anthem"): "Himno Nacional del Peru",
    ("peru", "lowest_point"): "Pacific Ocean",
    ("south-africa", "capital"): None,
    ("russia", "area"): "17,098,242 sq km",
    ("chad", "coastline"): None,
    ("belgium", "longest_border"): "France",
    ("bolivia", "independence"): "6 August 1825",
}


@pytest.mark.parametrize(("place", "value"), KNOWN.items())
def test_known_facts(facts: Facts, place: tuple[str, str], value: str | None) -> None:
    fact = facts.get(f"factbook/{place[0]}", place[1])
    assert (fact.value if fact else None) == value


def test_every_relation_has_many_facts(facts: Facts) -> None:
    assert len(RELATIONS) >= 20
    counts = {name: len(facts.of(name)) for name in RELATIONS}
    assert min(counts.values()) >= 140, counts


def test_every_value_stands_on_the_line_of_its_evidence(facts: Facts, world: World) -> None:
    for name, relation in RELATIONS.items():
        for fact in facts.of(name):
            section, field = fact.evidence.section.split(": ")
            entry = world[fact.url].entry(section, field, relation.heading[2])
            assert entry is not None
            assert fact.value == fact.value.strip()
            assert fact.value in entry.line.splitlines()[0]
            assert fact.inverse.value == world[fact.url].title


def test_identifying_values_stand_on_no_other_page(facts: Facts, world: World) -> None:
    identifying = [fact for found in facts.identifying.values() for fact in found]
    assert len(identifying) > 800
    for relation in {fact.relation for fact in identifying}:
        lines = {u: e.line.casefold() for u, p in world.pages.items() if (e := RELATIONS[relation].entry(p))}
        for fact in identifying:
            if fact.relation == relation:
                assert [u for u, line in lines.items() if fact.value.casefold() in line.partition(": ")[2]] == [
                    fact.url
                ]
                assert fact.title.casefold() not in fact.value.casefold()


def test_links_lead_to_another_country(facts: Facts) -> None:
    assert facts.follow("factbook/france", "longest_border") == (
        facts.get("factbook/france", "longest_border"),
        "factbook/spain",
    )
    assert facts.follow("factbook/japan", "longest_border") is None
    assert "factbook/world" not in facts.countries
