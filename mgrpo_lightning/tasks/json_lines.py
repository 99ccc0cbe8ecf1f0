"""Read a JSON Lines file of users; an error names file, line and column."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgrpo_lightning.errors import DataError


@dataclass(frozen=True)
class Line:
    """One line of a file."""

    path: Path
    number: int
    """Number of the line, from 1."""
    text: bytes
    layout: str
    """What a line must look like, the hint of errors."""

    def bad(self, key: str | None, problem: str) -> DataError:
        """Make the error for this line.

        Args:
            key: Key of the object that is wrong; None: the whole line.
            problem: Text that says what is wrong.
        """
        column = 1 if key is None else max(self.text.decode().find(json.dumps(key)), 0) + 1
        return self.bad_at(column, problem)

    def bad_at(self, column: int, problem: str) -> DataError:
        """Make the error for a place in this line.

        Args:
            column: Number of the character, from 1.
            problem: Text that says what is wrong.
        """
        return DataError(f"{self.path}, line {self.number}, column {column}: {problem}.", hint=self.layout)


def read_json_lines(path: Path, layout: str, *, what: str) -> Iterator[tuple[Line, dict[str, Any]]]:
    """Yield the lines of a UTF-8 file with their objects; blank lines are skipped.

    Args:
        path: The file.
        layout: What a line must look like, the hint of errors.
        what: Name of the file's kind, for errors.

    Raises:
        DataError: The file is missing, or a line is no JSON object.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"cannot read the {what} {path}: {error.strerror}.", hint="check the path.") from error
    for number, text in enumerate(lines, start=1):
        if text.strip():
            line = Line(path, number, text, layout)
            yield line, _object(line)


def _object(line: Line) -> dict[str, Any]:
    try:
        # Windows editors write a BOM.
        record = json.loads(line.text.decode("utf-8-sig" if line.number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        raise line.bad_at(error.start + 1, f"byte {line.text[error.start]:#04x} is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise line.bad_at(error.colno, error.msg) from error
    except (ValueError, RecursionError) as error:  # a number with thousands of digits, or very deep nesting
        raise line.bad(None, f"the line cannot be read ({error})") from error
    if not isinstance(record, dict):
        raise line.bad(None, f"the line is a {type(record).__name__}, not an object")
    return record
