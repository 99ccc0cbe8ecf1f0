"""The attention function registered with transformers, over prefix trees and shared prefixes: one kernel call a block.

Linear layers, norms and rotary embeddings process the prefix tree as one long row of tokens. Only attention uses the
tree. This module registers its attention function with transformers under the name NAME. The function gets the tree
through the model's keyword arguments; without one it calls transformers' own attention.
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
from mgrpo_lightning.policy.cpu.decode_attention import SharedPrefix, attend_shared
from mgrpo_lightning.policy.lm_head import hidden_states
from mgrpo_lightning.policy.prefix_tree import SHORTEST, PrefixTree, additive

NAME = "mgrpo_prefix_tree"


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    prefix_tree: PrefixTree | None = None,
    shared_prefix: SharedPrefix | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls in each layer.

    Args:
        query: 1 x heads x T x head size if there is a prefix tree, else B x heads x R x head size.
        key: 1 x key/value heads x T x head size, or B rows of them.
        value: Like ``key``.
        attention_mask: Additive attention mask; not read if there is a prefix tree.
        prefix_tree: The prefix tree of the T tokens; None for plain rows.
        shared_prefix: The shared prefix of the rows in a decoding step. Only for one token a row, on a CPU, without
            gradients.
        options: Keyword arguments of the layer for the kernel, such as ``scaling``.

    Returns:
        1 x T x heads x head size, and no attention weights.
    """
    if prefix_tree is None:
        return _attend(module, query, key, value, attention_mask, options, shared_prefix), None
    results = []
    for block in prefix_tree.blocks:
        inputs = (_take(query, block.queries), _take(key, block.keys), _take(value, block.keys))
        result = _attend(module, *inputs, block.mask, options | {"is_causal": block.mask is None})
        results.append(result.flatten(0, 1))
    return torch.cat(results).index_select(0, prefix_tree.order)[None], None


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    options: dict[str, Any],
    shared_prefix: SharedPrefix | None = None,
) -> Tensor:
    """Attention of B x heads x R x D queries over B x key/value heads x S x D keys; returns B x R x heads x D."""
    if mask is None or not query.is_cpu:
        result, _ = sdpa_attention_forward(module, query, key, value, mask, **options)
        return result
    # With a mask, transformers copies the keys for every query head that shares them. The CPU kernel need not.
    heads, num_queries = query.shape[1:3]
    scale = options.get("scaling")
    if num_queries == 1 and mask.shape[1] == 1:
        # The query heads of one key head become several queries of one head: the kernel then reads the keys once.
        grouped = query.unflatten(1, (key.shape[1], -1)).squeeze(3)
        # The CPU flash kernel in attend_shared requires keys and values of the same size.
        if shared_prefix is not None and key.shape[-1] == value.shape[-1]:
            result = attend_shared(grouped, key, value, mask, shared_prefix, scale)
        else:
            result = scaled_dot_product_attention(grouped, key, value, attn_mask=mask, scale=scale)
    else:
        shared = heads > key.shape[1]
        result = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=shared)
    return result.reshape(len(result), heads, num_queries, -1).transpose(1, 2).contiguous()


def _take(states: Tensor, places: Tensor) -> Tensor:
    """Gather tokens of 1 x h x T x D states by index (n x R); returns n x h x R x D."""
    taken = states[0].index_select(1, places.flatten())
    return taken.view(len(taken), *places.shape, -1).transpose(0, 1)


AttentionInterface.register(NAME, tree_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def prefix_tree_states(model: PreTrainedModel, prefix_tree: PrefixTree) -> Tensor:
    """Last hidden states of all tokens of a prefix tree, T x H.

    A model that does not use ``tree_attention`` gets one mask over all pairs of tokens. The result is the same, but
    it takes longer.

    Args:
        model: The base. The selected adapter takes part.
        prefix_tree: The prefix tree as built, on the CPU.
    """
    prefix_tree = prefix_tree.to(model.device, model.dtype)
    if model.config._attn_implementation == NAME:
        # transformers builds no mask of its own if it gets a 4-D one. tree_attention never reads this one.
        inputs = {"attention_mask": torch.empty(1, 1, 1, 1, device=model.device), "prefix_tree": prefix_tree}
    else:
        inputs = {"attention_mask": additive(prefix_tree.dense_mask(), model.dtype, model.device)}
    return hidden_states(model, prefix_tree.ids[None], position_ids=prefix_tree.positions[None], **inputs)[0]


@torch.no_grad()
def attend_by_prefix_tree(model: PreTrainedModel, name: str) -> None:
    """Switch a base to ``tree_attention`` if that works, and check that a prefix tree gives the same hidden states.

    The check compares a small tree of two rows with the same rows computed plainly.

    Args:
        model: A base as loaded; its attention implementation is changed in place.
        name: The base's name in the team file, for the error message.

    Raises:
        ConfigurationError: Neither ``tree_attention`` nor one mask over all pairs gives the states of plain rows.
    """
    vocabulary = int(model.config.get_text_config().vocab_size)
    # Spread over the vocabulary: rare ids are ill-conditioned.
    rows = torch.arange(1, 2 * (SHORTEST + 4) + 1).view(2, -1) * 7919 % vocabulary
    rows[1, :SHORTEST] = rows[0, :SHORTEST]
    prefix_tree = PrefixTree.of(rows)
    plain = hidden_states(model, rows.to(model.device))
    # The batch size alone changes the rounding by this much, so a difference of up to twice this is no error.
    noise = max(
        _distance(hidden_states(model, row[None].to(model.device))[0], of) for row, of in zip(rows, plain, strict=True)
    )
    bound = max(5e-2 if model.dtype == torch.bfloat16 else 1e-2, 2 * noise)
    own = model.config._attn_implementation
    # Only a model that transformers runs with sdpa is switched; any other must work with the one big mask.
    for implementation in (NAME, own) if own == "sdpa" else (own,):
        model.set_attn_implementation(implementation)
        found = prefix_tree_states(model, prefix_tree)
        if all(_distance(found[path], row) <= bound for path, row in zip(prefix_tree.paths, plain, strict=True)):
            return
    raise ConfigurationError(
        f"base_model {name!r} ({type(model).__name__}, attention {own!r}) does not accept the attention mask and "
        "the positions that training gives it.",
        hint="use a decoder with full attention, such as a Llama, Qwen or Mistral model.",
    )


def _distance(states: Tensor, true: Tensor) -> float:
    return float((states.float() - true.float()).norm() / true.float().norm())
