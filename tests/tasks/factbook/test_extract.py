"""Extractors against the shapes that values take on the pages: one exact answer, or none."""

from __future__ import annotations

import pytest

from mgrpo_lightning.tasks.factbook import extract
from mgrpo_lightning.tasks.factbook.relations import RELATIONS


@pytest.mark.parametrize(
    ("relation", "text", "answer"),
    [
        ("capital", "Paris", "Paris"),
        ("capital", "Vientiane (Viangchan)", "Vientiane"),
        ("capital", "Santiago; note - Valparaiso is the seat of the legislature", "Santiago"),
        ("capital", "Pretoria (administrative capital); Cape Town (legislative capital)", None),
        ("capital", "Chisinau in Romanian (Kishinev in Russian)", None),
        ("capital", "no official capital; offices in Yaren", None),
        ("capital", "Washington, D.C.", None),
        ("highest_point", "Mont Blanc 4,810", "Mont Blanc"),
        ("highest_point", "Mount Everest (highest peak in Asia) 8,849 m", "Mount Everest"),
        ("highest_point", "Pik Khan-Tengri 7,010 m\nnote - the northern most peak", "Pik Khan-Tengri"),
        ("highest_point", "unnamed elevation 805 m", None),
        ("highest_point", "Gjeravica/Deravica 2,656 m", None),
        ("highest_point", "K2 (Mt. Godwin-Austen) 8,611 m", None),
        ("lowest_point", "Dead Sea -431 m", "Dead Sea"),
        ("lowest_point", "junction of the Limpopo and Shashe Rivers 513 m", None),
        ("area", "163,610 sq km", "163,610 sq km"),
        ("area", "643,801 sq km ; 551,500 sq km (metropolitan France)", None),
        ("area", "1.284 million sq km", None),
        ("area", "9,251 sq km (of which 3,355 sq km are in the north)", "9,251 sq km"),
        ("coastline", "4,853 km", "4,853 km"),
        ("coastline", "0 km (landlocked)", None),
        ("coastline", "4,675 km (Peninsular Malaysia 2,068 km; East Malaysia 2,607 km)", None),
        ("population", "68,512,806 (2025 est.)", "68,512,806"),
        ("population", "uninhabited", None),
        ("life_expectancy", "82.6 years (2024 est.)", "82.6 years"),
        ("nationality", "French", "French"),
        ("nationality", "Saudi or Saudi Arabian", None),
        ("nationality", "Bosnian, Herzegovinian", None),
        ("official_name", "French Republic", "French Republic"),
        ("official_name", "none", None),
        ("government_type", "parliamentary republic", "parliamentary republic"),
        ("government_type", "presidential republic; authoritarian", None),
        ("independence", "5 July 1962 (from France)", "5 July 1962"),
        ("independence", "3 March 1878 (autonomous); 22 September 1908 (complete independence)", None),
        ("independence", "none (territory of Australia)", None),
        ("anthem", '"Negaraku" (My Country)', "Negaraku"),
        ("anthem", 'four names: "Schweizerpsalm" [German] "Cantique Suisse" [French]', None),
        ("holiday", "Fete de la Federation, 14 July (1790)", "14 July"),
        ("holiday", "Independence Day, 5 July (1962); Revolution Day, 1 November (1954)", None),
        ("holiday", "Constitution Day, the first Monday in July (1959)", None),
        ("time_zone", "UTC+1 (6 hours ahead of Washington, DC, during Standard Time)", "UTC+1"),
        ("time_zone", "UTC 0 (5 hours ahead of Washington, DC)", "UTC 0"),
        ("time_zone", "UTC+5.75 (10.75 hours ahead)", "UTC+5.75"),
        ("currency", "Nepalese rupees (NPR) per US dollar -", "Nepalese rupees"),
        ("currency", "baht per US dollar -", None),
        ("main_export", "cars, vehicle parts/accessories, trucks (2023)", "cars"),
        ("main_export", "fish (2023)", None),
        ("internet_code", ".fr", ".fr"),
        ("internet_code", "metropolitan France - .fr; Reunion - .re", None),
        ("airports", "1,218 (2025)", "1,218"),
        ("longest_border", "Andorra 55 km; Spain 1,646 km; Italy 476 km", "Spain"),
        ("longest_border", "Malaysia 266 km", "Malaysia"),
        ("longest_border", "Spain 5 km; Italy 5 km", None),
        ("longest_border", "Canada 8,891 km (including 2,475 km with Alaska); Mexico 3,111 km", None),
        ("export_partner", "Germany 11%, Italy 9%, United States 8% (2023)", "Germany"),
        ("export_partner", "Germany 11%, Italy 11% (2023)", None),
        ("export_partner", "Bahamas, The 13%, Iceland 10%", None),
        ("export_partner", "almost entirely United Kingdom (2022)", None),
    ],
)
def test_one_exact_answer_or_none(relation: str, text: str, answer: str | None) -> None:
    assert RELATIONS[relation].extract(text) == answer


def test_a_second_line_that_is_no_note_makes_a_fact_ambiguous() -> None:
    assert RELATIONS["anthem"].extract('"Ee"\n"Aa"') is None
    assert RELATIONS["anthem"].extract('"Ee"\nnote: adopted 1963') == "Ee"


@pytest.mark.parametrize(
    ("value", "number"), [("643,801 sq km", 643801), ("82.6 years", 82.6), ("-2 m", -2), ("0.44 km", 0.44)]
)
def test_number(value: str, number: float) -> None:
    assert extract.number(value) == number
