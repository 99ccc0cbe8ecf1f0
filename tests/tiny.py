"""A tiny random Llama with a ChatML tokenizer, saved as a Hugging Face folder: for every test that needs a model."""

from __future__ import annotations

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
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=hidden,
                intermediate_size=2 * hidden,
                num_hidden_layers=layers,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=context,
                initializer_range=0.2,
                tie_word_embeddings=True,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                bos_token_id=None,
            )
        )
    ends = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
    torch.nn.Module.to(model, dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
