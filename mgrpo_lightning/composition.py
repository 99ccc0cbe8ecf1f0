"""Composing a run of several config files: ``--config TEAM --config CHANGES`` merges them, the later one wins.

jsonargparse replaces a mapping of free names, such as ``roles``, as a whole; here a file of changes may name one role
and leave the others. Lists are replaced, and so are the arguments of a class in whose place comes another.
``pkg:NAME`` is the config of that name inside the installed package. A key that stands twice in one mapping, for
instance a role, is refused: YAML would silently keep the last. ``--role`` is short for ``--run.role``.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from typing_extensions import override

from mgrpo_lightning.errors import ConfigurationError

PACKAGED = "pkg:"
_NO_KEYS = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:null", "tag:yaml.org,2002:float")
"""Of a key that is one of these, such as ``on``, somebody has meant the word."""


class UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML in which no key may stand twice in a mapping, and none is a word that YAML takes for a value."""

    @override
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            seen.add(key.value)
            if key.tag in _NO_KEYS:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} means {self.construct_object(key)!r} in YAML", key.start_mark
                )
        return super().construct_mapping(node, deep)


def compose(arguments: Sequence[str]) -> list[str]:
    """The command line with its config files merged into one, given as text.

    Args:
        arguments: Without the program's name. A single config file stays a path.

    Raises:
        ConfigurationError: A file cannot be read or is no YAML mapping.
    """
    rest, paths, place = _split(arguments)
    if not paths:
        return rest
    content = _merge_all(paths)
    merged = paths[0] if len(paths) == 1 else yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    return [*rest[:place], f"--config={merged}", *rest[place:]]


def composed(arguments: Sequence[str]) -> dict[str, Any]:
    """What the config files of a command line say together; its other options are not read.

    Args:
        arguments: Without the program's name.

    Raises:
        ConfigurationError: A file cannot be read or is no YAML mapping.
    """
    return _merge_all(_split(arguments)[1])


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str], int]:
    """Everything but the config files, their paths, and where among the rest the first of them stood."""
    rest: list[str] = []
    paths: list[str] = []
    place = 0
    remaining = iter(arguments)
    for argument in remaining:
        option, equals, value = argument.partition("=")
        if option == "--role":  # short for --run.role
            argument = f"--run.role{equals}{value}"
        if option in ("--config", "-c"):
            place = place or len(rest)
            paths.append(_resolve(value if equals else next(remaining, "")))
        else:
            rest.append(argument)
    return rest, paths, place


def _resolve(path: str) -> str:
    return str(files("mgrpo_lightning.configs") / path.removeprefix(PACKAGED)) if path.startswith(PACKAGED) else path


def _merge_all(paths: Sequence[str]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for path in paths:
        merged = _merge(merged, _load(path))
    return merged


def _load(path: str) -> dict[str, Any]:
    try:
        # text, not a path, where a rank has been started with what another one had composed
        text = path if "\n" in path else Path(path).read_text(encoding="utf-8")
        content = yaml.load(text, UniqueKeyLoader)
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"config file {path!r} is not UTF-8: {error}.", hint="save it as UTF-8.") from error
    except OSError as error:
        raise ConfigurationError(
            f"config file {path!r} cannot be read: {error.strerror}.",
            hint="check the path; packaged ones are pkg:NAME.",
        ) from error
    except yaml.YAMLError as error:
        raise ConfigurationError(
            f"config file {path!r} is no valid YAML: {error}.", hint="correct that line."
        ) from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"config file {path!r} holds no mapping.", hint="see configs/quickstart.yaml.")
    return content


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    if changes.get("class_path", base.get("class_path")) != base.get("class_path"):
        return changes  # another class has arguments of its own
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
