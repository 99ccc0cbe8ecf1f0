"""Start weights of the pocket model: a small Llama with an induction circuit, which copies before any training.

At this size gradient descent from a default initialisation does not find copying. Here it is written into the weights
(an induction circuit). The residual stream has five orthogonal parts: the token's content C, one shared direction u,
and room for views of the contents 1, 2 and 3 tokens back (P, Q, R). Layer 0: each head attends a fixed number of
positions back and writes what it sees of C into P, Q or R; it finds the place through RoPE, from queries and keys made
of u alone. Layer 1: queries from (C, P, Q) match keys from (P, Q, R), which finds the place after an earlier occurrence
of the last tokens (`lowest point:` is not `highest point:`), and what stands there is copied to C, from where the tied
output reads it. Layer 2 looks at other useful places, silently: training only has to give it a voice. At the end the
stream is rotated, so that no weight stands out (good for NF4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaAttention

HEADS = 3
_Term = tuple[slice, slice, Tensor, Tensor]


def pocket_config(
    vocabulary: int,
    *,
    hidden: int = 192,
    layers: int = 4,
    head: int = 64,
    ffn: int = 512,
    positions: int = 2048,
) -> LlamaConfig:
    """The architecture: a plain Llama with tied embeddings; its heads are wide, because they compare tokens exactly."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_dim=head,
        intermediate_size=ffn,
        max_position_embeddings=positions,
        rope_parameters={"rope_type": "default", "rope_theta": 1e5},
        tie_word_embeddings=True,
        bos_token_id=None,
        attention_bias=False,
        mlp_bias=False,
    )


@dataclass(frozen=True)
class _Stream:
    """How the residual stream is divided, and what is kept of a content in each part."""

    content: slice
    previous: slice
    second: slice
    third: slice
    views: tuple[Tensor, Tensor, Tensor]
    """Of the contents 1, 2 and 3 back: (size, width), each the start of the one before; the first one is all of it."""

    @property
    def width(self) -> int:
        """Numbers of a content."""
        return int(self.content.stop)


@torch.no_grad()
def induction_model(config: LlamaConfig, groups: Sequence[Sequence[int]], *, seed: int) -> LlamaForCausalLM:
    """A model of `config` (three heads, at least three layers) whose first two layers copy.

    Args:
        config: From `pocket_config`.
        groups: Token ids that start with nearly the same embedding (`tokenizer.twins`).
        seed: Of all random weights.
    """
    torch.manual_seed(seed)
    model: LlamaForCausalLM = LlamaForCausalLM(config).float()
    assert config.num_attention_heads == HEADS, f"the structured start is made for {HEADS} heads"
    for index, layer in enumerate(model.model.layers):
        for name, weight in layer.named_parameters():
            if weight.ndim == 2:
                # What writes to the stream starts at 0: it cannot disturb the copying.
                silent = "o_proj" in name or "down_proj" in name
                weight.normal_(std=0.0 if silent else 0.02 if index < 2 else config.hidden_size**-0.5)
    # A third each for the contents of this token and the previous one; the two before share what is left.
    width = config.hidden_size // 3
    assert width <= _head_size(model), "one head carries a whole content"
    _embed(model, width, groups)
    stream = _divide(config.hidden_size, width)
    _look_back(model, stream)
    _match_and_copy(model, stream)
    _look_around(model, stream)
    _rotate(model, torch.linalg.qr(torch.randn(config.hidden_size, config.hidden_size)).Q)
    return model


def _divide(hidden: int, width: int) -> _Stream:
    """The parts one behind the other; u is the last number."""
    size = (hidden - 1 - 2 * width) * 21 // 40
    rows = torch.linalg.qr(torch.randn(width, width)).Q * (width / size) ** 0.5
    return _Stream(
        content=slice(0, width),
        previous=slice(width, 2 * width),
        second=slice(2 * width, 2 * width + size),
        third=slice(2 * width + size, hidden - 1),
        views=(torch.eye(width), rows[:size], rows[: hidden - 1 - 2 * width - size]),
    )


def _embed(model: LlamaForCausalLM, width: int, groups: Sequence[Sequence[int]]) -> None:
    """Random contents of norm 1, alike for twins, and the shared direction."""
    config = model.config
    contents = torch.randn(config.vocab_size, width)
    for group in groups:
        shared = torch.randn(width)
        for index in group:
            contents[index] = 0.9 * shared + 0.436 * torch.randn(width)
    table = torch.zeros(config.vocab_size, config.hidden_size)
    table[:, :width] = contents / contents.norm(dim=1, keepdim=True)
    table[:, -1] = 0.5
    model.model.embed_tokens.weight.copy_(table)


def _head_size(model: LlamaForCausalLM) -> int:
    return int(model.model.layers[0].self_attn.q_proj.out_features) // HEADS


