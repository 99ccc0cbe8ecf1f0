"""Count the activations and cached keys and values of one token in each layer of a base, by a pass without weights.

Configs name the same size in a dozen ways, and some do not say what a layer caches. A pass on the meta device costs
nothing. It shows which keys and values reach the KV cache and which layers a token passes through.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedConfig, PreTrainedModel
from typing_extensions import override

from mgrpo_lightning.policy.supported import empty_model

_EXPERTS = ("num_experts_per_tok", "moe_topk", "moe_k")
"""Names that configs use for the number of experts per token."""
_LAYER = re.compile(r"(?:.*?\.)?\d+(?=\.)")
"""The part of a module's path that names its decoder layer."""


@dataclass(frozen=True)
class Widths:
    """How many numbers one token needs, in the type of the activations."""

    layers: tuple[int, ...]
    """Numbers that each decoder layer keeps for the backward pass."""
    hidden: int
    """Hidden size H."""
    queries: int
    """Query size of one layer, all heads together."""
    keys: int
    """Cached key size of one layer, averaged over the layers."""
    cached: int
    """Cached keys and values of all layers together."""


class _Recorder(Cache):
    """A KV cache that stores only the sizes of each layer's keys and values."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.keys: dict[int, int] = {}
        self.values: dict[int, int] = {}

    @override
    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        for states, sizes in ((key_states, self.keys), (value_states, self.values)):
            sizes[layer_idx] = states.shape[1] * states.shape[3]
        return key_states, value_states

    @override
    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return query_length, 0

    @override
    def get_query_offset(self, layer_idx: int = 0) -> int:
        return 0


def widths(model: PreTrainedModel) -> Widths:
    """Measure the widths of a base.

    For each token a decoder layer keeps: the inputs and outputs of both norms (4 H); the outputs of the linear layers;
    and twice the input of the last linear layer in attention and in the MLP. The latter is kept once as a contiguous
    copy, and once as the activation that the gate multiplies. Each expert that the token uses keeps as much as an MLP.

    Args:
        model: A model on the meta device; see ``empty_model``.
    """
    config = model.config.get_text_config()
    hidden = int(config.hidden_size)
    experts = next((int(count) for name in _EXPERTS if (count := getattr(config, name, None))), 1)
    decoder = model.get_decoder()
    cache = _Recorder()
    calls = _calls(model, cache)
    # 2 H of the 4 H: the other 2 H are outputs of the last linear layers, which the loop counts.
    kept: dict[str, int] = defaultdict(lambda: 2 * hidden)
    queries = 0
    for path, block in decoder.named_modules():
        layer = _LAYER.match(f"{path}.")
        linear = [child for child in block.children() if isinstance(child, nn.Linear) and calls[child]]
        if layer and linear:
            own = sum(calls[child] * child.out_features for child in linear)
            if (last := linear[-1]).out_features == hidden:
                own += 2 * calls[last] * last.in_features
                queries = max(queries, last.in_features if hasattr(block, "is_causal") else 0)
            kept[layer[0]] += own
        # An expert has three I x H matrices (gate, up, down), so `stacked` is 3 I H, and it keeps 4 I numbers.
        if layer and calls[block] and (stacked := _stacked(block)):
            kept[layer[0]] += calls[block] * (hidden + experts * 4 * stacked // (3 * hidden))
    # The pass failed (see _calls), so take the key and value sizes from the config.
    if not cache.keys:
        size = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        cache.keys = cache.values = dict.fromkeys(range(config.num_hidden_layers), int(heads * size))
    keys, values = sum(cache.keys.values()), sum(cache.values.values())
    return Widths(tuple(kept.values()), hidden, queries or hidden, keys // len(cache.keys), keys + values)


def bytes_per_token(config: PreTrainedConfig, dtype: torch.dtype) -> int:
    """Size of one token in the KV cache, all layers together, in bytes, for activations of type ``dtype``."""
    return widths(empty_model(config)).cached * dtype.itemsize


def _stacked(module: nn.Module) -> int:
    """Number of weights of one expert, for a module that stacks its experts in 3-D tensors; else 0."""
    weights = module.parameters(recurse=False)
    return sum(weight.numel() // len(weight) for weight in weights if weight.ndim == 3)


def _calls(model: PreTrainedModel, cache: _Recorder) -> Counter[nn.Module]:
    """Count how often a token passes through each linear layer and each stack of experts. Also fills ``cache``.

    Some experts read the router's numbers, which do not exist on the meta device, and the pass fails. Then each layer
    counts once and the cache stays empty.
    """
    counted = [module for module in model.modules() if isinstance(module, nn.Linear) or _stacked(module)]
    calls: Counter[nn.Module] = Counter()
    handles = [module.register_forward_hook(lambda module, *_: calls.update([module])) for module in counted]
    one = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
    model.set_experts_implementation("batched_mm")  # its shapes do not depend on the router's numbers
    try:
        with torch.no_grad():
            model.get_decoder().eval()(
                input_ids=one,
                position_ids=one,
                attention_mask=torch.zeros(1, 1, 1, 1, dtype=model.dtype, device=model.device),
                past_key_values=cache,
                use_cache=True,
            )
    except RuntimeError:
        cache.keys, cache.values = {}, {}
        return Counter(counted)
    finally:
        for handle in handles:
            handle.remove()
    return calls
