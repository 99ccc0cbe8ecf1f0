"""SlotCache: keys and values of many conversations in one tensor a layer, resized as needed, read without copies.

Shapes: S slots (rows), h key/value heads, L capacity, D head size; each layer's store is S x h x L x D. A row's tokens
stand from position 0 on, rows have lengths of their own, and what stands behind a row's length is finite garbage that
the mask hides. One forward pass appends T tokens to each of b rows at each row's own offset: prefill and decoding are
the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from typing_extensions import override


class SlotCache(Cache):
    """The cache that is passed to any transformers decoder with full attention.

    Args:
        dtype: Type of the additive mask, that of the model's activations.
        device: Where the model is.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(layers=[])
        self.num_slots = 0
        self.capacity = 0
        self._dtype = dtype
        self._device = device
        self._stores: list[tuple[Tensor, Tensor]] = []
        self._rows: Tensor = torch.empty(0, dtype=torch.int64)
        self._view: slice | None = None
        self._fresh = False
        self._span = 0
        self._positions: Tensor = torch.empty(0, dtype=torch.int64)
        self._index: dict[int, Tensor] = {}  # by key/value heads: layers may differ in them

    def reserve(self, num_slots: int, capacity: int) -> None:
        """Make room for rows and tokens; what is there stays."""
        if num_slots <= self.num_slots and capacity <= self.capacity:
            return
        self.resize(max(self.num_slots, num_slots), max(self.capacity, capacity))

    def resize(self, num_slots: int, capacity: int) -> None:
        """Have just so many rows and tokens; what is outside of that is lost, the rest stays."""
        self.num_slots, self.capacity = num_slots, padded(capacity)
        for layer, (keys, values) in enumerate(self._stores):  # one after the other: never two caches at a time
            self._stores[layer] = (self._resized(keys), self._resized(values))

    def begin(self, rows: range | list[int], offsets: Tensor, num_tokens: int) -> tuple[Tensor, Tensor | None]:
        """Say where the next forward pass appends.

        Args:
            rows: b row indices; a range is read as a view, a list is gathered.
            offsets: int64, b; how many tokens each row has.
            num_tokens: T; rows that append fewer are padded on the right.

        Returns:
            Position ids, b x T, and the additive mask, b x 1 x T x span, or None where plain causal attention is right.
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
        """Store b x h x T x D new keys and values; return all that the mask spans, b x h x span x D."""
        _, heads, _, size = key_states.shape
        if layer_idx == len(self._stores):
            shape = (self.num_slots, heads, self.capacity, size)
            self._stores.append(
                (key_states.new_zeros(shape), value_states.new_zeros(*shape[:3], value_states.shape[-1]))
            )
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
        """Copy the first ``length`` tokens of rows, target: source; all are read before any is written."""
        if not moves:
            return
        targets = torch.as_tensor(list(moves.keys()), device=self._device)
        sources = torch.as_tensor(list(moves.values()), device=self._device)
        for store in (tensor for pair in self._stores for tensor in pair):
            part = store[:, :, :length]
            part.index_copy_(0, targets, part.index_select(0, sources))

    @override
    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Asked for only where ``begin`` gave no mask: the rows are new and see their own tokens."""
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
        # Zeros, not garbage: a hidden NaN would survive the mask as 0 * NaN.
        resized = store.new_zeros(self.num_slots, store.shape[1], self.capacity, store.shape[3])
        kept = store[: self.num_slots, :, : self.capacity]
        resized[: kept.shape[0], :, : kept.shape[2]] = kept
        return resized


def padded(capacity: int) -> int:
    """Capacities are multiples of 64, so that a cache seldom grows."""
    return -(-capacity // 64) * 64
