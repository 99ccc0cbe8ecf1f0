"""RowAssignment: give sequences rows of the KV cache, copy prefixes, evict idle rows, keep decoding rows adjacent.

Adjacent rows are read as a view, so a decoding step copies no keys and values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mgrpo_lightning.policy.sampling.conversation import Tokens
from mgrpo_lightning.policy.sampling.row_cache import RowCache, padded


class RowAssignment:
    """The assignment of sequences to the rows of one RowCache."""

    def __init__(self, cache: RowCache) -> None:
        self._cache = cache
        self._rows: list[Tokens | None] = []

    def free_unused(self) -> None:
        """Free the rows of sequences without users."""
        for row, tokens in enumerate(self._rows):
            if tokens is not None and tokens.users == 0:
                tokens.row, tokens.cached = None, 0
                self._rows[row] = None

    def forget(self) -> None:
        """Empty every row. Sequences still in use are prefilled again when they are next sampled."""
        for tokens in self._rows:
            if tokens is not None:
                tokens.row, tokens.cached = None, 0
        self._rows = []

    def make_room(self, needed: Sequence[Tokens], capacity: int, budget: int | None) -> None:
        """Make the cache large enough for these sequences, within the budget.

        If the budget is short, idle conversations lose their rows, the least recently used ones first. They are
        prefilled again when they go on.

        Args:
            needed: Sequences that must have rows. Some may already have one.
            capacity: Length of the longest of them, in tokens.
            budget: Upper limit for rows times capacity; None: no limit.
        """
        wanted = set(needed)
        idle = [tokens for tokens in self._rows if tokens is not None and tokens not in wanted]
        idle.sort(key=lambda tokens: tokens.used, reverse=True)

        def size() -> tuple[int, int]:
            # Every row has the capacity of the longest one, so a dropped row may save more than its own tokens.
            longest = max((tokens.cached for tokens in idle), default=0)
            return len(wanted) + len(idle), padded(max(capacity, longest))

        while budget is not None and idle and math.prod(size()) > budget:
            lost = idle.pop()
            self._rows[self._rows.index(lost)] = None
            lost.row, lost.cached = None, 0
        rows, capacity = size()
        if budget is None or max(rows, self._cache.num_rows) * max(capacity, self._cache.capacity) <= budget:
            self._cache.reserve(rows, capacity)
        else:
            # The resize may cut rows off the end, so the sequences move to the front first.
            self._close_ranks()
            self._cache.resize(rows, capacity)

    def _close_ranks(self) -> None:
        """Move all sequences to the front without a gap, in their current order."""
        kept = [tokens for tokens in self._rows if tokens is not None]
        moves = {row: tokens.row for row, tokens in enumerate(kept) if tokens.row is not None and tokens.row != row}
        self._cache.move(moves, max((tokens.cached for tokens in kept), default=0))
        for row, tokens in enumerate(kept):
            tokens.row = row
        self._rows = list(kept)

    def give(self, sequences: Sequence[Tokens]) -> None:
        """Give each sequence without a row the first free row, and copy the cache of its parent into it."""
        free = [row for row, tokens in enumerate(self._rows) if tokens is None]
        needy = [tokens for tokens in sequences if tokens.row is None]
        missing = max(len(needy) - len(free), 0)
        free += range(len(self._rows), len(self._rows) + missing)
        self._rows += [None] * missing
        self._cache.reserve(len(self._rows), 0)
        copies: dict[int, int] = {}
        for tokens, row in zip(needy, free, strict=False):
            tokens.row, self._rows[row] = row, tokens
            parent = tokens.parent
            if parent is not None and parent.row is not None:
                copies[row], tokens.cached, tokens.version = parent.row, parent.cached, parent.version
        self._cache.move(copies, max((tokens.cached for tokens in needy), default=0))
        for tokens in needy:
            if tokens.parent is not None:
                tokens.parent.release()
                tokens.parent = None

    def arrange(self, front: Sequence[Tokens], start: int) -> None:
        """Move these sequences to rows start, start + 1, ..., in any order. Sequences in their way swap places."""
        wanted = range(start, start + len(front))
        inside = {tokens.row for tokens in front if tokens.row in wanted}
        holes = iter([row for row in wanted if row not in inside])
        moves: dict[int, int] = {}
        length = 0
        for tokens in front:
            if tokens.row in wanted:
                continue
            source, target = tokens.row, next(holes)
            assert source is not None, "give() comes first"
            other = self._rows[target]
            moves[target] = source
            length = max(length, tokens.cached)
            self._rows[target], self._rows[source] = tokens, other
            tokens.row = target
            if other is not None:
                other.row = source
                # move() reads all rows before it writes, so the swap needs no spare row.
                moves[source] = target
                length = max(length, other.cached)
        self._cache.move(moves, length)
