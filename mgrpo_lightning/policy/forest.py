"""Forest: token sequences laid out so that what several of them begin with stands there once.

The rollouts of a group begin with the same prompt, and all conversations of a role with the same system prompt. A
forward pass over a forest computes such a prefix once, pads nothing in the linear layers, and lets no token see any
other than those before it in its own sequence (correctness.md 11).

Shapes: T tokens in all; a rectangle has n runs of at most R tokens, which see at most K.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

SHORTEST = 16
"""Tokens; a shorter run at a fork is laid out twice, as attention for a run of its own costs more."""
WASTE = 16384
"""Pairs of a query and a key that may be padding before a rectangle is cut, besides a quarter of it: their cost is
about that of one more call of the attention kernel."""


LAID_OUT = 4
"""Token budgets: what the rows of a micro-batch may add up to, counted row by row. Attention has keys of each row."""


@dataclass(frozen=True)
class Rectangle:
    """Runs of alike size, whose attention is one call; padded on the right with token 0, whose result is not used."""

    queries: Tensor
    """Where the tokens of each run stand, int64, n x R."""
    keys: Tensor
    """Where the tokens stand that they see: their sequence from its start to the end of the run, int64, n x K."""
    mask: Tensor | None
    """0 where a query sees a key and -inf elsewhere (True and False as built), n x 1 x R x K; None if every run starts
    its sequence: then K is R, and plain causal attention is right."""


@dataclass(frozen=True)
class Forest:
    """The layout of S sequences."""

    ids: Tensor
    """int64, T."""
    positions: Tensor
    """Of each token in its sequence, int64, T."""
    before: Tensor
    """Where the token before each stands, int64, T; -1 at the start of a sequence."""
    paths: tuple[Tensor, ...]
    """Where the tokens of each sequence stand, in the order of the sequences, int64, on the CPU."""
    rectangles: tuple[Rectangle, ...]
    order: Tensor
    """Where each token's result is among those of all rectangles, padding included, one after the other, int64, T."""

    @classmethod
    def of(cls, sequences: Iterable[Tensor]) -> Forest:
        """Lay sequences out, in the order given.

        Args:
            sequences: Token ids, int64, on the CPU; none is empty.
        """
        builder = ForestBuilder()
        for sequence in sequences:
            builder.add(sequence)
        return builder.build()

    def to(self, device: torch.device, dtype: torch.dtype) -> Forest:
        """The forest where the model is, its masks in the type of the activations; ``paths`` stay on the CPU."""
        rectangles = [
            Rectangle(
                r.queries.to(device), r.keys.to(device), None if r.mask is None else additive(r.mask, dtype, device)
            )
            for r in self.rectangles
        ]
        return replace(
            self,
            ids=self.ids.to(device),
            positions=self.positions.to(device),
            before=self.before.to(device),
            order=self.order.to(device),
            rectangles=tuple(rectangles),
        )

    def dense_mask(self) -> Tensor:
        """The plain way to the same attention: True where a token sees another, bool, 1 x 1 x T x T, on the CPU."""
        visible = torch.zeros(len(self.order), len(self.order), dtype=torch.bool)
        for path in self.paths:
            visible[path[:, None], path] = torch.ones(len(path), len(path), dtype=torch.bool).tril()
        return visible[None, None]


