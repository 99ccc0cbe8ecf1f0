"""From a fact's text to one exact short answer, or None: what is ambiguous, tied or missing has no exact answer.

Every answer stands in the text letter by letter, so that it can be copied from the page. Extractors take the text of
an ``Entry``; only its first line counts, and other lines must be notes.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Extract = Callable[[str], str | None]

MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
# What may follow an answer without making it ambiguous: the end, a remark in brackets, a note.
_END = r"(?=$| ?\((?!.*;)[^;]*$|; note)"


def one(pattern: str) -> Extract:
    """The text that the pattern's group (or all of it) matches at the start, if nothing but a remark follows."""
    compiled = re.compile(rf"(?:{pattern}){_END}")

    def extract(text: str) -> str | None:
        first, *others = text.split("\n")
        match = compiled.match(first)
        if match is None or any(not line.lower().startswith("note") for line in others):
            return None
        return match[compiled.groups and 1].strip()

    return extract


def place(text: str) -> str | None:
    """``Mont Blanc`` of ``Mont Blanc 4,810 m``; unnamed and shared places have no exact name."""
    match = re.match(r"([^;(\d]+?)(?: \([^)]*\))* -?[\d,.]+(?: m\b[^;]*)?$", text.split("\n")[0])
    if match is None or re.search(r"\b(?:unnamed|location|or|and|near|above|more than|on the)\b|[/,]", match[1]):
        return None
    return match[1]


def currency(text: str) -> str | None:
    """``euros`` of ``euros (EUR) per US dollar -``."""
    match = re.match(r"([A-Za-z][\w' -]*?) \([A-Z]{3}\) per US dollar", text)
    return match[1] if match else None


def holiday(text: str) -> str | None:
    """``14 July`` of ``Fete de la Federation, 14 July (1790)``; several holidays or dates have no exact answer."""
    dates = re.findall(rf"\d{{1,2}} (?:{MONTHS})", text)
    return dates[0] if len(dates) == 1 and ";" not in text and " or " not in text else None


def first_item(text: str) -> str | None:
    """``cars`` of ``cars, computers, wheat (2023)``: the first of a list of at least two, in order of value."""
    match = re.match(r"([a-z][^,;()\d]*), [a-z]", text)
    return match[1] if match and "\n" not in text else None


def top_partner(text: str) -> str | None:
    """``Germany`` of ``Germany 11%, Italy 9% (2023)``, unless the second is as high."""
    shares = re.findall(r"(?:^|, )([A-Z][^,;()\d]*?) (\d+)%", text)
    if not shares or not text.startswith(f"{shares[0][0]} ") or "\n" in text:
        return None
    tied = len(shares) > 1 and int(shares[1][1]) >= int(shares[0][1])
    return None if tied else str(shares[0][0])


def longest_border(text: str) -> str | None:
    """``Spain`` of ``Andorra 55 km; Spain 646 km``, if every border is understood and one is the longest."""
    borders: dict[str, float] = {}
    for item in text.split("; "):
        match = re.fullmatch(r"([A-Z][^;,()\d]*?) ([\d,.]+) km", item)
        if match is None or match[1] in borders:
            return None
        borders[match[1]] = float(match[2].replace(",", ""))
    longest = max(borders, key=lambda name: borders[name])
    return longest if list(borders.values()).count(borders[longest]) == 1 else None


def number(value: str) -> float:
    """The number in an answer such as ``643,801 sq km``, for comparisons."""
    match = re.search(r"-?[\d,]*\.?\d+", value)
    assert match, f"no number in {value!r}"
    return float(match[0].replace(",", ""))
