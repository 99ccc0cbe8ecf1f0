"""What a base must be to compute the same in the sampler, in training and elsewhere, told from its config alone.

The sampler adds tokens to a cache a few at a time, training lays many rows out in one pass, and both must give what a
row alone gives. That holds where the numbers of a token depend on the tokens before it and on nothing else. It does not
hold where they depend on the longest row of a pass, on how tokens are cut into passes, or on tokens that are forgotten.

Everything here is read off a config and off a model without weights, so it is known before a weight is fetched.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from textwrap import shorten
from typing import Any

import torch
from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.process.one_run import making_a_model
from mgrpo_lightning.roles.config import LimitsConfig

TAKE = "take a decoder with full attention, such as a Llama, Qwen2.5, Qwen3, Mistral, OLMo or SmolLM3."
_WINDOW = re.compile(r"(.*_)?window(_size|_len)?|attention_chunk_size|local_attention")
"""Fields that say how many tokens a layer sees."""
_MASKED = {"sliding_window", "attention_chunk_size"}
"""Of these those that only make a mask, by position: full attention to rows no longer than that. Others go by place."""
_WINDOWED = {"sliding_attention", "chunked_attention"}
"""Kinds of layers that these are for."""
_POSITIONS = re.compile(r"(.*[._])?(wpe|embed_positions|positions_embed|position_embeddings?)")
"""Names of modules that hold a learned vector for each position."""


def empty_model(config: PreTrainedConfig) -> PreTrainedModel:
    """The architecture of a config without weights, on the meta device.

    Args:
        config: Of a causal LM.
    """
    with making_a_model(), torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return model


def num_positions(config: PreTrainedConfig) -> int:
    """Tokens of the longest row that a config names; those of a team file's default where it names none.

    Args:
        config: Of a causal LM.
    """
    text = config.get_text_config()
    for field in ("max_position_embeddings", "n_positions", "max_seq_len"):
        if (count := getattr(text, field, None)) is not None:
            return int(count)
    return LimitsConfig().context


def refuse_unsupported(config: PreTrainedConfig, name: str, *, context: int) -> None:
    """Refuse a base whose log-probabilities would depend on the pass that computes them.

    Args:
        config: Of the base, as transformers reads it.
        name: As the team file says it.
        context: Tokens of the longest row: the largest ``limits.context`` of its roles.

    Raises:
        ConfigurationError: The sentence names the base, its class and what it does; its hint says what to do instead.
    """
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise _refused(name, type(config).__name__, "is no causal language model of transformers")
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    if config.is_encoder_decoder:
        raise _refused(name, kind.__name__, "is an encoder with a decoder")
    if getattr(kind, "_is_stateful", False):
        raise _refused(name, kind.__name__, "has recurrent layers, whose state the sampler cannot cache")
    try:
        text = config.get_text_config()
    except ValueError:
        raise _refused(name, kind.__name__, "has several language models") from None
    _refuse_layers(text, name, kind.__name__, context)
    try:
        model = empty_model(config)
    except (AttributeError, AssertionError, ImportError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = f"cannot be built ({type(error).__name__}: {shorten(str(error), 200, placeholder='...')})"
        raise _refused(name, kind.__name__, reason, "check the folder's config.json; " + TAKE) from error
    _refuse_modules(model, name, context)


def _refuse_layers(config: PreTrainedConfig, name: str, kind: str, context: int) -> None:
    """Refuse kinds of layers that forget tokens within the context, or see them in another way than by attention."""
    kinds = {layer for field in ("layer_types", "layers_block_type") for layer in getattr(config, field, None) or ()}
    if others := sorted(kinds - _WINDOWED - {"full_attention"}):
        raise _refused(name, kind, f"has layers of kind {others}, which the sampler cannot cache")
    windows = _windows(config)
    if kinds & _WINDOWED and not windows:
        raise _refused(name, kind, f"has layers of kind {sorted(kinds & _WINDOWED)} and does not say how far they see")
    if kinds and not kinds & _WINDOWED:  # named, and given to no layer
        windows = {field: seen for field, seen in windows.items() if field not in _MASKED}
    for field, seen in windows.items():
        if field not in _MASKED:
            raise _refused(name, kind, f"has layers that see {seen} places of a pass back ({field}), not of a row")
        if seen < context:
            raise _refused(
                name,
                kind,
                f"has layers that see {seen} tokens back ({field}), less than limits.context of {context}",
                f"set limits.context to {seen} at most, or {TAKE}",
            )


def _windows(config: PreTrainedConfig) -> dict[str, int]:
    if not getattr(config, "use_sliding_window", True):
        return {}
    values = {field: value for field, value in vars(config).items() if _WINDOW.fullmatch(field)}
    return {field: value for field, value in values.items() if isinstance(value, int) and value > 0}


def _refuse_modules(model: PreTrainedModel, name: str, context: int) -> None:
    """Refuse what a model without weights shows."""
    kind = type(model).__name__
    decoder = model.get_decoder()
    takes = set(inspect.signature(decoder.forward).parameters)
    if decoder is model or "input_ids" not in takes:
        raise _refused(name, kind, "does not show which of its parts gives the hidden states")
    attention = [module for module in decoder.modules() if hasattr(module, "is_causal")]
    if attention and not any(module.is_causal for module in attention):
        raise _refused(name, kind, "is an encoder: its tokens see those that come after them")
    if getattr(model.config.get_text_config(), "alibi", False) or "position_ids" not in takes:
        why = "takes no positions (ALiBi, or positions by place), which rows that share a pass need"
        raise _refused(name, kind, why)
    if "past_key_values" not in takes:
        raise _refused(name, kind, "has no cache of keys and values")
    if not any(isinstance(module, nn.Linear) for module in decoder.modules()):
        layers = sorted({type(module).__name__ for module in decoder.modules() if _is_matrix(module)})
        raise _refused(name, kind, f"has no linear layer that an adapter could stand on: its layers are {layers}")
    for module, limit in _learned(decoder):
        if limit < context:
            raise _refused(
                name,
                kind,
                f"has learned positions for {limit} tokens ({module}), less than limits.context of {context}",
                f"set limits.context to {limit} at most.",
            )
    for rope, limit in _length_dependent(model):
        if limit < context:
            raise _refused(
                name,
                kind,
                f"has rotary positions of type {rope!r}: beyond {limit} tokens the longest row of a pass decides those "
                f"of all others, and limits.context is {context}",
                f"set limits.context to {limit} at most, or write a scaling that is the same at every length into its "
                "config.json, such as yarn, linear or llama3.",
            )


def _is_matrix(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, torch.Tensor) and weight.ndim == 2 and not isinstance(module, nn.Embedding)


def _learned(decoder: nn.Module) -> Iterator[tuple[str, int]]:
    """Tables of positions of the decoder's own, and how many tokens they reach."""
    for name, module in decoder.named_modules():
        if isinstance(module, nn.Embedding) and _POSITIONS.fullmatch(name):
            yield name, module.num_embeddings - int(getattr(module, "offset", 0))


def _length_dependent(model: nn.Module) -> Iterator[tuple[str, int]]:
    """Rotary types whose frequencies transformers chooses in each pass, and up to which length it never does.

    The modules say it, not the config: Hunyuan calls a scaling ``dynamic`` that it makes a fixed one.
    """
    for module in model.modules():
        rotary: Any = module  # it has what its class gave it
        types = getattr(rotary, "rope_type", None)
        for layer, rope in types.items() if isinstance(types, dict) else [(None, types)]:
            if rope == "longrope":
                settings = rotary.config.rope_parameters
                settings = settings if layer is None else settings[layer]
                yield rope, int(settings["original_max_position_embeddings"])
            elif isinstance(rope, str) and "dynamic" in rope:
                yield rope, int(rotary.original_max_seq_len)


def _refused(name: str, kind: str, reason: str, hint: str = TAKE) -> ConfigurationError:
    return ConfigurationError(f"base_model {name!r} ({kind}) {reason}.", hint=hint)
