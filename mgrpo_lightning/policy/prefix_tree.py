"""PrefixTree: token sequences in one row without padding, each shared prefix once; positions, masks, attention blocks.

The rollouts of a group share their prompt, and all conversations of a role share the system prompt. The tokens of all
sequences are laid out as one row of T tokens without padding, and a shared prefix is in it once. Each token attends
only to itself and the tokens before it in its own sequence (correctness.md 11).

A run is a stretch of tokens between two forks of the tree. An ``AttentionBlock`` holds n runs of at most R tokens,
which attend to at most K tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

SHORTEST = 16
"""Tokens. A shared run shorter than this is laid out twice: attention over one more run costs more than the copy."""
WASTE = 16384
"""Padding allowed in an attention block, in query-key pairs, on top of 25%. It costs about as much as one more call of
the attention kernel."""


LAID_OUT = 4
"""Bound on a micro-batch, in token budgets, when each row counts in full, shared prefixes included. Attention gathers
the keys of every row, shared ones too, so this sum decides its memory."""


@dataclass(frozen=True)
class AttentionBlock:
    """An attention block: runs of similar size that share one attention call.

    Shorter runs are padded on the right with index 0. The results of padded queries are not used.
    """

    queries: Tensor
    """Index of each run's tokens in the layout, int64, n x R."""
    keys: Tensor
    """Index of the tokens that they attend to: the sequence from its start to the end of the run, int64, n x K."""
    mask: Tensor | None
    """Attention mask, n x 1 x R x K: bool as built, additive (0 or -inf) after ``PrefixTree.to``. None if every run
    starts its sequence: then K is R, and the kernel's causal attention needs no mask."""


@dataclass(frozen=True)
class PrefixTree:
    """The prefix tree of S sequences, laid out as one row of T tokens."""

    ids: Tensor
    """Token ids, int64, T."""
    positions: Tensor
    """Position of each token in its own sequence, int64, T."""
    before: Tensor
    """Index of each token's predecessor in the layout, int64, T; -1 at the start of a sequence."""
    paths: tuple[Tensor, ...]
    """For each sequence, in the order they were added, the index of its tokens in the layout, int64, on the CPU."""
    blocks: tuple[AttentionBlock, ...]
    """The attention blocks. Each run is in exactly one of them."""
    order: Tensor
    """Index of each token's result in the concatenated results of all blocks, padding included, int64, T."""

    @classmethod
    def of(cls, sequences: Iterable[Tensor]) -> PrefixTree:
        """Build the prefix tree of these sequences.

        Args:
            sequences: Token ids of each sequence, int64, on the CPU. None may be empty. Only neighbours share
                prefixes, so sort them first to share all.
        """
        builder = PrefixTreeBuilder()
        for sequence in sequences:
            builder.add(sequence)
        return builder.build()

    def to(self, device: torch.device, dtype: torch.dtype) -> PrefixTree:
        """Move to the model's device, with additive masks in the activations' type. ``paths`` stay on the CPU."""
        blocks = [
            AttentionBlock(
                r.queries.to(device), r.keys.to(device), None if r.mask is None else additive(r.mask, dtype, device)
            )
            for r in self.blocks
        ]
        return replace(
            self,
            ids=self.ids.to(device),
            positions=self.positions.to(device),
            before=self.before.to(device),
            order=self.order.to(device),
            blocks=tuple(blocks),
        )

    def dense_mask(self) -> Tensor:
        """The same attention as one mask over all tokens, for models that cannot use the attention blocks.

        Returns bool, 1 x 1 x T x T, on the CPU; True where a query sees a key.
        """
        visible = torch.zeros(len(self.order), len(self.order), dtype=torch.bool)
        for path in self.paths:
            visible[path[:, None], path] = torch.ones(len(path), len(path), dtype=torch.bool).tril()
        return visible[None, None]


