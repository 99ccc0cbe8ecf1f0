"""What an adapter belongs to: the parts of a policy without which its numbers are another model's.

Checkpoints, exported adapters and journals carry them; who goes on with one under other parts is told which differ.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgrpo_lightning.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from mgrpo_lightning.policy.policy import Policy

Identity = dict[str, Any]
"""Values by part: texts, numbers, lists of texts, and for the base a name with its hash."""
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
"""Parts that a folder as ``adapter.path`` must share; its rank, alpha and targets are in PEFT's own description, and
its prompt may be another: a new run begins with it."""
FILE_NAME = "mgrpo_identity.json"
"""Beside an exported adapter."""
ACCEPT = "run.accept_changes"
SHOWN = 48
"""Characters of a value in an error."""


def identity_of(policy: Policy) -> Identity:
    """The parts of one policy.

    Args:
        policy: As it is played and trained.
    """
    config, base = policy.config, policy.base
    return {
        "base_model": {"name": base.name, "sha256": base.digest},
        "quantization": "nf4" if getattr(base.model, "is_loaded_in_4bit", False) else "none",
        "compute_dtype": str(base.model.dtype).removeprefix("torch."),
        "adapter.rank": config.adapter.rank,
        "adapter.alpha": config.adapter.alpha,
        "adapter.target_modules": sorted(config.adapter.target_modules),
        "tokenizer": sha256(policy.chat.vocabulary.encode()).hexdigest(),
        "chat_template": policy.chat.source,
        "system_prompt": config.system_prompt if config.system_prompt is not None else _written(policy),
    }


def _written(policy: Policy) -> str:
    """What a system prompt is written from where the team file has none."""
    config = policy.config
    parts = (config.description, config.calls, config.discusses_with, config.tools)
    return f"written from {json.dumps(parts, ensure_ascii=False)}"


def known_parts(accepted: Collection[str]) -> tuple[str, ...]:
    """Require that only parts are accepted which there are.

    Args:
        accepted: Names of parts.

    Raises:
        ConfigurationError: One is no part.
    """
    for name in accepted:
        if name not in PARTS:
            raise ConfigurationError(f"{ACCEPT} names {name!r}.", hint=f"the parts are {', '.join(PARTS)}.")
    return tuple(accepted)


def refuse_other(
    saved: Mapping[str, Identity],
    ours: Mapping[str, Identity],
    *,
    source: str,
    accepted: Collection[str] = (),
    parts: Collection[str] = PARTS,
) -> None:
    """Require that policies are what something saved belongs to.

    Args:
        saved: Its identities by role; a part that it does not carry differs from nothing.
        ours: Those of the policies, by role.
        source: What the error calls it.
        accepted: Parts that may differ.
        parts: Parts that are compared.

    Raises:
        ConfigurationError: A part differs that is not accepted; all of them are named with both values.
    """
    found, told = [], []
    for role in ours.keys() & saved.keys():
        for part in parts:
            theirs, own = saved[role].get(part), ours[role][part]
            if part in saved[role] and part not in accepted and not _same(theirs, own):
                found.append(part)
                there, here = _shown(theirs, own)
                told.append(f"{role}'s {part} is {there} there, {here} here")
    if found:
        names = ",".join(part for part in PARTS if part in found)
        raise ConfigurationError(
            f"{source} belongs to another model: {'; '.join(sorted(told))}.",
            hint=f"give what it was made with, or accept the change with '--{ACCEPT}=[{names}]'.",
        )


def read_identity(folder: Path) -> Identity:
    """What an exported adapter belongs to; nothing if it does not say.

    Args:
        folder: Of the adapter.

    Raises:
        DataError: It cannot be read.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return {}
    try:
        identity = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} cannot be read: {error}.", hint="export the adapter again.") from error
    if not isinstance(identity, dict):
        raise DataError(f"{path} is no JSON object.", hint="export the adapter again.")
    return identity


def write_identity(identity: Identity, folder: Path) -> None:
    """Put it beside an exported adapter.

    Args:
        identity: Of the policy.
        folder: Of the adapter.
    """
    (folder / FILE_NAME).write_text(json.dumps(identity, indent=2, ensure_ascii=False), encoding="utf-8")


def _same(saved: Any, ours: Any) -> bool:
    """Bases are told by their hash, whatever the folder is called; by name where one has none."""
    if isinstance(saved, dict) and isinstance(ours, dict):
        key = "sha256" if saved.get("sha256") and ours["sha256"] else "name"
        saved, ours = saved.get(key), ours[key]
    return bool(saved == ours)


def _shown(saved: Any, ours: Any) -> tuple[str, str]:
    """Both values in short: of long ones, the part in which they begin to differ."""
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
