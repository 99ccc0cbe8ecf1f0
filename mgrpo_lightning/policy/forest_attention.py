"""Attention over a forest: every run of tokens beside the keys of its own sequence, in as few kernel calls as it takes.

Linear layers, norms and rotary embeddings see a forest as one long row. Only attention knows better: it is registered
with transformers under a name of its own, gets the forest through the model's keyword arguments, and without one is
transformers' own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.policy.forest import SHORTEST, Forest, additive
from mgrpo_lightning.policy.head import hidden_states
from mgrpo_lightning.policy.shared_prefix import SharedPrefix, attend_shared

NAME = "mgrpo_forest"


def forest_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    forest: Forest | None = None,
    shared_prefix: SharedPrefix | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in each layer.

    Args:
        module: The attention layer.
        query: 1 x heads x T x head size if there is a forest.
        key: 1 x key/value heads x T x head size.
        value: Like ``key``.
        attention_mask: Not read if there is a forest.
        forest: The layout of the T tokens.
        shared_prefix: Of the rows, if each has one token, on a CPU and without gradients.
        options: Of the layer, for the kernel.

    Returns:
        1 x T x heads x head size, and no attention weights.
    """
    if forest is None:
        return _attend(module, query, key, value, attention_mask, options, shared_prefix), None
    results = []
    for rectangle in forest.rectangles:
        inputs = (_take(query, rectangle.queries), _take(key, rectangle.keys), _take(value, rectangle.keys))
        result = _attend(module, *inputs, rectangle.mask, options | {"is_causal": rectangle.mask is None})
        results.append(result.flatten(0, 1))
    return torch.cat(results).index_select(0, forest.order)[None], None


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    options: dict[str, Any],
    shared_prefix: SharedPrefix | None = None,
) -> Tensor:
    """B x heads x R x D over the keys of B x key/value heads x S x D, as B x R x heads x D."""
    if mask is None or not query.is_cpu:
        result, _ = sdpa_attention_forward(module, query, key, value, mask, **options)
        return result
    # With a mask, transformers copies the keys for each head that shares them; the kernel of CPUs need not.
    heads, num_queries = query.shape[1:3]
    scale = options.get("scaling")
    if num_queries == 1 and mask.shape[1] == 1:
        # heads that share keys are as many queries of one head: the kernel then reads the keys once, not for each
        grouped = query.unflatten(1, (key.shape[1], -1)).squeeze(3)
        if shared_prefix is not None and key.shape[-1] == value.shape[-1]:  # the kernel takes no others
            result = attend_shared(grouped, key, value, mask, shared_prefix, scale)
        else:
            result = scaled_dot_product_attention(grouped, key, value, attn_mask=mask, scale=scale)
    else:
        shared = heads > key.shape[1]
        result = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=shared)
    return result.reshape(len(result), heads, num_queries, -1).transpose(1, 2).contiguous()


def _take(states: Tensor, places: Tensor) -> Tensor:
    """Tokens of 1 x h x T x D states by place (n x R), as n x h x R x D."""
    taken = states[0].index_select(1, places.flatten())
    return taken.view(len(taken), *places.shape, -1).transpose(0, 1)


AttentionInterface.register(NAME, forest_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def forest_states(model: PreTrainedModel, forest: Forest) -> Tensor:
    """Last hidden states of all tokens of a forest, T x H.

    A model whose attention is not ours gets a mask over all pairs of tokens instead: right too, but slower.

    Args:
        model: With whatever adapter is selected.
        forest: As built.
    """
    forest = forest.to(model.device, model.dtype)
    if model.config._attn_implementation == NAME:
        # any 4-D mask keeps transformers from making one; nobody reads it
        inputs = {"attention_mask": torch.empty(1, 1, 1, 1, device=model.device), "forest": forest}
    else:
        inputs = {"attention_mask": additive(forest.dense_mask(), model.dtype, model.device)}
    return hidden_states(model, forest.ids[None], position_ids=forest.positions[None], **inputs)[0]


@torch.no_grad()
def attend_by_forest(model: PreTrainedModel, name: str) -> None:
    """Switch a base to our attention if its layers take it, and require that forests are computed like plain rows.

    Args:
        model: A base as loaded.
        name: As the team file says it.

    Raises:
        ConfigurationError: Neither our attention nor a mask over all pairs gives what a row alone gives.
    """
    vocabulary = int(model.config.get_text_config().vocab_size)
    rows = (
        torch.arange(1, 2 * (SHORTEST + 4) + 1).view(2, -1) * 7919 % vocabulary
    )  # spread: rare ids are ill-conditioned
    rows[1, :SHORTEST] = rows[0, :SHORTEST]
    forest = Forest.of(rows)
    plain = hidden_states(model, rows.to(model.device))
    noise = max(
        _distance(hidden_states(model, row[None].to(model.device))[0], of) for row, of in zip(rows, plain, strict=True)
    )
    bound = max(5e-2 if model.dtype == torch.bfloat16 else 1e-2, 2 * noise)
    own = model.config._attn_implementation
    for implementation in (NAME, own) if own == "sdpa" else (own,):
        model.set_attn_implementation(implementation)
        found = forest_states(model, forest)
        if all(_distance(found[path], row) <= bound for path, row in zip(forest.paths, plain, strict=True)):
            return
    raise ConfigurationError(
        f"base_model {name!r} ({type(model).__name__}, attention {own!r}) does not take a mask of its own and "
        "positions, which training needs.",
        hint="take a decoder with full attention, such as a Llama, Qwen or Mistral model.",
    )


def _distance(states: Tensor, true: Tensor) -> float:
    return float((states.float() - true.float()).norm() / true.float().norm())
