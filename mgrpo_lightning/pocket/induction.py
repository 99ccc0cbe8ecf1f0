"""A Llama that copies before it has learnt anything: the structured start of the pocket model.

At this size gradient descent from a default initialisation does not find copying. Here it is written into the weights
(an induction circuit). The residual stream has five orthogonal parts: the token's content C, one shared direction u,
and room for views of the contents 1, 2 and 3 tokens back (P, Q, R). Layer 0: each head attends a fixed number of
positions back and writes what it sees of C into P, Q or R; it finds the place through RoPE, from queries and keys made
of u alone. Layer 1: queries from (C, P, Q) match keys from (P, Q, R), which finds the place after an earlier occurrence
of the last three tokens (`lowest point:` is not `highest point:`), and what stands there is copied to C, from where the
tied output reads it. At the end the stream is rotated, so that no weight stands out (good for NF4).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM


def pocket_config(
    vocabulary: int, *, hidden: int = 128, layers: int = 4, heads: int = 4, ffn: int = 384, positions: int = 2048
) -> LlamaConfig:
    """The architecture: a plain Llama with tied embeddings and rope theta 1e5."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=ffn,
        max_position_embeddings=positions,
        rope_parameters={"rope_type": "default", "rope_theta": 1e5},
        tie_word_embeddings=True,
        bos_token_id=None,
        attention_bias=False,
        mlp_bias=False,
    )


@torch.no_grad()
def induction_model(config: LlamaConfig, groups: Sequence[Sequence[int]], *, seed: int) -> LlamaForCausalLM:
    """A model of `config` (at least two layers) whose first two layers copy.

    Args:
        config: From `pocket_config`.
        groups: Token ids that start with nearly the same embedding (`tokenizer.twins`).
        seed: Of all random weights.
    """
    torch.manual_seed(seed)
    model: LlamaForCausalLM = LlamaForCausalLM(config).float()
    hidden = config.hidden_size
    parts = _parts(hidden)
    content = parts[0]
    width = content.stop
    for layer in model.model.layers:
        for weight in layer.parameters():
            if weight.ndim == 2:
                weight.normal_(std=0.02)
    embeddings = torch.randn(config.vocab_size, width)
    for group in groups:
        shared = torch.randn(width)
        for index in group:
            embeddings[index] = 0.9 * shared + 0.436 * torch.randn(width)
    table = torch.zeros(config.vocab_size, hidden)
    table[:, content] = embeddings / embeddings.norm(dim=1, keepdim=True)
    table[:, hidden - 1] = 0.5
    model.model.embed_tokens.weight.copy_(table)
    views = [torch.eye(width), *_views(width, [part.stop - part.start for part in parts[2:]])]
    _look_back(model, parts, views)
    _match_and_copy(model, parts, views)
    _rotate(model, torch.linalg.qr(torch.randn(hidden, hidden)).Q)
    return model


def _frequencies(config: LlamaConfig) -> Tensor:
    size = config.hidden_size // config.num_attention_heads
    return 1e5 ** (-torch.arange(0, size, 2).float() / size)


def _parts(hidden: int) -> list[slice]:
    """Where the contents of this token and of the ones 1, 2 and 3 back stand in the residual stream; u is last."""
    width = (hidden - 1) * 11 // 32
    sizes = [width, width, (hidden - 1 - 2 * width) * 21 // 40]
    sizes.append(hidden - 1 - sum(sizes))
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def _views(width: int, sizes: Sequence[int]) -> list[Tensor]:
    """What is kept of a content of `width` numbers where there is room for fewer: (size, width), nested."""
    rows = torch.linalg.qr(torch.randn(width, width)).Q * (width / max(sizes)) ** 0.5
    return [rows[:size] for size in sizes]


def _look_back(model: LlamaForCausalLM, parts: Sequence[slice], views: Sequence[Tensor]) -> None:
    """Layer 0: heads attend 1 (first half), 2 or 3 positions back and write a view of C from there."""
    config = model.config
    heads, size = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    attention = model.model.layers[0].self_attn
    angle = _frequencies(config)
    # Slow pairs cannot tell neighbours apart; they would only add a large constant.
    gain = 2.0 * (angle > 0.05).float().repeat(2)
    queries, keys = attention.q_proj.weight, attention.k_proj.weight
    content, previous, *others = parts
    half = (previous.stop - previous.start + 1) // 2
    first, second = slice(previous.start, previous.start + half), slice(previous.start + half, previous.stop)
    jobs = [
        (1, first, views[0][:half]),
        (1, second, views[0][half:]),
        (2, others[0], views[1]),
        (3, others[1], views[2]),
    ]
    for head, (distance, target, view) in enumerate(jobs):
        rows = slice(head * size, (head + 1) * size)
        for weight in (queries, keys, attention.v_proj.weight):
            weight[rows] = 0
        attention.o_proj.weight[:, rows] = 0
        # The shared direction is about 5 after RMSNorm: a score gap of about 10 between neighbours follows.
        queries[rows, -1] = gain * torch.cat([torch.cos(distance * angle), -torch.sin(distance * angle)])
        keys[rows, -1] = gain * torch.cat([torch.ones_like(angle), torch.zeros_like(angle)])
        used = slice(head * size, head * size + len(view))
        attention.v_proj.weight[used, content] = view
        attention.o_proj.weight[target, used] = 0.1 * torch.eye(len(view))
    assert heads == len(jobs), "the structured start is made for four heads"


def _match_and_copy(model: LlamaForCausalLM, parts: Sequence[slice], views: Sequence[Tensor]) -> None:
    """Layer 1: match the last three tokens with the three before each place, where RoPE hardly turns; copy C."""
    config = model.config
    heads, size = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    attention = model.model.layers[1].self_attn
    content, previous, second, third = parts
    width = content.stop
    slow = torch.nonzero(_frequencies(config) < 0.007).flatten()
    slots = torch.cat([slow, slow + size // 2])
    for head in range(heads):
        rows = slice(head * size, (head + 1) * size)
        for weight in (attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight):
            weight[rows] = 0
        attention.o_proj.weight[:, rows] = 0
        at = head * size + slots
        known = views[2].shape[0]
        for here, there, view in (
            (content, previous, views[0]),
            (previous, second, views[1]),
            (slice(second.start, second.start + known), third, torch.eye(known)),
        ):
            mix = 1.6 * torch.randn(len(slots), len(view)) / len(slots) ** 0.5
            attention.q_proj.weight[at, here] = mix @ view
            attention.k_proj.weight[at, there] = mix
        share = (torch.arange(size) + head * size // 2) % width
        attention.v_proj.weight[head * size + torch.arange(size), content.start + share] = 1.0
        attention.o_proj.weight[content.start + share, head * size + torch.arange(size)] = 0.1


def _rotate(model: LlamaForCausalLM, rotation: Tensor) -> None:
    """Turn the residual stream by an orthogonal matrix; RMSNorm weights are 1, so the function stays the same."""
    model.model.embed_tokens.weight.copy_(model.model.embed_tokens.weight @ rotation)
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for reader in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
            reader.weight.copy_(reader.weight @ rotation)
        for writer in (attention.o_proj, mlp.down_proj):
            writer.weight.copy_(rotation.T @ writer.weight)
