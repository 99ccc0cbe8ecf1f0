"""Format a table in Markdown (header, row), as benchmarks print them and the pages of docs/ show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def header(columns: Sequence[str]) -> str:
    """The two lines that a table begins with.

    Args:
        columns: Their titles.
    """
    return f"{row(columns)}\n|{'---|' * len(columns)}"


def row(cells: Iterable[object]) -> str:
    """One line of a table.

    Args:
        cells: One for each column.
    """
    return f"| {' | '.join(map(str, cells))} |"


def markdown(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """A whole table.

    Args:
        columns: Their titles.
        rows: The cells of each line.
    """
    return "\n".join([header(columns), *map(row, rows)])