def additive(visible: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A mask to add to scores: 0 where ``visible``, -inf elsewhere."""
    return torch.zeros(visible.shape, dtype=dtype, device=device).masked_fill_(~visible.to(device), -torch.inf)


@dataclass(eq=False)
class _Run:
    """Tokens ``start`` to ``end`` of a sequence, shared by all sequences that have it in their path."""

    sequence: Tensor
    start: int
    end: int
    parent: _Run | None


class ForestBuilder:
    """Adds sequences one after the other; each shares what it has in common with the one added before it.

    In lexicographic order that is all there is to share.
    """

    def __init__(self) -> None:
        self.num_tokens = 0
        """Tokens laid out so far."""
        self._runs: list[_Run] = []
        self._ends: list[_Run] = []
        self._sequences: list[Tensor] = []

    def cost(self, sequence: Tensor) -> int:
        """How many more tokens there would be.

        Args:
            sequence: Token ids, int64, on the CPU; not empty.
        """
        return len(sequence) - self._fork(sequence)[1]

    def add(self, sequence: Tensor) -> None:
        """Lay out one more sequence.

        Args:
            sequence: Token ids, int64, on the CPU; not empty.
        """
        run, at = self._fork(sequence)
        if run is not None and run.start < at < run.end:  # what is shared becomes a run of its own, above the rest
            shared = _Run(run.sequence, run.start, at, run.parent)
            run.start, run.parent = at, shared
            self._runs.append(shared)
            run = shared
        elif run is not None and at == run.start:
            run = run.parent
        if at < len(sequence) or run is None:
            run = _Run(sequence, at, len(sequence), run)
            self._runs.append(run)
        self.num_tokens += len(sequence) - at
        self._ends.append(run)
        self._sequences.append(sequence)

    def build(self) -> Forest:
        """The forest of all sequences added."""
        runs = sorted(self._runs, key=lambda run: run.start)  # parents first
        paths: dict[_Run, Tensor] = {}
        total = 0
        for run in runs:
            own = torch.arange(total, total + run.end - run.start)
            total += len(own)
            paths[run] = own if run.parent is None else torch.cat([paths[run.parent], own])
        nothing = torch.tensor([-1])
        rectangles, order = _rectangles([(run.start, paths[run]) for run in runs], total)
        return Forest(
            ids=torch.cat([run.sequence[run.start : run.end] for run in runs]),
            positions=torch.cat([torch.arange(run.start, run.end) for run in runs]),
            before=torch.cat([torch.cat([nothing, paths[run]])[run.start : run.end] for run in runs]),
            paths=tuple(paths[end] for end in self._ends),
            rectangles=rectangles,
            order=order,
        )

    def _fork(self, sequence: Tensor) -> tuple[_Run | None, int]:
        """The run of the last sequence that a new one leaves, and after how many tokens it does."""
        if not self._ends:
            return None, 0
        shared = _num_shared(self._sequences[-1], sequence)
        run = self._ends[-1]
        while run.parent is not None and shared <= run.start:
            run = run.parent
        at = min(shared, run.end)
        return run, at if at == run.end or at - run.start >= SHORTEST else run.start


def _num_shared(one: Tensor, other: Tensor) -> int:
    """Length of the common prefix."""
    length = min(len(one), len(other))
    differ = (one[:length] != other[:length]).nonzero()
    return int(differ[0]) if len(differ) else length


def _rectangles(runs: Sequence[tuple[int, Tensor]], total: int) -> tuple[tuple[Rectangle, ...], Tensor]:
    """Group runs, given as start and path, by size; and find each token's result."""
    ordered = sorted(runs, key=lambda run: (run[0] > 0, len(run[1]), run[0]))
    made: list[Rectangle] = []
    order = torch.empty(total, dtype=torch.int64)
    results = 0
    for group in _alike(ordered):
        starts = torch.tensor([start for start, _ in group])
        keys = torch.nn.utils.rnn.pad_sequence([path for _, path in group], batch_first=True)
        queries = torch.nn.utils.rnn.pad_sequence([path[start:] for start, path in group], batch_first=True)
        seen = starts[:, None] + torch.arange(queries.shape[1])
        mask = torch.arange(keys.shape[1]) <= seen[:, :, None] if starts.any() else None
        made.append(Rectangle(queries, keys, None if mask is None else mask[:, None]))
        for row, (start, path) in enumerate(group):
            order[path[start:]] = torch.arange(len(path) - start) + results + row * queries.shape[1]
        results += queries.numel()
    return tuple(made), order


def _alike(runs: Sequence[tuple[int, Tensor]]) -> list[list[tuple[int, Tensor]]]:
    """Cut the ordered runs where padding would be too much."""
    groups: list[list[tuple[int, Tensor]]] = []
    width = height = needed = 0
    for start, path in runs:
        keys, queries = len(path), len(path) - start
        new_width, new_height = max(width, keys), max(height, queries)
        area = needed + keys * queries
        fits = bool(groups) and (len(groups[-1]) + 1) * new_width * new_height <= 1.25 * area + WASTE
        if fits and (groups[-1][0][0] > 0) == (start > 0):
            groups[-1].append((start, path))
            width, height, needed = new_width, new_height, area
        else:
            groups.append([(start, path)])
            width, height, needed = keys, queries, keys * queries
    return groups
