"""A tiny random Llama with a ChatML tokenizer, saved as a Hugging Face folder: for every test that needs a model."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mgrpo_lightning.policy.chatml import CHATML

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<answer>", "</answer>")
TEXTS = (
    "system user assistant\nYou are a searcher. Answer in <answer> tags.",
    '{"name": "searcher", "arguments": {"task": "highest point of France"}}',
    '{"name": "search", "arguments": {"query": "France highest point"}}',
    '{"name": "visit", "arguments": {"url": "factbook/france", "section": "Elevation"}}',
    "1. factbook/france | France | Geography: Elevation\nhighest point: Mont Blanc 4,810",
)


def make_tiny_tokenizer(*, vocab: int = 384) -> PreTrainedTokenizerFast:
    """A byte-level BPE of ``vocab`` ids with the ChatML specials and the protocol's tags (not special)."""
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Split(Regex(r"\d"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab - len(SPECIALS) - len(TAGS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 4, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )
    fast.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    fast.add_tokens(list(TAGS))
    fast.chat_template = CHATML
    return fast


def make_tiny_model(
    folder: Path,
    *,
    vocab: int = 384,
    hidden: int = 32,
    layers: int = 2,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    context: int = 4096,
) -> Path:
    """Write a random Llama (grouped-query attention, tied embeddings) and its tokenizer to ``folder``; return it."""
    tokenizer = make_tiny_tokenizer(vocab=vocab)
    model = _llama(tokenizer, hidden=hidden, layers=layers, context=context, seed=seed, spread=0.2)
    return _save(torch.nn.Module.to(model, dtype), tokenizer, folder)


WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta")
"""What the toy task asks for."""
_CALLS = tuple(
    f'\n{{"name": "{name}", "arguments": {{"{key}": "{number}"}}}}\n'
    for name, key in (("searcher", "task"), ("search", "query"))
    for number in (1, 2)
)
_FOLLOWS: dict[str, dict[str, int]] = {
    "\n": {"<tool_call>": 3, "<answer>": 2, "<|im_end|>": 1},
    "<tool_call>": dict.fromkeys(_CALLS, 1),
    "<answer>": dict.fromkeys(WORDS, 1),
    **{call: {"</tool_call>": 1} for call in _CALLS},
    **{word: {"</answer>": 1} for word in WORDS},
    "</tool_call>": {"<|im_end|>": 1},
    "</answer>": {"<|im_end|>": 1},
}
"""What may come behind a token, with its odds: calls of either role, answers, and turns that are neither."""


def make_speaking_model(folder: Path) -> Path:
    """Write a tiny Llama that plays the toy task by chance, so that teams of it have something to learn; return it.

    A token says what comes next: the head has the embeddings of those before it, and attention and MLPs add little.
    """
    tokenizer = make_tiny_tokenizer()
    tokenizer.add_tokens([*_CALLS, *WORDS])
    model = _llama(tokenizer, hidden=64, layers=2, context=4096, seed=0, spread=0.02, tied=False)
    ids = {text: tokenizer.convert_tokens_to_ids(text) for text in (*_CALLS, *WORDS, *SPECIALS, *TAGS)}
    (ids["\n"],) = tokenizer("\n", add_special_tokens=False).input_ids
    with torch.no_grad():
        embeddings, head = model.model.embed_tokens.weight, model.lm_head.weight
        embeddings.copy_(torch.nn.functional.normalize(embeddings))
        for text, following in _FOLLOWS.items():
            for other, odds in following.items():  # a normalised embedding meets itself with its length, 8
                head[ids[other]] += (16 + math.log(odds)) / 8 * embeddings[ids[text]]
    return _save(model, tokenizer, folder)


def _llama(
    tokenizer: PreTrainedTokenizerFast,
    *,
    hidden: int,
    layers: int,
    context: int,
    seed: int,
    spread: float,
    tied: bool = True,
) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=spread,
        tie_word_embeddings=tied,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def _save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    ends = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
