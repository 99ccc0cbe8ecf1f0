"""Convert the Factbook's HTML fragments to plain text, and its country names to page titles and URLs.

Fields that link countries (borders, trade partners) are rewritten to page titles when the snapshot is built: a reader
can follow "United States 22%" to a page, but not "USA 22%".
"""

from __future__ import annotations

import html
import re
import unicodedata

TITLES = {
    "cf": "Republic of the Congo",
    "cg": "Democratic Republic of the Congo",
    "dr": "Dominican Republic",
    "ee": "European Union",
    "fm": "Micronesia",
    "gz": "Gaza Strip",
    "iv": "Cote d'Ivoire",
    "um": "United States Pacific Island Wildlife Refuges",
    "xx": "World",
}
"""Page titles by GEC code, for pages whose conventional short form is missing or not usable as a title."""

ALIASES = {
    "Bahamas": "The Bahamas",
    "BVI": "British Virgin Islands",
    "DRC": "Democratic Republic of the Congo",
    "Gambia": "The Gambia",
    "Macedonia": "North Macedonia",
    "N. Korea": "North Korea",
    "N. Macedonia": "North Macedonia",
    "NZ": "New Zealand",
    "S. Korea": "South Korea",
    "UAE": "United Arab Emirates",
    "UK": "United Kingdom",
    "US": "United States",
    "USA": "United States",
}
"""Names in other pages' lists that differ from the page's title, with that title."""

LINK_FIELDS = (
    ("Geography", "Land boundaries", "border countries"),
    ("Economy", "Exports - partners", ""),
    ("Economy", "Imports - partners", ""),
)
"""(section, field, subfield) of the facts that name other countries; these facts link pages."""

_PLAIN = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "-", "\u2026": "..."}
)
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060\ufeff]")
_BREAK = re.compile(r"<\s*(?:br|/?p|/?li|/?ul|/?div)\b[^>]*>", re.IGNORECASE)
_TAG = re.compile(r"<!--.*?-->|<!--[^>]*>|</?[a-zA-Z][^>]*>", re.DOTALL)
# A country name at the start of a list item, up to its number or to a remark in brackets.
_ITEM_NAME = re.compile(r"(?P<head>^|; |, | and )(?P<name>[A-Z][^;,()\d]*?)(?= \(| \d| <?\d)")


def clean(text: str) -> str:
    """Convert an HTML fragment to plain text: no tags or entities, ASCII quotes and dashes, one line a paragraph."""
    text = _TAG.sub("", _BREAK.sub("\n", text))
    # unescape twice: some entities in the source are escaped twice.
    text = unicodedata.normalize("NFC", html.unescape(html.unescape(text))).translate(_PLAIN)
    lines = (" ".join(line.split()) for line in _INVISIBLE.sub("", text).split("\n"))
    return "\n".join(line for line in lines if line)


def slug(title: str) -> str:
    """Make the last part of a page's URL: ``Cote d'Ivoire`` becomes ``cote-divoire``."""
    ascii_title = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower().replace("'", "")
    return re.sub(r"[^a-z0-9]+", "-", ascii_title).strip("-")


def page_title(code: str, short_form: str, long_form: str) -> str:
    """Return the title of a page: its short name without a remark in brackets, else its long name.

    Args:
        code: The page's GEC code.
        short_form: ``Country name - conventional short form``, cleaned; may be the text ``none``.
        long_form: ``Country name - conventional long form``, cleaned.
    """
    if code in TITLES:
        return TITLES[code]
    name = long_form if short_form.lower() in ("", "none") else short_form
    return re.sub(r" \([^)]*\)$", "", name)


def link_titles(value: str, titles: frozenset[str]) -> str:
    """Rewrite the country names in a list of borders or partners to page titles; unknown names stay unchanged."""

    def title(match: re.Match[str]) -> str:
        name = match["name"]
        known = ALIASES.get(name, name.replace(" & ", " and ").replace("St. ", "Saint "))
        return match["head"] + (known if known in titles else name)

    return _ITEM_NAME.sub(title, value)
