"""Merge team files: the later wins; ``"*"`` is every key; a new class drops arguments; ``model.defaults`` fills roles.

OmegaConf merges mappings key by key and replaces lists. Two rules are ours. The key ``"*"`` changes every key that the
earlier files have in its block. If a later file names another class, the arguments of the earlier class are dropped.
Team files are in the flat shape here, and escaped (``commands/references.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from omegaconf import OmegaConf

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.roles.team_file import DEFAULTS

EVERY = "*"
"""Wildcard key: it stands for all keys that the earlier files have in this block."""


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a team file with the changes of a later one.

    Args:
        base: The earlier files; not modified.
        changes: The later file; not modified.

    Raises:
        OmegaConfBaseException: A value or key is of a type that a team file cannot have, such as a set.
    """
    changes = _named(base, changes)
    both = OmegaConf.merge(OmegaConf.create(_cleared(base, changes)), OmegaConf.create(changes))
    return cast("dict[str, Any]", OmegaConf.to_container(both))


def _named(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the changes with names in place of ``EVERY``; changes to a key by its own name win over those."""
    if EVERY in changes:
        named = {key: value for key, value in changes.items() if key != EVERY}
        changes = merged(dict.fromkeys(base, changes[EVERY]), named)
    return {
        key: _named(_block(base.get(key)), value) if isinstance(value, dict) else value
        for key, value in changes.items()
    }


def _cleared(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the base with None for each value that the changes replace as a whole; OmegaConf sets it then."""
    cleared = dict(base)
    for key in base.keys() & changes.keys():
        old, new = base[key], changes[key]
        both = isinstance(old, dict) and isinstance(new, dict)
        cleared[key] = _cleared(old, new) if both and not _other_class(old, new) else None
    return cleared


def _other_class(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    one, other = old.get("class_path"), new.get("class_path", old.get("class_path"))
    if isinstance(one, str) and isinstance(other, str) and not ("." in one and "." in other):
        return one.rpartition(".")[2] != other.rpartition(".")[2]  # one of them is a short name
    return bool(one != other)


def _block(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def with_option(content: Mapping[str, Any], key: Sequence[str], value: Any) -> dict[str, Any]:
    """Return a team file with the value of one option.

    Args:
        content: The team file; not modified.
        key: Keys from the top to the value.
        value: The value, escaped. A string for a class block is its ``class_path``.
    """
    return merged(content, _as_changes(content, key, value))


def _as_changes(content: Mapping[str, Any], key: Sequence[str], value: Any) -> dict[str, Any]:
    first, *others = key
    old = content.get(first)
    if others:
        named = {"class_path": old} if isinstance(old, str) else {}
        return {first: {**named, **_as_changes(_block(old), others, value)}}
    return {first: {"class_path": value} if isinstance(old, dict) and isinstance(value, str) else value}


def completed(content: Mapping[str, Any], more: Iterable[str]) -> dict[str, Any]:
    """Return a team file in which every role has ``model.defaults``; the keys of a role win. An empty role is allowed.

    Args:
        content: The merged team file; not modified.
        more: Roles of which only options say something.

    Raises:
        ConfigurationError: ``model.defaults`` is no mapping.
    """
    model = _block(content.get("model"))
    roles = model.get("roles")
    if not isinstance(roles, dict):
        return dict(content)
    defaults = model.get(DEFAULTS) or {}
    if not isinstance(defaults, dict):
        raise ConfigurationError(
            f"model.{DEFAULTS} is {defaults!r}; it must be a block of keys.", hint="write keys of a role in it."
        )
    blocks = {**(dict.fromkeys(more) if defaults else {}), **roles}
    blocks = {name: {} if block is None else block for name, block in blocks.items()}
    every = {name: merged(defaults, block) if isinstance(block, dict) else block for name, block in blocks.items()}
    return {**content, "model": {**model, "roles": every}}
