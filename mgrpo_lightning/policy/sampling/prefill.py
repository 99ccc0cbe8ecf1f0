"""Plan a prefill: passes within a token limit, equal sequences computed once, shared prefixes to copy from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mgrpo_lightning.policy.sampling.conversation import Tokens

PREFILL_TOKENS = 4096
"""Largest number of tokens in one prefill pass, padding included. It bounds the memory of the activations."""


def prefixes(sequences: Sequence[Tokens]) -> list[list[Tokens]]:
    """The shared prefixes that the sequences must still copy from, outermost generation first."""
    generations: list[list[Tokens]] = []
    level = list(sequences)
    while level := list(dict.fromkeys(tokens.parent for tokens in level if tokens.parent is not None)):
        generations.insert(0, level)
    return generations


def leaders(todo: Sequence[int], sequences: Sequence[Tokens], ends: Sequence[int]) -> tuple[list[int], dict[int, int]]:
    """For sequences with the same ids choose a leader to compute, the one with the most cached tokens.

    Returns the indices to compute, and for each other index its leader, to copy from.
    """
    computed: dict[tuple[int, ...], int] = {}
    followers: dict[int, int] = {}
    for i in sorted(todo, key=lambda i: -sequences[i].cached):
        leader = computed.setdefault(tuple(sequences[i].ids[: ends[i]]), i)
        if leader != i:
            followers[i] = leader
    return [i for i in todo if i not in followers], followers


def chunks(todo: Sequence[int], counts: Sequence[int], cached: Sequence[int], capacity: int) -> Iterator[list[int]]:
    """Split into passes of at most PREFILL_TOKENS tokens, padding included. New rows and cached rows are never mixed.

    Padding must stay inside the capacity too: an almost full row must not share a pass with a row of more new ids.
    """
    chunk: list[int] = []
    for i in todo:
        widest = counts[chunk[0]] if chunk else 0
        mixed = chunk and (cached[chunk[0]] > 0) != (cached[i] > 0)
        if chunk and (mixed or cached[i] + widest > capacity or widest * (len(chunk) + 1) > PREFILL_TOKENS):
            yield chunk
            chunk = []
        chunk.append(i)
    if chunk:
        yield chunk