def _frequencies(size: int) -> Tensor:
    return 1e5 ** (-torch.arange(0, size, 2).float() / size)


def _slow(size: int) -> Tensor:
    """The numbers of a head's queries and keys that RoPE hardly turns within a context: there contents are compared."""
    slow = torch.nonzero(_frequencies(size) < 0.007).flatten()
    return torch.cat([slow, slow + size // 2])


def _look_back(model: LlamaForCausalLM, stream: _Stream) -> None:
    """Layer 0: the heads attend 1, 2 and 3 positions back and write a view of C from there."""
    size = _head_size(model)
    attention = model.model.layers[0].self_attn
    angle = _frequencies(size)
    # Slow pairs cannot tell neighbours apart; they would only add a large constant.
    gain = 2.0 * (angle > 0.05).float().repeat(2)
    targets = (stream.previous, stream.second, stream.third)
    for weight in (attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight):
        weight.zero_()
    for head, (target, view) in enumerate(zip(targets, stream.views, strict=True)):
        distance = head + 1
        rows = slice(head * size, (head + 1) * size)
        # The shared direction is about 5 after RMSNorm: a score gap of about 10 between neighbours follows.
        turned = torch.cat([torch.cos(distance * angle), -torch.sin(distance * angle)])
        attention.q_proj.weight[rows, -1] = gain * turned
        attention.k_proj.weight[rows, -1] = gain * torch.cat([torch.ones_like(angle), torch.zeros_like(angle)])
        used = slice(head * size, head * size + len(view))
        attention.v_proj.weight[used, stream.content] = view
        attention.o_proj.weight[target, used] = 0.1 * torch.eye(len(view))


def _match_and_copy(model: LlamaForCausalLM, stream: _Stream) -> None:
    """Layer 1: match the last tokens with those before each place, where RoPE hardly turns; copy C from there."""
    size = _head_size(model)
    attention = model.model.layers[1].self_attn
    whole, two, three = stream.views
    second = slice(stream.second.start, stream.second.start + len(three))
    terms = [
        (stream.content, stream.previous, whole, whole),
        (stream.previous, stream.second, two, torch.eye(len(two))),
        (second, stream.third, torch.eye(len(three)), torch.eye(len(three))),
    ]
    for weight in (attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight):
        weight.zero_()
    for head in range(HEADS):
        # The first head asks for two tokens and sees all places that fit; the others for three, and outvote wrong ones.
        _compare(attention, head, terms, (1.6, 0.6, 0.0) if head == 0 else (1.6, 1.6, 1.2))
        here = head * size + torch.arange(stream.width)
        attention.v_proj.weight[here, stream.content] = torch.eye(stream.width)
        attention.o_proj.weight[stream.content, here] = 0.2 * torch.eye(stream.width)


def _look_around(model: LlamaForCausalLM, stream: _Stream) -> None:
    """Layer 2: other places worth a look, silent until training gives them a voice.

    One head skips a token (after `capital` it sees what follows `capital is`), one sees all followers of this token,
    one all tokens that follow the same one as this.
    """
    size = _head_size(model)
    attention = model.model.layers[2].self_attn
    whole, two, three = stream.views
    skip = [
        (stream.content, stream.second, two, torch.eye(len(two))),
        (stream.previous, stream.third, three, torch.eye(len(three))),
    ]
    looks = [
        skip,
        [(stream.content, stream.previous, whole, whole)],
        [(stream.previous, stream.previous, whole, whole)],
    ]
    for head, terms in enumerate(looks):
        for weight in (attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight):
            weight[head * size : (head + 1) * size] = 0
        attention.v_proj.weight[head * size + torch.arange(stream.width), stream.content] = torch.eye(stream.width)
        _compare(attention, head, terms, [1.2] * len(terms))


def _compare(attention: LlamaAttention, head: int, terms: Sequence[_Term], gains: Sequence[float]) -> None:
    """Scores of a head grow with the likeness of a view of one part here and a view of another part there."""
    size = attention.q_proj.out_features // HEADS
    slots = _slow(size)
    at = head * size + slots
    for gain, (here, there, view_here, view_there) in zip(gains, terms, strict=True):
        mix = gain * torch.randn(len(slots), len(view_here)) / len(slots) ** 0.5
        attention.q_proj.weight[at, here] = mix @ view_here
        attention.k_proj.weight[at, there] = mix @ view_there


def _rotate(model: LlamaForCausalLM, rotation: Tensor) -> None:
    """Turn the residual stream by an orthogonal matrix; RMSNorm weights are 1, so the function stays the same."""
    model.model.embed_tokens.weight.copy_(model.model.embed_tokens.weight @ rotation)
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for reader in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
            reader.weight.copy_(reader.weight @ rotation)
        for writer in (attention.o_proj, mlp.down_proj):
            writer.weight.copy_(rotation.T @ writer.weight)