def additive(visible: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """An additive attention mask: 0 where ``visible``, -inf elsewhere."""
    return torch.zeros(visible.shape, dtype=dtype, device=device).masked_fill_(~visible.to(device), -torch.inf)


@dataclass(eq=False)
class _Run:
    """One node of the prefix tree: tokens ``start`` to ``end`` of a sequence, shared by all sequences through it."""

    sequence: Tensor
    start: int
    end: int
    parent: _Run | None


class PrefixTreeBuilder:
    """Builds a prefix tree. Each added sequence shares the prefix that it has in common with the one added before it.

    If the sequences come in lexicographic order, this finds every shared prefix.
    """

    def __init__(self) -> None:
        self.num_tokens = 0
        """Tokens laid out so far, shared ones counted once."""
        self._runs: list[_Run] = []
        self._ends: list[_Run] = []
        self._sequences: list[Tensor] = []

    def cost(self, sequence: Tensor) -> int:
        """Number of tokens that ``add(sequence)`` would add to the layout.

        Args:
            sequence: Token ids, int64, on the CPU; not empty.
        """
        return len(sequence) - self._fork(sequence)[1]

    def add(self, sequence: Tensor) -> None:
        """Add one sequence to the tree.

        Args:
            sequence: Token ids, int64, on the CPU; not empty.
        """
        run, at = self._fork(sequence)
        # The sequence leaves inside a run: split the run there, so that the shared part becomes the parent of the rest.
        if run is not None and run.start < at < run.end:
            shared = _Run(run.sequence, run.start, at, run.parent)
            run.start, run.parent = at, shared
            self._runs.append(shared)
            run = shared
        elif run is not None and at == run.start:
            run = run.parent
        # A sequence that ends at the fork adds no tokens and only gets its path.
        if at < len(sequence) or run is None:
            run = _Run(sequence, at, len(sequence), run)
            self._runs.append(run)
        self.num_tokens += len(sequence) - at
        self._ends.append(run)
        self._sequences.append(sequence)

    def build(self) -> PrefixTree:
        """The prefix tree of all added sequences."""
        # A parent starts before its children, so each path below is built from a path that is already there.
        runs = sorted(self._runs, key=lambda run: run.start)
        paths: dict[_Run, Tensor] = {}
        total = 0
        for run in runs:
            own = torch.arange(total, total + run.end - run.start)
            total += len(own)
            paths[run] = own if run.parent is None else torch.cat([paths[run.parent], own])
        nothing = torch.tensor([-1])
        blocks, order = _attention_blocks([(run.start, paths[run]) for run in runs], total)
        return PrefixTree(
            ids=torch.cat([run.sequence[run.start : run.end] for run in runs]),
            positions=torch.cat([torch.arange(run.start, run.end) for run in runs]),
            before=torch.cat([torch.cat([nothing, paths[run]])[run.start : run.end] for run in runs]),
            paths=tuple(paths[end] for end in self._ends),
            blocks=blocks,
            order=order,
        )

    def _fork(self, sequence: Tensor) -> tuple[_Run | None, int]:
        """The run in which a new sequence leaves the last one, and the number of tokens that the two share.

        A fork inside a run, fewer than SHORTEST tokens after its start, moves back to the run's start.
        """
        if not self._ends:
            return None, 0
        shared = _num_shared(self._sequences[-1], sequence)
        run = self._ends[-1]
        while run.parent is not None and shared <= run.start:
            run = run.parent
        at = min(shared, run.end)
        return run, at if at == run.end or at - run.start >= SHORTEST else run.start


def _num_shared(one: Tensor, other: Tensor) -> int:
    """Length of the common prefix, in tokens."""
    length = min(len(one), len(other))
    differ = (one[:length] != other[:length]).nonzero()
    return int(differ[0]) if len(differ) else length


def _attention_blocks(runs: Sequence[tuple[int, Tensor]], total: int) -> tuple[tuple[AttentionBlock, ...], Tensor]:
    """Group runs, each given as (start, path), into attention blocks; also return ``PrefixTree.order``."""
    # Similar sizes side by side keep padding small. Runs that start a sequence come first: their blocks need no mask.
    ordered = sorted(runs, key=lambda run: (run[0] > 0, len(run[1]), run[0]))
    made: list[AttentionBlock] = []
    order = torch.empty(total, dtype=torch.int64)
    results = 0
    for group in _alike(ordered):
        starts = torch.tensor([start for start, _ in group])
        keys = torch.nn.utils.rnn.pad_sequence([path for _, path in group], batch_first=True)
        queries = torch.nn.utils.rnn.pad_sequence([path[start:] for start, path in group], batch_first=True)
        # Query i of a run is token start + i of its path, so it sees the keys up to and with that index.
        seen = starts[:, None] + torch.arange(queries.shape[1])
        mask = torch.arange(keys.shape[1]) <= seen[:, :, None] if starts.any() else None
        made.append(AttentionBlock(queries, keys, None if mask is None else mask[:, None]))
        for row, (start, path) in enumerate(group):
            order[path[start:]] = torch.arange(len(path) - start) + results + row * queries.shape[1]
        results += queries.numel()
    return tuple(made), order


def _alike(runs: Sequence[tuple[int, Tensor]]) -> list[list[tuple[int, Tensor]]]:
    """Cut the ordered runs into groups where padding would exceed 25% plus WASTE, in query-key pairs."""
    groups: list[list[tuple[int, Tensor]]] = []
    width = height = needed = 0
    for start, path in runs:
        keys, queries = len(path), len(path) - start
        new_width, new_height = max(width, keys), max(height, queries)
        area = needed + keys * queries
        fits = bool(groups) and (len(groups[-1]) + 1) * new_width * new_height <= 1.25 * area + WASTE
        # Never mix runs that start a sequence with others: one such neighbour would force a mask on all of them.
        if fits and (groups[-1][0][0] > 0) == (start > 0):
            groups[-1].append((start, path))
            width, height, needed = new_width, new_height, area
        else:
            groups.append([(start, path)])
            width, height, needed = keys, queries, keys * queries
    return groups
