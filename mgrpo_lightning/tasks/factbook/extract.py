"""Extract one exact short answer (name, date, currency, border) from a fact's text; None if it is ambiguous or tied.

Every answer is a literal substring of the text, so a policy can copy it from the page. Extractors take the text of an
``Entry``. They read its first line only; other lines must be notes.
"""

from __future__ import annotations

import re
from collections.abc import Callable

Extract = Callable[[str], str | None]

MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
# Only these may follow an unambiguous answer: the end of the line, a remark in brackets, or a note.
_END = r"(?=$| ?\((?!.*;)[^;]*$|; note)"


def one(pattern: str) -> Extract:
    """Make an extractor: the match of the pattern (or of its group) at the start, if at most a remark follows."""
    compiled = re.compile(rf"(?:{pattern}){_END}")

    def extract(text: str) -> str | None:
        first, *others = text.split("\n")
        match = compiled.match(first)
        if match is None or any(not line.lower().startswith("note") for line in others):
            return None
        return match[compiled.groups and 1].strip()  # group 1 if the pattern has a group, else the whole match

    return extract


def place(text: str) -> str | None:
    """Extract ``Mont Blanc`` from ``Mont Blanc 4,810 m``; None for unnamed places and for several places."""
    match = re.match(r"([^;(\d]+?)(?: \([^)]*\))* -?[\d,.]+(?: m\b[^;]*)?$", text.split("\n")[0])
    if match is None or re.search(r"\b(?:unnamed|location|or|and|near|above|more than|on the)\b|[/,]", match[1]):
        return None
    return match[1]


def currency(text: str) -> str | None:
    """Extract ``euros`` from ``euros (EUR) per US dollar -``."""
    match = re.match(r"([A-Za-z][\w' -]*?) \([A-Z]{3}\) per US dollar", text)
    return match[1] if match else None


def holiday(text: str) -> str | None:
    """Extract ``14 July`` from ``Fete de la Federation, 14 July (1790)``; None for several holidays or dates."""
    dates = re.findall(rf"\d{{1,2}} (?:{MONTHS})", text)
    return dates[0] if len(dates) == 1 and ";" not in text and " or " not in text else None


def first_item(text: str) -> str | None:
    """Extract ``cars`` from ``cars, computers, wheat (2023)``, a list of at least two, sorted by value."""
    match = re.match(r"([a-z][^,;()\d]*), [a-z]", text)
    return match[1] if match and "\n" not in text else None


def top_partner(text: str) -> str | None:
    """Extract ``Germany`` from ``Germany 11%, Italy 9% (2023)``; None if the second share is as high."""
    shares = re.findall(r"(?:^|, )([A-Z][^,;()\d]*?) (\d+)%", text)
    if not shares or not text.startswith(f"{shares[0][0]} ") or "\n" in text:
        return None
    tied = len(shares) > 1 and int(shares[1][1]) >= int(shares[0][1])
    return None if tied else str(shares[0][0])


def longest_border(text: str) -> str | None:
    """Extract ``Spain`` from ``Andorra 55 km; Spain 646 km``; None if an item is unclear or the longest is tied."""
    borders: dict[str, float] = {}
    for item in text.split("; "):
        match = re.fullmatch(r"([A-Z][^;,()\d]*?) ([\d,.]+) km", item)
        if match is None or match[1] in borders:
            return None
        borders[match[1]] = float(match[2].replace(",", ""))
    longest = max(borders, key=lambda name: borders[name])
    return longest if list(borders.values()).count(borders[longest]) == 1 else None


def number(value: str) -> float:
    """Parse the number in an answer such as ``643,801 sq km``, for comparisons."""
    match = re.search(r"-?[\d,]*\.?\d+", value)
    assert match, f"no number in {value!r}"
    return float(match[0].replace(",", ""))
