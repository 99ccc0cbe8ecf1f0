"""Identity of an adapter (base hash, quantisation, rank, template, prompt): refuse a checkpoint of another model.

Checkpoints, exported adapters and journals store the identity. Continuing with a different one is an error that names
the parts that differ, unless the user accepts these with ``--run.accept_changes``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgrpo_lightning.errors import ConfigurationError, DataError

if TYPE_CHECKING:  # policy.py imports this module
    from mgrpo_lightning.policy.chat import Chat
    from mgrpo_lightning.policy.policy import Policy

Identity = dict[str, Any]
"""Value of each part: a string, a number, a list of strings, or for the base its name and hash."""
PARTS = (
    "base_model",
    "quantization",
    "compute_dtype",
    "adapter.rank",
    "adapter.alpha",
    "adapter.target_modules",
    "tokenizer",
    "chat_template",
    "system_prompt",
)
OF_A_START = ("base_model", "quantization")
"""Parts that the adapter in ``adapter.path`` must share. PEFT's own description covers rank, alpha and targets, and a
new run may start with another prompt."""
OF_A_CHAT = ("tokenizer", "chat_template")
"""Parts that a policy has before its base is loaded."""
FILE_NAME = "mgrpo_identity.json"
"""Name of the identity file in the folder of an exported adapter."""
ACCEPT = "run.accept_changes"
SHOWN = 48
"""Largest number of characters of a value in an error message."""


def identity_of(policy: Policy) -> Identity:
    """The identity of a policy's adapter."""
    config, base = policy.config, policy.base
    return {
        "base_model": {"name": base.name, "sha256": base.digest},
        "quantization": "nf4" if getattr(base.model, "is_loaded_in_4bit", False) else "none",
        "compute_dtype": str(base.model.dtype).removeprefix("torch."),
        "adapter.rank": config.adapter.rank,
        "adapter.alpha": config.adapter.alpha,
        "adapter.target_modules": sorted(config.adapter.target_modules),
        **identity_of_chat(policy.chat),
        "system_prompt": config.system_prompt if config.system_prompt is not None else _written(policy),
    }


def identity_of_chat(chat: Chat) -> Identity:
    """The parts ``OF_A_CHAT`` of an identity."""
    # A hash, because the tokenizer's JSON may have megabytes.
    return {"tokenizer": sha256(chat.vocabulary.encode()).hexdigest(), "chat_template": chat.source}


def _written(policy: Policy) -> str:
    """The settings from which the package writes the system prompt if the team file has none."""
    config = policy.config
    parts = (config.description, config.calls, config.discusses_with, config.tools)
    return f"written from {json.dumps(parts, ensure_ascii=False)}"


def known_parts(accepted: Collection[str]) -> tuple[str, ...]:
    """Require that all accepted names are in PARTS; return them as a tuple.

    Raises:
        ConfigurationError: A name is not in PARTS.
    """
    for name in accepted:
        if name not in PARTS:
            raise ConfigurationError(f"{ACCEPT} has the unknown part {name!r}.", hint=f"use {', '.join(PARTS)}.")
    return tuple(accepted)


def refuse_other(
    saved: Mapping[str, Identity],
    ours: Mapping[str, Identity],
    *,
    source: str,
    accepted: Collection[str] = (),
    parts: Collection[str] = PARTS,
) -> None:
    """Require that saved adapters fit the current policies.

    Args:
        saved: Saved identities by role. A missing part counts as equal.
        ours: Identities of the current policies by role.
        source: Name of the saved file in the error message.
        accepted: Parts that may differ.

    Raises:
        ConfigurationError: A part differs and is not accepted. The message names all such parts with both values.
    """
    found, told = [], []
    for role in ours.keys() & saved.keys():
        for part in parts:
            theirs, own = saved[role].get(part), ours[role][part]
            if part in saved[role] and part not in accepted and not _same(theirs, own):
                found.append(part)
                there, here = _shown(theirs, own)
                told.append(f"{role}'s {part} was {there} and is {here}")
    if found:
        # Name each part once, even if several roles differ in it, so that the hint is a valid command line.
        names = ",".join(part for part in PARTS if part in found)
        raise ConfigurationError(
            f"{source} belongs to another model: {'; '.join(sorted(told))}.",
            hint=f"restore the earlier settings, or accept the change with '--{ACCEPT}=[{names}]'.",
        )


def read_identity(folder: Path) -> Identity:
    """Read the identity of an exported adapter; empty if the folder has no identity file.

    Raises:
        DataError: The identity file is not a JSON object.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return {}
    try:
        identity = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} cannot be read: {error}.", hint="export the adapter again.") from error
    if not isinstance(identity, dict):
        raise DataError(f"{path} is not a JSON object.", hint="export the adapter again.")
    return identity


def write_identity(identity: Identity, folder: Path) -> None:
    """Write the identity file into the folder of an exported adapter."""
    (folder / FILE_NAME).write_text(json.dumps(identity, indent=2, ensure_ascii=False), encoding="utf-8")


def same_base(saved: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    """Whether two values of ``base_model`` are one base: by hash, because folders may have any name, else by name."""
    key = "sha256" if saved.get("sha256") and ours["sha256"] else "name"
    return bool(saved.get(key) == ours[key])


def _same(saved: Any, ours: Any) -> bool:
    """Whether two values of a part are equal."""
    return same_base(saved, ours) if isinstance(saved, dict) and isinstance(ours, dict) else bool(saved == ours)


def _shown(saved: Any, ours: Any) -> tuple[str, str]:
    """Both values as short strings. Of long values, the part around the first difference."""
    texts = []
    for value in (saved, ours):
        if isinstance(value, dict):
            value = f"{str(value.get('sha256') or 'without a hash')[:14]} ({value.get('name')})"
        texts.append(value if isinstance(value, str) else json.dumps(value))
    if max(map(len, texts)) > SHOWN:
        common = next((i for i, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts)))
        start = max(0, common - SHOWN // 4)
        texts = [("..." if start else "") + text[start : start + SHOWN] for text in texts]
    return repr(texts[0]), repr(texts[1])
