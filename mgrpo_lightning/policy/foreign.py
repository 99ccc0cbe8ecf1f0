"""Refuse a base that needs code of its own, or whose weights are pickles, before transformers reads it.

Whoever may write to a model's folder must not be able to run anything here. transformers would ask on the terminal
whether to run a folder's code, and take a ``y`` from a pipe; every call that loads says ``trust_remote_code=False`` and
``use_safetensors=True`` as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers.utils import (
    CONFIG_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
)
from transformers.utils.hub import cached_file, has_file

from mgrpo_lightning.errors import ConfigurationError, DataError

ADAPTER = "adapter_config.json"
"""With it in a folder, transformers would load another base, the one that it names, and put its adapter on."""


def refuse_code(source: str, name: str) -> None:
    """Refuse a model or tokenizer with code of its own; nothing of it is run.

    Args:
        source: A folder or a hub name.
        name: As the team file says it.

    Raises:
        ConfigurationError: Its description names code.
        DataError: A file that describes it is no JSON object.
    """
    for file in (CONFIG_NAME, "tokenizer_config.json", "generation_config.json"):
        for key, value in _code(_described(source, file)):
            raise ConfigurationError(
                f"base_model {name!r} brings code of its own: {key} in its {file} names {value!r}; no code of a model "
                "is ever run here.",
                hint="take a model that transformers has itself. If it has this one's model_type, remove "
                f"{key.split('.')[-1]} from a copy of the folder.",
            )


def refuse_pickles(source: str, name: str) -> None:
    """Refuse a folder without weights that are plain data; nothing of it is unpickled.

    Args:
        source: A folder or a hub name.
        name: As the team file says it.

    Raises:
        ConfigurationError: Its weights are pickles only, or it is an adapter.
    """
    if _described(source, ADAPTER):
        raise ConfigurationError(
            f"base_model {name!r} holds an adapter ({ADAPTER}), not a base alone.",
            hint="name its base as base_model and the folder as `adapter.path`.",
        )
    pickled = _has(source, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)
    if pickled and not _has(source, SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME):
        raise ConfigurationError(
            f"base_model {name!r} has its weights in {WEIGHTS_NAME} only: a pickle, which may run code when it is "
            "read.",
            hint="convert it to safetensors where you trust it: load it with transformers and `save_pretrained` it.",
        )


def _described(source: str, file: str) -> dict[str, Any]:
    """What one of its files says, nothing where there is no such file."""
    path = cached_file(
        source, file, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    if path is None:
        return {}
    try:
        described = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is no JSON: {error}.", hint="get the model again.") from error
    if not isinstance(described, dict):
        raise DataError(f"{path} is no JSON object.", hint="get the model again.")
    return described


def _code(described: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Keys at any depth that name code, and their values: a module beside the file, or a kernel of some repository."""
    for key, value in described.items() if isinstance(described, dict) else enumerate(described):
        here = f"{path}.{key}" if path else str(key)
        kernel = str(key).endswith("_implementation") and "/" in str(value)
        if (key in ("auto_map", "custom_generate") and value) or kernel:
            yield here, value
        elif isinstance(value, dict | list):
            yield from _code(value, here)


def _has(source: str, *files: str) -> bool:
    return any(has_file(source, file) for file in files)
