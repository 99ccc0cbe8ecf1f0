"""Refuse architectures by config: recurrent layers, sliding windows, encoders, ALiBi, too few or dynamic positions.

The sampler adds a few tokens at a time to a KV cache; training computes many rows in one pass. Both must give the same
numbers as a row alone. This holds if a token's hidden state depends only on the tokens before it. It does not hold if
the state depends on the longest row of a pass or on how tokens are cut into passes, or if layers forget tokens.

The checks use only the config and a model without weights, so they run before any weight is downloaded.
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

TAKE = "use a decoder with full attention, such as a Llama, Qwen2.5, Qwen3, Mistral, OLMo or SmolLM3."
_WINDOW = re.compile(r"(.*_)?window(_size|_len)?|attention_chunk_size|local_attention")
"""Config fields that say how many tokens a layer sees."""
_MASKED = {"sliding_window", "attention_chunk_size"}
"""The fields of these that only make an attention mask by position. For rows up to that length this is full attention.
The other fields count places in the pass instead of positions in the row."""
_WINDOWED = {"sliding_attention", "chunked_attention"}
"""Kinds of layers to which the fields in _MASKED apply."""
_POSITIONS = re.compile(r"(.*[._])?(wpe|embed_positions|positions_embed|position_embeddings?)")
"""Module names of learned position embeddings."""


def empty_model(config: PreTrainedConfig) -> PreTrainedModel:
    """Build the model of a causal LM's config without weights, on the meta device."""
    with making_a_model(), torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return model


def num_positions(config: PreTrainedConfig) -> int:
    """Length in tokens of the longest row that a causal LM's config allows; the default limit if it does not say."""
    text = config.get_text_config()
    for field in ("max_position_embeddings", "n_positions", "max_seq_len"):
        if (count := getattr(text, field, None)) is not None:
            return int(count)
    return LimitsConfig().context


