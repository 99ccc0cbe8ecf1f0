"""Refuse a base with its own Python code (``auto_map``), remote kernels or pickled weights, before it is loaded.

A person with write access to a model's folder must not be able to run code here. transformers would ask on the terminal
whether to run the folder's code, and accept a ``y`` from a pipe. So every loading call also passes
``trust_remote_code=False`` and ``use_safetensors=True``. Some folders bring code for an architecture that transformers
has itself, such as Phi-3; then transformers' own code is used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name
from transformers.utils import (
    CONFIG_NAME,
    GENERATION_CONFIG_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
)
from transformers.utils.hub import cached_file, has_file

from mgrpo_lightning.errors import ConfigurationError, DataError

TOKENIZER_CONFIG = "tokenizer_config.json"
ADAPTER = "adapter_config.json"
"""If a folder holds this file, transformers loads the base that the file names instead, and adds the adapter to it."""


def refuse_code(source: str, name: str) -> None:
    """Refuse a model or tokenizer that needs its own code. No code of it runs.

    Args:
        source: A folder or a hub name.
        name: The base's name in the team file, for the error message.

    Raises:
        ConfigurationError: A config file names code that transformers would need.
        DataError: A config file is not a JSON object.
    """
    config, tokenizer = _described(source, CONFIG_NAME), _described(source, TOKENIZER_CONFIG)
    kind = config.get("model_type")
    known = {
        CONFIG_NAME: kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        TOKENIZER_CONFIG: kind in TOKENIZER_MAPPING_NAMES
        or tokenizer_class_from_name(str(tokenizer.get("tokenizer_class"))) is not None,
    }
    files = {CONFIG_NAME: config, TOKENIZER_CONFIG: tokenizer}
    for file, described in (*files.items(), (GENERATION_CONFIG_NAME, _described(source, GENERATION_CONFIG_NAME))):
        for key, value in _code(described):
            # transformers has this class itself, and with trust_remote_code=False it ignores the folder's code.
            if key == "auto_map" and known.get(file, False):
                continue
            raise ConfigurationError(
                f"base_model {name!r} needs code from its folder: {key} in its {file} names {value!r}, but this "
                "package never runs a model's code.",
                hint=f"use a model whose model_type is part of transformers; {kind!r} is not."
                if key.endswith("auto_map")
                else f"remove {key.split('.')[-1]} from a copy of the folder.",
            )


def refuse_pickles(source: str, name: str) -> None:
    """Refuse a model without safetensors weights. Nothing is unpickled.

    Args:
        source: A folder or a hub name.
        name: The base's name in the team file, for the error message.

    Raises:
        ConfigurationError: All weights are pickles, or the folder holds an adapter.
    """
    if _described(source, ADAPTER):
        raise ConfigurationError(
            f"base_model {name!r} is the folder of an adapter (it has {ADAPTER}), not of a base.",
            hint="give its base as base_model and this folder as `adapter.path`.",
        )
    pickled = _has(source, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)
    # Pickles beside safetensors do no harm: with use_safetensors=True transformers never reads them.
    if pickled and not _has(source, SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME):
        raise ConfigurationError(
            f"base_model {name!r} has its weights only in {WEIGHTS_NAME}, a pickle, which may run code when it is "
            "loaded.",
            hint="if you trust it, convert it to safetensors: load it with transformers and call `save_pretrained`.",
        )


def _described(source: str, file: str) -> dict[str, Any]:
    """The content of one of the model's JSON files; empty if there is no such file."""
    path = cached_file(
        source, file, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    if path is None:
        return {}
    try:
        described = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}.", hint="download the model again.") from error
    if not isinstance(described, dict):
        raise DataError(f"{path} is not a JSON object.", hint="download the model again.")
    return described


def _code(described: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Keys at any depth that name code, with their values: a module in the folder, or a kernel from a repository."""
    # A value like "owner/repo" in a field such as attn_implementation makes transformers download a kernel.
    for key, value in described.items() if isinstance(described, dict) else enumerate(described):
        here = f"{path}.{key}" if path else str(key)
        kernel = str(key).endswith("_implementation") and "/" in str(value)
        if (key in ("auto_map", "custom_generate") and value) or kernel:
            yield here, value
        elif isinstance(value, dict | list):
            yield from _code(value, here)


def _has(source: str, *files: str) -> bool:
    return any(has_file(source, file) for file in files)
