"""Which waiting turns fit into the cache together: the rest waits until others have ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mgrpo_lightning.policy.sampling.conversation import Request, Tokens
from mgrpo_lightning.policy.sampling.slots import padded


def admitted(running: Sequence[Request], waiting: Sequence[Request], budget: int | None) -> list[Request]:
    """The longest start of ``waiting`` that fits beside ``running``; at least one turn where nothing runs.

    Args:
        running: Turns whose rows stay.
        waiting: In the order in which they are taken.
        budget: Tokens of the cache, rows times capacity; None: all fit.
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
        if rows * capacity > budget and (running or taken):
            break
        taken.append(request)
    return taken


def room(requests: Sequence[Request]) -> int:
    """Capacity of a cache in which all these turns can end."""
    return padded(max((len(request.tokens.ids) + request.params.max_new_tokens for request in requests), default=0))


def ancestors(tokens: Tokens) -> Iterator[Tokens]:
    """The shared prefixes that a sequence still has to be copied from; each needs a row until that is done."""
    while tokens.parent is not None:
        tokens = tokens.parent
        yield tokens
