"""How many numbers a base makes of one token, layer by layer, seen in a pass without weights.

Configs call the same size by a dozen names, and some say nothing of what a layer caches. A pass on the meta device
costs nothing, shows the keys and values that really reach the cache, and which layers a token goes through.
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
"""What configs call the experts that a token goes to."""
_LAYER = re.compile(r"(?:.*?\.)?\d+(?=\.)")
"""The part of a module's path that names its decoder layer."""


@dataclass(frozen=True)
class Widths:
    """Numbers of one token, in the type of the activations."""

    layers: tuple[int, ...]
    """What each decoder layer keeps for a backward pass."""
    hidden: int
    """What goes from layer to layer."""
    queries: int
    """Of all heads of one layer."""
    keys: int
    """As cached in one layer, on average."""
    cached: int
    """Keys and values of all layers."""


class _Recorder(Cache):
    """Keeps nothing but how much each layer would put into a cache."""

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
    """The widths of a base.

    For each token a decoder layer keeps the residual stream before both norms and what they make of it (4 H), what the
    linear layers make, and twice what enters the last linear layer of the attention and of the MLP: in a copy that is
    laid out for it, and in the activation that a gate is multiplied with. Experts keep as much, as many of them as a
    token goes to.

    Args:
        model: On the meta device; see ``empty_model``.
    """
    config = model.config.get_text_config()
    hidden = int(config.hidden_size)
    experts = next((int(count) for name in _EXPERTS if (count := getattr(config, name, None))), 1)
    decoder = model.get_decoder()
    cache = _Recorder()
    calls = _calls(model, cache)
    kept: dict[str, int] = defaultdict(lambda: 2 * hidden)  # the other two are made by the last linear layers
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
        if layer and calls[block] and (stacked := _stacked(block)):  # a gate, its product and one back: 3 I H
            kept[layer[0]] += calls[block] * (hidden + experts * 4 * stacked // (3 * hidden))
    if not cache.keys:
        size = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        cache.keys = cache.values = dict.fromkeys(range(config.num_hidden_layers), int(heads * size))
    keys, values = sum(cache.keys.values()), sum(cache.values.values())
    return Widths(tuple(kept.values()), hidden, queries or hidden, keys // len(cache.keys), keys + values)


def bytes_per_token(config: PreTrainedConfig, dtype: torch.dtype) -> int:
    """Keys and values of one token in all layers, in bytes.

    Args:
        config: Of a base.
        dtype: Of its activations.
    """
    return widths(empty_model(config)).cached * dtype.itemsize


def _stacked(module: nn.Module) -> int:
    """Weights of one of the experts that a module holds as one tensor."""
    weights = module.parameters(recurse=False)
    return sum(weight.numel() // len(weight) for weight in weights if weight.ndim == 3)


def _calls(model: PreTrainedModel, cache: _Recorder) -> Counter[nn.Module]:
    """How often a token goes through each linear layer and each stack of experts; fills the cache.

    Some experts look at the numbers of their router, which there are none of; then each is taken to be called once, and
    the cache stays empty.
    """
    counted = [module for module in model.modules() if isinstance(module, nn.Linear) or _stacked(module)]
    calls: Counter[nn.Module] = Counter()
    handles = [module.register_forward_hook(lambda module, *_: calls.update([module])) for module in counted]
    one = torch.zeros(1, 1, dtype=torch.int64, device=model.device)
    model.set_experts_implementation("batched_mm")  # the one whose shapes do not depend on the router's numbers
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
