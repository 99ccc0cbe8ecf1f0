"""Format a table in Markdown (header, row), as benchmarks print them and the pages of docs/ show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """A table.

    Args:
        columns: Their titles.
        rows: The cells of each line.
    """
    return "\n".join([_row(columns), f"|{'---|' * len(columns)}", *map(_row, rows)])


def _row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
