"""Merge several config files into one: in ``--config TEAM --config CHANGES``, the later file wins.

jsonargparse alone replaces a mapping of free names, such as ``roles``, as a whole. Here a later file may change one
role and keep the others. The key ``"*"`` changes every role (or other key) of the earlier files. Lists are replaced. If
a later file names another class, the arguments of the earlier class are dropped.

``pkg:NAME`` is a config file inside the installed package. A duplicate key in a mapping is an error, because YAML would
silently keep the last one. ``--role`` is short for ``--run.role``.

Options win over files, in any order. An option whose value contains ``null`` is moved into the merged file, where null
means None. Reason: jsonargparse 4.53 turns a null in a nested block into the text "None".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from typing_extensions import override

from mgrpo_lightning.commands.references import parsed, resolved
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.names import CLASS_KEYS

PACKAGED = "pkg:"
EVERY = "*"
"""Wildcard key: it stands for all keys that the earlier files have in this block."""
_NO_KEYS = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:null", "tag:yaml.org,2002:float")
"""YAML types that a key must not have. YAML reads the key ``on`` as True, but its author meant the word."""


class UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML loader that refuses duplicate keys and keys that YAML reads as a bool, a null or a float."""

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
    """Replace the config files of a command line by one ``--config`` that holds the merged text.

    Args:
        arguments: Command line without the program's name. A single config file stays a path if nothing changes it.

    Raises:
        ConfigurationError: A file cannot be read or is no YAML mapping.
    """
    _require_text(arguments)
    rest, paths, nulls = _split(arguments)
    content = _merge_all(paths)
    for option, value in nulls:
        _set(content, option, value)
    found, rest = resolved(content, rest)
    if not paths and not nulls:
        return rest
    as_it_is = len(paths) == 1 and not nulls and found == content
    merged = paths[0] if as_it_is else yaml.safe_dump(found, sort_keys=False, allow_unicode=True)
    place = int(bool(rest) and not rest[0].startswith("-"))  # after the subcommand, whose parser knows --config
    return [*rest[:place], f"--config={merged}", *rest[place:]]


def _require_text(arguments: Sequence[str]) -> None:
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:  # Python keeps bytes that are not UTF-8 as lone surrogates
            raise ConfigurationError(
                f"{argument!r} on the command line is not UTF-8.", hint="give it in the encoding UTF-8."
            ) from error


def composed(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the merged content of the config files of a command line; other options are ignored.

    Args:
        arguments: Command line without the program's name.

    Raises:
        ConfigurationError: A file cannot be read or is no YAML mapping.
    """
    return _merge_all(_split(arguments)[1])


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str], list[tuple[str, Any]]]:
    """Split a command line into other words, config file paths, and options that move into the merged file.

    An option with a null moves. Earlier options for the same key, or for a block around it, move with it: otherwise
    they would win over the null, because options win over files.
    """
    words: list[tuple[str, str | None]] = []  # (option, value), or (word, None) for any other word
    paths: list[str] = []
    remaining = deque(arguments)
    while remaining:
        option, equals, value = remaining.popleft().partition("=")
        if option == "--role":  # short for --run.role
            option = "--run.role"
        if option in ("--config", "-c"):
            paths.append(_resolve(value if equals else remaining.popleft() if remaining else ""))
        elif option.startswith("--") and (equals or (remaining and not remaining[0].startswith("--"))):
            words.append((option, value if equals else remaining.popleft()))
        else:
            words.append((option + equals + value, None))
    moved: set[int] = set()
    for index, (option, text) in enumerate(words):
        if "." in option and text is not None and _holds_null(parsed(text)):
            before = {
                i for i, (other, text) in enumerate(words[:index]) if text and f"{option}.".startswith(f"{other}.")
            }
            moved |= {index, *before}
    rest = [word if text is None else f"{word}={text}" for i, (word, text) in enumerate(words) if i not in moved]
    return rest, paths, [(words[i][0].removeprefix("--"), parsed(words[i][1] or "")) for i in sorted(moved)]


def _holds_null(value: object) -> bool:
    if isinstance(value, dict | list):
        return any(map(_holds_null, value.values() if isinstance(value, dict) else value))
    return value is None


def _set(content: dict[str, Any], option: str, value: object) -> None:
    """Set one option in the merged config, in place. A string for a class block is its ``class_path``."""
    *blocks, last = option.split(".")
    block = content
    for name in blocks:
        block = _arguments(block, name)
        if not isinstance(block.get(name), dict):
            block[name] = {"class_path": found} if isinstance(found := block.get(name), str) else {}
        block = block[name]
    block = _arguments(block, last)
    if isinstance(block.get(last), dict) and isinstance(value, dict | str):
        value = _merge(block[last], value if isinstance(value, dict) else {"class_path": value})
    block[last] = value


def _arguments(block: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the mapping that holds a key of a block: ``init_args`` for a class, else the block itself."""
    if "class_path" not in block or name in CLASS_KEYS:
        return block
    if not isinstance(block.get("init_args"), dict):
        block["init_args"] = {}
    arguments: dict[str, Any] = block["init_args"]
    return arguments


def _resolve(path: str) -> str:
    return str(files("mgrpo_lightning.configs") / path.removeprefix(PACKAGED)) if path.startswith(PACKAGED) else path


def _merge_all(paths: Sequence[str]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for path in paths:
        merged = _merge(merged, _load(path))
    return merged


def _load(path: str) -> dict[str, Any]:
    try:
        # A rank that Lightning starts inherits sys.argv, where --config already holds the merged text, not a path.
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
        return changes  # arguments of the old class may not exist in the new one
    merged = dict(base)
    if EVERY in changes:  # changes to a key by its own name win over the wildcard
        changes = _merge(dict.fromkeys(base, changes[EVERY]), {k: v for k, v in changes.items() if k != EVERY})
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
