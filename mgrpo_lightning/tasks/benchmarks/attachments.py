"""The tool ``attachment``: read the text file that belongs to a question, in parts; UTF-8, UTF-16 or Windows-1252."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from pathlib import Path

from mgrpo_lightning.errors import ToolError
from mgrpo_lightning.tools.base import Tool, function_tool
from mgrpo_lightning.tools.parts import shown_part

TEXT_KINDS = frozenset({".csv", ".htm", ".html", ".json", ".jsonld", ".md", ".pdb", ".py", ".tsv", ".txt", ".xml"})
"""File extensions of text files; only these may be decoded as Windows-1252, which accepts almost any bytes."""


def attachment_tool(files: Mapping[str, Path]) -> Tool:
    """Make the tool ``attachment(name, part)``, which returns a question's file as text.

    Args:
        files: Paths by file name. A policy may pass the name or the whole path, because the question contains both.
    """
    known = {**{str(path): path for path in files.values()}, **files}

    def attachment(name: str, part: int = 1) -> str:
        """Read the file that belongs to the question, or a further part of a long one."""
        path = known.get(name.strip())
        if path is None:
            raise ToolError(f"there is no file {name!r}.", hint="use the file name that the question gives.")
        return shown_part(name, file_text(path), part)

    return function_tool(attachment)


def file_text(path: Path) -> str:
    """Decode a text file: as UTF-8, as UTF-16 if it has a byte order mark, or as Windows-1252 (``TEXT_KINDS`` only).

    Args:
        path: Path of an existing file.

    Raises:
        ToolError: The file is not text.
    """
    content = path.read_bytes()
    encodings = ["utf-8-sig"]
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encodings.append("utf-16")
    if path.suffix.lower() in TEXT_KINDS:
        encodings.append("cp1252")
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:  # a short binary file may decode well; only a NUL shows it
            return text
    raise ToolError(f"{path.name} is not a text file.", hint="read it with a tool for its file type.")
