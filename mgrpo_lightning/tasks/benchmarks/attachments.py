"""The tool that reads the files which belong to a benchmark's questions, as text and a part at a time."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from pathlib import Path

from mgrpo_lightning.errors import ToolError
from mgrpo_lightning.tools.base import Tool, function_tool
from mgrpo_lightning.tools.parts import shown_part

TEXT_KINDS = frozenset({".csv", ".htm", ".html", ".json", ".jsonld", ".md", ".pdb", ".py", ".tsv", ".txt", ".xml"})
"""Ends of names of files that are text in whatever encoding."""


def attachment_tool(files: Mapping[str, Path]) -> Tool:
    """The tool ``attachment(name, part)``: a question's file as text, if it is one.

    Args:
        files: By name. A policy may also give their whole paths.
    """
    known = {**{str(path): path for path in files.values()}, **files}

    def attachment(name: str, part: int = 1) -> str:
        """Read the file that belongs to the question, or a further part of a long one."""
        path = known.get(name.strip())
        if path is None:
            raise ToolError(f"there is no file {name!r}.", hint="give the name that the question names.")
        return shown_part(name, file_text(path), part)

    return function_tool(attachment)


def file_text(path: Path) -> str:
    """What a file says in UTF-8, in UTF-16 if it opens with its byte order mark, or, if it is text, in Windows-1252.

    Args:
        path: A file.

    Raises:
        ToolError: It is no text.
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
        if "\0" not in text:  # no text has it, and it is all that gives a short binary file away
            return text
    raise ToolError(f"{path.name} is no text.", hint="a tool for its kind has to read it.")
