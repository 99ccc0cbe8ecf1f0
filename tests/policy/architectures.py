"""Every causal LM of transformers as a tiny random model, and whether it computes here what it does in transformers.

A model is shrunk by what the fields of its config are called, so that a new one of transformers joins by itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from mgrpo_lightning.policy.loading import load_base
from mgrpo_lightning.policy.logprobs import action_logprobs
from mgrpo_lightning.policy.policy import Policy
from mgrpo_lightning.policy.sampling.base import Conversation, SamplingParams
from mgrpo_lightning.policy.sampling.scheduler import Scheduler
from mgrpo_lightning.policy.sampling.transformers import TransformersSampler
from mgrpo_lightning.roles.config import AdapterConfig, LimitsConfig, RoleConfig
from tests.support.tiny import make_tiny_tokenizer

ARCHITECTURES: dict[str, str] = {kind: str(name) for kind, name in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items())}
"""Class of the causal LM by ``model_type``."""
VOCAB = 384
CONTEXTS = (24, 80)
BOUND = 1e-4

MUST_WORK = ("llama", "qwen2", "qwen3", "qwen3_moe", "mixtral", "olmo", "smollm3")
SUITE = {*MUST_WORK, "gemma3_text", "mistral", "gpt_neox", "bloom", "gpt2", "gpt_neo", "mamba", "bert"}
"""About one of each kind; the others are slow in sum only."""

_SIZES: list[tuple[str, int]] = [
    (r"first_k_dense_replace", 1),  # or there would be no layer with experts
    (r"(.*_)?(vocab_size|n_vocab|n_tokens)(_.*)?", VOCAB),
    (r"(.*_)?(num_layers|hidden_layers|n_layers?|decoder_layers|encoder_layers)", 2),
    (r"(.*_)?(key_value_heads|kv_heads|attention_groups|head_kv|kv_n_heads|query_groups)", 2),
    (r"qk_head_dim", 16),
    (r"(.*_)?(head_dim|head_size|d_head|d_kv)", 8),
    (r"(.*_)?(heads?|n_head)", 4),
    (r"rotary_dim", 4),
    (r"(.*_)?window(_size|_len)?|attention_chunk_size|local_attention", CONTEXTS[-1]),  # less than all rows in a pass
    (r"(.*_)?(hidden_size|d_model|n_embd|dim|embedding_size|n_embed|width)", 32),
    (r"(.*_)?(intermediate_size|ffn_dim|d_ff|n_inner|ffn_hidden_size|d_inner)", 32),
    (r"(.*_)?(experts_per_tok(en)?|moe_k|moe_topk|topk?_experts|experts_top_k)", 2),
    (r"(.*_)?(experts|n_routed_experts)", 4),
    (r"(.*_)?(n_group|topk_group)", 1),
    (r".*lora_rank", 8),
]
"""What a number becomes by its whole name, by the first entry that fits; others stay as they are."""
_UNSET = {
    "head_dim": 8,
    "num_key_value_heads": 4,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
}
"""Where a class leaves open what it cannot do without."""
_CHANGES: dict[str, dict[str, Any]] = {
    "bamba": {"mamba_d_head": 16},
    "cohere_compass_text": {"layer_types": ["sliding_attention", "full_attention"]},
    "dots3_note_audio_encoder": {"adapter_input_size": 32, "adapter_out_dim": 32},
    "dots3_note_vision_encoder": {"adapter_in_dim": 32, "adapter_out_dim": 32, "per_layer_config": None},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "granitemoehybrid": {"mamba_d_head": 16},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8},
}
"""Where sizes hang together in a way that their names do not tell, by ``model_type`` of the whole or of a part."""
_ROPE = {"rope_type": "default", "rope_theta": 100.0}
_STARTS: dict[str, dict[str, Any]] = {
    "cohere_compass_text": {"rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE}},
    "dbrx": {"attn_config": {"rope_theta": 100.0, "clip_qkv": 8.0}},
    "gemma4_assistant": {
        "text_config": {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0, "num_kv_shared_layers": 0}
    },
    "reformer": {"is_decoder": True, "axial_pos_embds": False},
}
"""Given to classes that do not take their own defaults."""


def tiny_config(kind: str, **changes: Any) -> PreTrainedConfig:
    """The config of a ``model_type`` with every size made small."""
    return _shrunk(CONFIG_MAPPING[kind], _STARTS.get(kind, {}), changes)


def _shrunk(cls: type[PreTrainedConfig], start: Mapping[str, Any], changes: Mapping[str, Any]) -> PreTrainedConfig:
    default = cls(**start)
    values: dict[str, Any] = {}
    kinds = getattr(default, "layer_types", None) or getattr(default, "layers_block_type", None) or ()
    layers = 4 if len(set(kinds)) > 1 else 2
    fields = dict(vars(default))
    heads = fields.get("num_attention_heads")
    for name, value in fields.items():
        if name.startswith("_") or isinstance(value, bool):
            continue
        if name == "num_key_value_heads" and value == heads is not None:
            values[name] = 4  # some attention takes no other number than that of the queries' heads
        elif isinstance(value, int):
            values[name] = _smaller(name, value, layers)
        elif value is None and name in _UNSET:
            values[name] = _UNSET[name]
        elif isinstance(value, list) and kinds and len(value) == len(kinds):
            values[name] = value[:layers]
        elif isinstance(value, PreTrainedConfig):
            values[name] = _shrunk(type(value), start.get(name, {}), {})
    changed = {
        name: value for name, value in values.items() if isinstance(value, PreTrainedConfig) or value != fields[name]
    }
    return cls(**{**start, **changed, **_CHANGES.get(cls.model_type, {}), **changes})


def _smaller(name: str, value: int, layers: int) -> int:
    if re.fullmatch(r".*_(id|index)", name):
        return value if value < VOCAB else 3
    for pattern, size in _SIZES:
        if re.fullmatch(pattern, name):
            return min(value, layers if "layer" in pattern else size)
    return value


def make_tiny(config: PreTrainedConfig, folder: Path, *, seed: int = 0) -> Path:
    """Write a random model, whose attention matters as in a trained one, and a tokenizer."""
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)
    model.save_pretrained(folder)
    make_tiny_tokenizer(vocab=VOCAB).save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Gap:
    """Largest differences of log-probabilities from those of each row alone in transformers and PEFT."""

    sampler: float
    trainer: float

    @property
    def largest(self) -> float:
        """Of both."""
        return max(self.sampler, self.trainer)


def gap(folder: Path, context: int, *, targets: Sequence[str] | None = None) -> Gap:
    """Sample rows that end at many lengths up to the context, one alone and all together, and compare.

    Raises:
        ConfigurationError: The model is refused.
    """
    base = load_base(str(folder), quantization="none", compute_dtype=torch.float32, context=context)
    adapter = AdapterConfig(rank=4, alpha=8, target_modules=list(targets or linear_layers(base.model)))
    role = RoleConfig(base.name, adapter=adapter, limits=LimitsConfig(context=context, new_tokens=8))
    policy = Policy("main", role, base, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.named_parameters().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    policy.save_peft(folder / "adapter")
    rows = [*_sampled(policy, [0], context), *_sampled(policy, [0, 1, 2, 3], context)]
    width = max(len(ids) for ids, _, _ in rows)
    ids, mask = torch.zeros(len(rows), width, dtype=torch.int64), torch.zeros(len(rows), width, dtype=torch.bool)
    for i, (row, scored, _) in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), torch.tensor(scored)
    lengths = torch.tensor([len(row) for row, _, _ in rows])
    with torch.no_grad():
        trained = action_logprobs(policy, ids, lengths, mask, temperature=1.0)
        alone = action_logprobs(policy, ids[:1, : lengths[0]], lengths[:1], mask[:1, : lengths[0]], temperature=1.0)
    sampled = torch.tensor([value for _, _, logprobs in rows for value in logprobs])
    bare = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(bare, str(folder / "adapter")).eval()
    true = torch.cat([_plain(model, row, scored) for row, scored, _ in rows])
    return Gap(
        sampler=float((sampled - true).abs().max()),
        trainer=max(float((trained - true).abs().max()), float((alone - true[: len(alone)]).abs().max())),
    )


def _sampled(policy: Policy, names: Sequence[int], context: int) -> list[tuple[list[int], list[bool], list[float]]]:
    """Ids of conversations of two turns, which of them were sampled, and the log-probabilities of these."""
    scheduler = Scheduler("rounds")
    sampler = TransformersSampler(policy, scheduler)

    async def play(
        conversation: Conversation, name: int, prompt: list[int]
    ) -> tuple[list[int], list[bool], list[float]]:
        ids, scored = list(prompt), [False] * len(prompt)
        logprobs: list[float] = []
        for turn in range(2):
            sampled = await conversation.sample(SamplingParams(4, ()), 10 * name + turn)
            ids += sampled.ids
            scored += [True] * len(sampled.ids)
            logprobs += sampled.logprobs
            if turn == 0:
                observed = _spread(2 + name, start=name)
                conversation.extend(observed)
                ids += observed
                scored += [False] * len(observed)
        assert len(ids) <= context
        return ids, scored, logprobs

    longest = context - 13  # the last conversation ends at the context
    prompts = [_spread(3 + (longest - 3) * name // 3, start=0) for name in names]
    conversations = [sampler.open(prompt, (name,)) for name, prompt in zip(names, prompts, strict=True)]
    return list(scheduler.play([play(*each) for each in zip(conversations, names, prompts, strict=True)]))


def _spread(count: int, *, start: int) -> list[int]:
    """Ids that stand far apart, control tokens left out."""
    return [4 + (start + i) * 7919 % (VOCAB - 20) for i in range(count)]


@torch.no_grad()
def _plain(model: PeftModel, row: list[int], scored: list[bool]) -> Tensor:
    """What a row alone gives in transformers and PEFT, without a cache."""
    logits: Tensor = model(input_ids=torch.tensor([row]), use_cache=False).logits[0].float()
    logprobs = logits.log_softmax(-1)[:-1].gather(-1, torch.tensor(row[1:])[:, None]).squeeze(-1)
    return logprobs[torch.tensor(scored[1:])]


def linear_layers(model: PreTrainedModel) -> list[str]:
    """Names of the linear layers inside of decoder layers, routers left out: what a team file would target."""
    inside = re.compile(r"\.\d+\.")
    found = {
        name.rpartition(".")[2]
        for name, module in model.get_decoder().named_modules()
        if isinstance(module, nn.Linear) and inside.search(f".{name}")
    }
    return sorted(found - {"gate", "router", "0", "1", "2"}) or ["q_proj"]
