"""Turns: the batch being decoded, a row for each turn: sample next ids, end turns at stop ids or limits, drop rows.

A decoding step has no Python loop over rows. Row i of these tensors is row i of the cache. A finished turn keeps its
row, and its results are ignored, until a quarter of the rows have finished. Then the active rows close up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mgrpo_lightning.policy.sampling.base import SampledTurn, SamplingParams
from mgrpo_lightning.policy.sampling.choice import choose
from mgrpo_lightning.policy.sampling.conversation import Request


class Turns:
    """A batch of turns. All have the same sampling settings, except ``max_new_tokens``.

    Args:
        params: The common temperature, top_p, top_k and stop ids.
        device: Device of the model.
        dtype: Type of the log-probabilities, float32 or float64.
        finish: Converts raw logits of the LM head to final logits of this type.
    """

    def __init__(
        self, params: SamplingParams, device: torch.device, dtype: torch.dtype, finish: Callable[[Tensor], Tensor]
    ) -> None:
        self.params = params
        self._finish = finish
        self.requests: list[Request | None] = []
        """The request of each row; None if its turn has finished."""
        self._stop = torch.tensor(params.stop_ids, device=device)
        empty = torch.empty(0, dtype=torch.int64, device=device)
        self.last, self.positions, self._counts, self._limits, self._streams = (empty.clone() for _ in range(5))
        self._done = torch.empty(0, dtype=torch.bool, device=device)
        self._ids = torch.empty(0, 0, dtype=torch.int64, device=device)
        self._logprobs = torch.empty(0, 0, dtype=dtype, device=device)

    @property
    def num_active(self) -> int:
        """Number of turns that have not finished."""
        return sum(request is not None for request in self.requests)

    def join(self, requests: Sequence[Request], logits: Tensor, version: int) -> list[tuple[Request, SampledTurn]]:
        """Append prefilled rows and sample the first id of each.

        Args:
            requests: The n requests, in the order of their rows.
            logits: Raw logits at the last token of each row, n x V.
            version: Policy version, recorded in the turns that end.

        Returns:
            The turns that ended with their first id.
        """
        self.requests += requests
        first = len(self.last)

        def column(values: list[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.int64, device=self.last.device)

        zeros = [0] * len(requests)
        # `positions` is the position of the last computed token. The first sample moves it on to the sampled token.
        self.last = torch.cat([self.last, column(zeros)])
        self.positions = torch.cat([self.positions, column([request.tokens.cached - 1 for request in requests])])
        self._counts = torch.cat([self._counts, column(zeros)])
        self._limits = torch.cat([self._limits, column([request.params.max_new_tokens for request in requests])])
        self._streams = torch.cat([self._streams, column([request.stream for request in requests])])
        self._done = torch.cat([self._done, column(zeros).bool()])
        width = max(self._ids.shape[1], int(self._limits.max()))
        self._ids = _padded(self._ids, len(self.last), width)
        self._logprobs = _padded(self._logprobs, len(self.last), width)
        return self._sample(slice(first, None), logits, version)

    def drop_cancelled(self) -> None:
        """End the rows whose agents were cancelled. Nobody waits for their turns."""
        for row, request in enumerate(self.requests):
            if request is not None and request.future.cancelled():
                self.requests[row] = None
                self._done[row] = True

    def step(self, logits: Tensor, version: int) -> list[tuple[Request, SampledTurn]]:
        """Sample the next id of every row from raw logits, B x V; return the turns that ended with it."""
        return self._sample(slice(0, None), logits, version)

    def _sample(self, rows: slice, logits: Tensor, version: int) -> list[tuple[Request, SampledTurn]]:
        counts, done = self._counts[rows], self._done[rows]
        ids, logprobs = choose(logits, self.params, self._streams[rows], counts, self._finish)
        ids = torch.where(done, self.last[rows], ids)
        at = counts.clamp(max=self._ids.shape[1] - 1)[:, None]
        # A finished row must not change: it writes back the value that is already there. The clamp above keeps the
        # index of a row at full width in range.
        logprobs = torch.where(done, self._logprobs[rows].gather(1, at).squeeze(1), logprobs)
        self._ids[rows].scatter_(1, at, torch.where(done[:, None], self._ids[rows].gather(1, at), ids[:, None]))
        self._logprobs[rows].scatter_(1, at, logprobs[:, None])
        self.last[rows] = ids
        # `counts` and `done` are views of the fields, so the in-place updates below change the fields.
        alive = (~done).long()
        counts += alive
        self.positions[rows] += alive
        stopped = torch.isin(ids, self._stop)
        ended = ~done & (stopped | (counts >= self._limits[rows]))
        done |= ended
        if not bool(ended.any()):
            return []
        return [
            self._end(row + (rows.start or 0), bool(stopped[row]), version) for row in ended.nonzero()[:, 0].tolist()
        ]

    def _end(self, row: int, stopped: bool, version: int) -> tuple[Request, SampledTurn]:
        request = self.requests[row]
        assert request is not None, "a turn ends once"
        self.requests[row] = None
        count = int(self._counts[row])
        turn = SampledTurn(
            ids=tuple(self._ids[row, :count].tolist()),
            logprobs=tuple(self._logprobs[row, :count].tolist()),
            stopped=stopped,
            version=version,
        )
        request.tokens.ids += turn.ids
        # The last sampled id was never fed to the model, so it is not in the cache.
        request.tokens.cached = len(request.tokens.ids) - 1
        return request, turn

    def close_up(self) -> list[Request]:
        """Drop the finished rows; return the requests in their new order. The caller must move the cache rows alike."""
        for request, position in zip(self.requests, self.positions.tolist(), strict=True):
            # A move copies `cached` tokens, so the count must include the tokens decoded so far.
            if request is not None:
                request.tokens.cached = position
        size = self.num_active
        # Active rows inside the first `size` rows stay. Only the later ones move, into the gaps.
        kept = [row for row in range(size) if self.requests[row] is not None]
        movers = iter([row for row in range(size, len(self.requests)) if self.requests[row] is not None])
        order = [row if row in set(kept) else next(movers) for row in range(size)]
        index = torch.tensor(order, dtype=torch.int64, device=self.last.device)
        self.last, self.positions, self._counts = self.last[index], self.positions[index], self._counts[index]
        self._limits, self._streams, self._done = self._limits[index], self._streams[index], self._done[index]
        self._ids, self._logprobs = self._ids[index], self._logprobs[index]
        requests = [request for row in order if (request := self.requests[row]) is not None]
        self.requests = list(requests)
        return requests


def _padded(tensor: Tensor, rows: int, width: int) -> Tensor:
    padded = tensor.new_zeros(rows, width)
    padded[: tensor.shape[0], : tensor.shape[1]] = tensor
    return padded
