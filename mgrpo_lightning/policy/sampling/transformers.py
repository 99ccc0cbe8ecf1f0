"""TransformersSampler: continuous batching on a transformers model: admit turns, prefill, decode in slices, abort.

The KV cache of a conversation is kept until the conversation is closed. The scheduler admits requests and advances the
batch in slices, from one thread at a time. Agents may extend, fork and close conversations at any time, because that
changes only lists of ids and reference counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from mgrpo_lightning.errors import ConfigurationError, MgrpoError
from mgrpo_lightning.policy.cpu.decode_attention import SharedPrefix
from mgrpo_lightning.policy.lm_head import finished_logits, hidden_states, raw_logits
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.policy.sampling.admission import admitted, ancestors, room
from mgrpo_lightning.policy.sampling.base import Conversation, SampledTurn, SamplingParams
from mgrpo_lightning.policy.sampling.conversation import CachedConversation, Request, Tokens
from mgrpo_lightning.policy.sampling.engine import Finished
from mgrpo_lightning.policy.sampling.prefill import chunks, leaders, prefixes
from mgrpo_lightning.policy.sampling.row_assignment import RowAssignment
from mgrpo_lightning.policy.sampling.row_cache import RowCache, padded
from mgrpo_lightning.policy.sampling.scheduler import Scheduler
from mgrpo_lightning.policy.sampling.turns import Turns
from mgrpo_lightning.policy.tree_attention import NAME
from mgrpo_lightning.policy.widths import bytes_per_token


class TransformersSampler:
    """The engine behind one role's policy.

    Args:
        policy: The policy to sample from. Its adapter is selected for every pass.
        scheduler: Decides when waiting turns are computed.
        cache_bytes: Limit for the KV cache in bytes; None: no limit. If the limit is short, turns wait for each other,
            and conversations that wait for a tool are prefilled again later.

    Raises:
        ConfigurationError: The limit is smaller than the cache of two full conversations.
    """

    def __init__(self, policy: Policy, scheduler: Scheduler, *, cache_bytes: int | None = None) -> None:
        self.policy = policy
        self.name = policy.role
        self._scheduler = scheduler
        self._model = policy.base.model
        self._cache = RowCache(self._model.dtype, policy.device)
        self._rows = RowAssignment(self._cache)
        self._budget = self._tokens_of(cache_bytes)
        self._batches = 0
        self._waiting: list[Request] = []
        self._turns: Turns | None = None
        # attend_shared works on CPUs only, and only tree_attention calls it.
        self._shares = policy.device.type == "cpu" and self._model.config._attn_implementation == NAME
        self._shared: SharedPrefix | None = None
        """Shared prefix of the current rows of the batch, in their current order."""

    def open(self, ids: Sequence[int], order: tuple[int, ...]) -> Conversation:
        """Open a conversation with prompt ids. Nothing is computed before its first turn."""
        assert ids, "a prompt has at least one token"
        return CachedConversation(Tokens(ids=list(ids), order=order), self._submit)

    async def _submit(self, tokens: Tokens, params: SamplingParams, stream: int) -> SampledTurn:
        assert params.max_new_tokens > 0, "a turn has room for its stop token"
        return await self._scheduler.submit(self, tokens, params, stream)

    # The scheduler calls the following methods, from the thread that computes.

    @property
    def busy(self) -> bool:
        """Whether any admitted turn is not finished."""
        return bool(self._waiting) or self._turns is not None

    def admit(self, requests: Sequence[Request]) -> None:
        """Queue requests. They join the batch at the next ``advance``."""
        self._waiting += requests

    def abort(self) -> None:
        """Drop every turn in progress and every cached row."""
        self._waiting.clear()
        self._turns = None
        self._rows.forget()

    @torch.no_grad()
    def advance(self, steps: int) -> Finished:
        """Prefill the new turns, then do up to ``steps`` decoding steps; return the turns that ended.

        Raises:
            MgrpoError: The logits of a turn were not finite.
        """
        finished: Finished = []
        self._drop_cancelled()
        with self.policy.sampling(), self._eval_mode():
            finished += self._join()
            for _ in range(steps):
                if self._turns is None:
                    break
                finished += self._step(self._turns)
                self._close_up()
        self._refuse_nonfinite(finished)
        return finished

    def _refuse_nonfinite(self, finished: Finished) -> None:
        """Check turns when they end: their log-probabilities are on the host by then, so this costs no device sync."""
        if not all(math.isfinite(value) for _, turn in finished for value in turn.logprobs):
            raise MgrpoError(
                f"role {self.name!r} computes logits that are not finite, after {self.policy.version} updates.",
                hint="resume from an earlier checkpoint with a lower optimizer.lr; after 0 updates, check its "
                "base, adapter.path and compute_dtype with `mgrpo doctor`.",
            )

    def _join(self) -> Finished:
        settings = _settings(self._turns.params if self._turns else self._waiting[0].params) if self.busy else None
        # One batch has one set of sampling settings. Requests with other settings wait until the batch is empty.
        joining = [request for request in self._waiting if _settings(request.params) == settings]
        if not joining:
            return []
        joining.sort(key=lambda request: request.tokens.order)
        if self._turns is None:
            dtype, finish = torch.promote_types(self._model.dtype, torch.float32), partial(finished_logits, self._model)
            self._turns = Turns(joining[0].params, self.policy.device, dtype, finish)
        # Close up completely: the rows of a batch are adjacent, and the new rows follow the active ones.
        self._close_up(force=True)
        self._rows.free_unused()
        running = [request for request in self._turns.requests if request is not None]
        joining = admitted(running, joining, self._budget)
        if not joining:
            return []
        taken = set(joining)
        self._waiting = [request for request in self._waiting if request not in taken]
        self._make_room([*running, *joining])
        self._forget_old_versions(joining)
        # Prefixes first and outermost first: a sequence copies the cache of its parent when it gets its row.
        for generation in prefixes([request.tokens for request in joining]):
            self._prefill([tokens for tokens in generation if len(tokens.ids) > 1], keep_last=False)
        sequences = [request.tokens for request in joining]
        hidden = self._prefill(sequences, keep_last=True)
        start = len(self._turns.requests)
        self._rows.arrange(sequences, start)
        # arrange() may permute the new rows, and logits must come in the order of the rows.
        order = sorted(range(len(joining)), key=lambda i: sequences[i].row or 0)
        logits = raw_logits(self._model, hidden[order])
        finished = self._turns.join([joining[i] for i in order], logits, self.policy.version)
        self._share(self._turns.requests)
        self._close_up()
        return finished

    def _drop_cancelled(self) -> None:
        self._waiting = [request for request in self._waiting if not request.future.cancelled()]
        if self._turns is not None:
            self._turns.drop_cancelled()
            self._close_up()

    def _make_room(self, requests: Sequence[Request]) -> None:
        self._batches += 1
        needed: dict[Tokens, None] = {}
        for request in requests:
            needed |= dict.fromkeys([request.tokens, *ancestors(request.tokens)])
        for tokens in needed:
            tokens.used = self._batches
        self._rows.make_room(list(needed), room(requests), self._budget)

    def _step(self, turns: Turns) -> Finished:
        rows = range(len(turns.requests))
        hidden = self._forward(rows, turns.last[:, None], turns.positions, self._shared)
        return turns.step(raw_logits(self._model, hidden[:, 0]), self.policy.version)

    def _close_up(self, *, force: bool = False) -> None:
        turns = self._turns
        if turns is None:
            return
        active, size = turns.num_active, len(turns.requests)
        if active == 0 and not force:
            self._turns = None
        elif active < size and (force or active <= 0.75 * size):
            self._rows.arrange([request.tokens for request in turns.close_up()], 0)
            self._share(turns.requests)

    def _share(self, requests: Sequence[Request | None]) -> None:
        """Find the shared prefix of the batch; None while it has finished rows, whose requests are gone."""
        rows = [request.tokens.ids for request in requests if request is not None]
        self._shared = SharedPrefix.of(rows) if self._shares and len(rows) == len(requests) else None

    def _prefill(self, sequences: Sequence[Tokens], *, keep_last: bool) -> Tensor:
        """Compute the ids that are not cached; return the last hidden state of each sequence, n x H.

        Sequences with the same ids are computed once and copied. Without ``keep_last`` the last id stays uncached (and
        nothing is returned): a fork must process it itself to get the logits of its first sampled id.
        """
        self._rows.give(sequences)
        ends = [len(tokens.ids) - (0 if keep_last else 1) for tokens in sequences]
        todo = [i for i, tokens in enumerate(sequences) if tokens.cached < ends[i]]
        todo, followers = leaders(todo, sequences, ends)
        # Similar lengths together keep padding small. New rows get their own passes: they need no mask and no gather.
        todo.sort(key=lambda i: (sequences[i].cached > 0, ends[i] - sequences[i].cached), reverse=True)
        hidden: list[Tensor] = [torch.empty(0)] * len(sequences)
        counts = [end - tokens.cached for end, tokens in zip(ends, sequences, strict=True)]
        for chunk in chunks(todo, counts, [tokens.cached for tokens in sequences], self._cache.capacity):
            parts = [sequences[i].ids[sequences[i].cached : ends[i]] for i in chunk]
            width = max(map(len, parts))
            ids = torch.tensor([part + [0] * (width - len(part)) for part in parts], device=self.policy.device)
            offsets = torch.tensor([sequences[i].cached for i in chunk], device=self.policy.device)
            longest = max(ends[i] for i in chunk)
            states = self._forward([sequences[i].row or 0 for i in chunk], ids, offsets, longest=longest)
            for i, part, state in zip(chunk, parts, states, strict=True):
                hidden[i] = state[len(part) - 1]
                sequences[i].cached, sequences[i].version = ends[i], self.policy.version
        self._cache.move(
            {sequences[i].row or 0: sequences[leader].row or 0 for i, leader in followers.items()}, max(ends, default=0)
        )
        for i, leader in followers.items():
            hidden[i] = hidden[leader]
            sequences[i].cached, sequences[i].version = ends[i], self.policy.version
        return torch.stack(hidden) if keep_last else torch.empty(0)

    def _forward(
        self,
        rows: range | list[int],
        ids: Tensor,
        offsets: Tensor,
        shared: SharedPrefix | None = None,
        *,
        longest: int | None = None,
    ) -> Tensor:
        positions, mask = self._cache.begin(rows, offsets, ids.shape[1])
        if longest is not None:  # padding may reach past the context, where the model may have no position embedding
            positions = positions.clamp(max=longest - 1)
        options = {} if shared is None else {"shared_prefix": shared}
        return hidden_states(
            self._model,
            ids,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=self._cache,
            use_cache=True,
            **options,
        )

    def _tokens_of(self, cache_bytes: int | None) -> int | None:
        """Convert a limit in bytes to a limit in tokens (rows times capacity)."""
        if cache_bytes is None:
            return None
        each = bytes_per_token(self._model.config, self._model.dtype)
        least = 2 * padded(self.policy.config.limits.context) * each
        if cache_bytes < least:
            raise ConfigurationError(
                f"role {self.name!r}: {cache_bytes / 2**30:.3g} GiB of cache hold fewer than two conversations of "
                f"{self.policy.config.limits.context} tokens.",
                hint=f"set cache_gib to {least / 2**30:.3g} or more, or lower limits.context.",
            )
        return cache_bytes // each

    def _forget_old_versions(self, joining: Sequence[Request]) -> None:
        """Drop keys and values of an older adapter: a turn's log-probabilities have one policy (correctness.md 35)."""
        for request in joining:
            tokens: Tokens | None = request.tokens
            while tokens is not None:
                if tokens.version != self.policy.version:
                    tokens.cached = 0
                tokens = tokens.parent

    @contextmanager
    def _eval_mode(self) -> Iterator[None]:
        training = self._model.training
        if training:
            self._model.eval()
        try:
            yield
        finally:
            if training:
                self._model.train()


def _settings(params: SamplingParams) -> SamplingParams:
    """The settings that all turns of one batch must share."""
    return replace(params, max_new_tokens=0)
