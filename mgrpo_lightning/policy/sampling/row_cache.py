"""RowCache: the KV cache tensors of many conversations, a row each: append, read, copy, grow, shrink; attention masks.

Each layer stores S x h x L x D numbers: S rows, h key/value heads, capacity of L tokens, head size D. A row's tokens
start at position 0, and each row has its own length. The numbers after a row's length are finite garbage, and the
attention mask hides them. One forward pass appends T tokens to each of b rows, at each row's own offset. Prefill and
decoding use the same code. Adjacent rows are read as a view, without a copy.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from typing_extensions import override


class RowCache(Cache):
    """A KV cache for any transformers decoder with full attention.

    Args:
        dtype: Type of the additive attention mask; must be the type of the model's activations.
        device: Device of the model.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(layers=[])
        self.num_rows = 0
        self.capacity = 0
        self._dtype = dtype
        self._device = device
        self._stores: list[tuple[Tensor, Tensor]] = []
        self._rows: Tensor = torch.empty(0, dtype=torch.int64)
        self._view: slice | None = None
        self._fresh = False
        self._span = 0
        self._positions: Tensor = torch.empty(0, dtype=torch.int64)
        # Keyed by the number of key/value heads, because layers may differ in it.
        self._index: dict[int, Tensor] = {}

    def reserve(self, num_rows: int, capacity: int) -> None:
        """Grow to at least so many rows and tokens per row. All content is kept."""
        if num_rows <= self.num_rows and capacity <= self.capacity:
            return
        self.resize(max(self.num_rows, num_rows), max(self.capacity, capacity))

    def resize(self, num_rows: int, capacity: int) -> None:
        """Grow or shrink to this many rows and tokens per row. Content outside the new size is lost."""
        self.num_rows, self.capacity = num_rows, padded(capacity)
        # One layer at a time, so that the memory never holds two whole caches.
        for layer, (keys, values) in enumerate(self._stores):
            self._stores[layer] = (self._resized(keys), self._resized(values))

    def begin(self, rows: range | list[int], offsets: Tensor, num_tokens: int) -> tuple[Tensor, Tensor | None]:
        """Set the place where the next forward pass appends. Call this before each pass.

        Args:
            rows: b row indices. A range is read as a view; a list is gathered into a copy.
            offsets: Number of cached tokens of each row, int64, b.
            num_tokens: T, the tokens to append. Rows with fewer new tokens are padded on the right.

        Returns:
            Position ids, b x T, and the additive attention mask, b x 1 x T x span. The mask is None if all rows are
            new, because plain causal attention is right then.
        """
        self._view = slice(rows.start, rows.stop) if isinstance(rows, range) else None
        self._rows = torch.as_tensor(list(rows), device=self._device)
        self._positions = offsets[:, None] + torch.arange(num_tokens, device=self._device)
        self._index = {}
        self._fresh = not bool(offsets.any())
        self._span = int(offsets.max()) + num_tokens
        assert self._span <= self.capacity, "reserve() comes first"
        if self._fresh:
            return self._positions, None
        visible = torch.arange(self._span, device=self._device) <= self._positions[:, :, None]
        mask = torch.zeros(visible.shape, dtype=self._dtype, device=self._device).masked_fill_(~visible, -torch.inf)
        return self._positions, mask[:, None]

    @override
    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Store new keys and values, b x h x T x D. Return all that the mask spans, b x h x span x D."""
        _, heads, _, size = key_states.shape
        # A layer's store is made in its first pass, because only then its head count and sizes are known.
        if layer_idx == len(self._stores):
            shape = (self.num_rows, heads, self.capacity, size)
            self._stores.append(
                (key_states.new_zeros(shape), value_states.new_zeros(*shape[:3], value_states.shape[-1]))
            )
        # The index is the same in every layer with this number of heads, so one pass computes it once.
        index = self._index.get(heads)
        if index is None:
            row_heads = self._rows[:, None] * heads + torch.arange(heads, device=self._device)
            index = (row_heads[:, :, None] * self.capacity + self._positions[:, None]).reshape(-1)
            self._index[heads] = index
        keys, values = self._stores[layer_idx]
        keys.view(-1, size).index_copy_(0, index, key_states.reshape(-1, size))
        values.view(-1, values.shape[-1]).index_copy_(0, index, value_states.reshape(-1, values.shape[-1]))
        if self._fresh:
            return key_states, value_states
        return self._read(keys), self._read(values)

    def move(self, moves: dict[int, int], length: int) -> None:
        """Copy the first ``length`` tokens between rows.

        Args:
            moves: Target row to source row. All sources are read before any target is written, so rows may swap.
            length: Number of tokens to copy.
        """
        if not moves:
            return
        targets = torch.as_tensor(list(moves.keys()), device=self._device)
        sources = torch.as_tensor(list(moves.values()), device=self._device)
        for store in (tensor for pair in self._stores for tensor in pair):
            part = store[:, :, :length]
            part.index_copy_(0, targets, part.index_select(0, sources))

    @override
    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Called by transformers only if ``begin`` gave no mask: the rows are new and see only their own tokens."""
        return query_length, 0

    @override
    def get_query_offset(self, layer_idx: int = 0) -> int:
        """See ``get_mask_sizes``."""
        return 0

    def _read(self, store: Tensor) -> Tensor:
        if self._view is not None:
            return store[self._view, :, : self._span]
        return store[:, :, : self._span].index_select(0, self._rows)

    def _resized(self, store: Tensor) -> Tensor:
        # Fill with zeros: uninitialised memory may hold NaN, and a masked NaN still gives 0 * NaN = NaN.
        resized = store.new_zeros(self.num_rows, store.shape[1], self.capacity, store.shape[3])
        kept = store[: self.num_rows, :, : self.capacity]
        resized[: kept.shape[0], :, : kept.shape[2]] = kept
        return resized


def padded(capacity: int) -> int:
    """Round a capacity up to a multiple of 64 tokens, so that a cache seldom grows."""
    return -(-capacity // 64) * 64
