"""Admission control: which waiting turns fit beside the running ones into the token limit of the KV cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mgrpo_lightning.policy.sampling.conversation import Request, Tokens
from mgrpo_lightning.policy.sampling.row_cache import padded


def admitted(running: Sequence[Request], waiting: Sequence[Request], budget: int | None) -> list[Request]:
    """The first turns of ``waiting`` that fit beside ``running``. At least one turn if nothing runs.

    Args:
        running: Turns in progress; they keep their rows.
        waiting: Waiting turns, in the order of admission.
        budget: Size of the cache in tokens, rows times capacity; None: all fit.
    """
    if budget is None:
        return list(waiting)
    taken: list[Request] = []
    prefixes: set[Tokens] = set()
    capacity = room(running)
    for request in waiting:
        prefixes.update(ancestors(request.tokens))
        capacity = max(capacity, room([request]))
        rows = len(running) + len(taken) + 1 + len(prefixes)
        # Stop at the first turn that does not fit: to admit later ones before it could make it wait for ever.
        if rows * capacity > budget and (running or taken):
            break
        taken.append(request)
    return taken


def room(requests: Sequence[Request]) -> int:
    """Capacity in tokens that lets each of these turns reach its ``max_new_tokens``."""
    return padded(max((len(request.tokens.ids) + request.params.max_new_tokens for request in requests), default=0))


def ancestors(tokens: Tokens) -> Iterator[Tokens]:
    """The shared prefixes that this sequence must still copy from. Each needs a row until the copy is done."""
    while tokens.parent is not None:
        tokens = tokens.parent
        yield tokens