def refuse_unsupported(config: PreTrainedConfig, name: str, *, context: int) -> None:
    """Refuse a base whose log-probabilities would depend on the pass that computes them.

    Args:
        config: Config of the base, as transformers reads it.
        name: The base's name in the team file, for the error message.
        context: Length in tokens of the longest row: the largest ``limits.context`` of the base's roles.

    Raises:
        ConfigurationError: The base is not supported. The message names the base, its class and the reason.
    """
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise _refused(name, type(config).__name__, "is not a causal language model of transformers")
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    if config.is_encoder_decoder:
        raise _refused(name, kind.__name__, "is an encoder-decoder model")
    if getattr(kind, "_is_stateful", False):
        raise _refused(name, kind.__name__, "has recurrent layers, whose state the sampler cannot cache")
    try:
        text = config.get_text_config()
    except ValueError:
        raise _refused(name, kind.__name__, "contains several language models") from None
    _refuse_layers(text, name, kind.__name__, context)
    try:
        model = empty_model(config)
    except (AttributeError, AssertionError, ImportError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = f"cannot be built ({type(error).__name__}: {shorten(str(error), 200, placeholder='...')})"
        raise _refused(name, kind.__name__, reason, "check the folder's config.json; " + TAKE) from error
    _refuse_modules(model, name, context)


def _refuse_layers(config: PreTrainedConfig, name: str, kind: str, context: int) -> None:
    """Refuse layers that forget tokens within the context, and layers that are not attention layers."""
    kinds = {layer for field in ("layer_types", "layers_block_type") for layer in getattr(config, field, None) or ()}
    if others := sorted(kinds - _WINDOWED - {"full_attention"}):
        raise _refused(name, kind, f"has layers of kind {others}, which the sampler cannot cache")
    windows = _windows(config)
    if kinds & _WINDOWED and not windows:
        raise _refused(name, kind, f"has layers of kind {sorted(kinds & _WINDOWED)} and does not give their window")
    if kinds and not kinds & _WINDOWED:  # the config names a window, but no layer uses it
        windows = {field: seen for field, seen in windows.items() if field not in _MASKED}
    for field, seen in windows.items():
        if field not in _MASKED:
            raise _refused(name, kind, f"has layers with a window of {seen} places in the padded batch ({field})")
        if seen < context:
            raise _refused(
                name,
                kind,
                f"has layers with a window of {seen} tokens ({field}), less than limits.context of {context}",
                f"set limits.context to at most {seen}, or {TAKE}",
            )


def _windows(config: PreTrainedConfig) -> dict[str, int]:
    # Qwen2's configs name a window and switch it off with this field.
    if not getattr(config, "use_sliding_window", True):
        return {}
    values = {field: value for field, value in vars(config).items() if _WINDOW.fullmatch(field)}
    return {field: value for field, value in values.items() if isinstance(value, int) and value > 0}


def _refuse_modules(model: PreTrainedModel, name: str, context: int) -> None:
    """Refuse a base for reasons that show in its modules, such as no KV cache or too few positions."""
    kind = type(model).__name__
    decoder = model.get_decoder()
    takes = set(inspect.signature(decoder.forward).parameters)
    if decoder is model or "input_ids" not in takes:
        raise _refused(name, kind, "does not name the part that computes the hidden states")
    # In transformers, `is_causal` is an attribute of attention modules.
    attention = [module for module in decoder.modules() if hasattr(module, "is_causal")]
    if attention and not any(module.is_causal for module in attention):
        raise _refused(name, kind, "is an encoder: its tokens attend to later tokens")
    if getattr(model.config.get_text_config(), "alibi", False) or "position_ids" not in takes:
        why = "accepts no position ids (ALiBi, or positions by place), which batched sequences need"
        raise _refused(name, kind, why)
    if "past_key_values" not in takes:
        raise _refused(name, kind, "has no KV cache")
    if not any(isinstance(module, nn.Linear) for module in decoder.modules()):
        layers = sorted({type(module).__name__ for module in decoder.modules() if _is_matrix(module)})
        raise _refused(name, kind, f"has no linear layer for an adapter: its layers are {layers}")
    for module, limit in _learned(decoder):
        if limit < context:
            raise _refused(
                name,
                kind,
                f"has learned positions for {limit} tokens ({module}), less than limits.context of {context}",
                f"set limits.context to at most {limit}.",
            )
    for rope, limit in _length_dependent(model):
        if limit < context:
            raise _refused(
                name,
                kind,
                f"has rotary positions of type {rope!r}: beyond {limit} tokens they depend on the longest sequence "
                f"of the batch, and limits.context is {context}",
                f"set limits.context to at most {limit}, or set a scaling in its config.json that does not depend on "
                "the length, such as yarn, linear or llama3.",
            )


def _is_matrix(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, torch.Tensor) and weight.ndim == 2 and not isinstance(module, nn.Embedding)


def _learned(decoder: nn.Module) -> Iterator[tuple[str, int]]:
    """Learned position embeddings of the decoder: module name and number of positions."""
    for name, module in decoder.named_modules():
        if isinstance(module, nn.Embedding) and _POSITIONS.fullmatch(name):
            # OPT's table has `offset` rows before the one of position 0.
            yield name, module.num_embeddings - int(getattr(module, "offset", 0))


def _length_dependent(model: nn.Module) -> Iterator[tuple[str, int]]:
    """Rotary embeddings with frequencies that transformers chooses in each pass, from the longest row.

    Yields the rotary type and the length in tokens up to which the frequencies are fixed. Reads the modules, not the
    config: Hunyuan's config calls a scaling ``dynamic``, but its module keeps it fixed.
    """
    for module in model.modules():
        rotary: Any = module  # Any: the attributes below depend on the module's class
        types = getattr(rotary, "rope_type", None)
        for layer, rope in types.items() if isinstance(types, dict) else [(None, types)]:
            # longrope uses other frequencies as soon as the longest row of the pass exceeds this length.
            if rope == "longrope":
                settings = rotary.config.rope_parameters
                settings = settings if layer is None else settings[layer]
                yield rope, int(settings["original_max_position_embeddings"])
            elif isinstance(rope, str) and "dynamic" in rope:
                yield rope, int(rotary.original_max_seq_len)


def _refused(name: str, kind: str, reason: str, hint: str = TAKE) -> ConfigurationError:
    return ConfigurationError(f"base_model {name!r} ({kind}) {reason}.", hint=hint)
