"""Composing a run of several config files: ``--config TEAM --config CHANGES`` merges them, the later one wins.

jsonargparse replaces a mapping of free names, such as ``roles``, as a whole; here a file of changes may name one role
and leave the others, or say ``"*"`` for every one that the files before it have. Lists are replaced, and so are the
arguments of a class in whose place comes another.
``pkg:NAME`` is the config of that name inside the installed package. A key that stands twice in one mapping, for
instance a role, is refused: YAML would silently keep the last. ``--role`` is short for ``--run.role``.

Options win over files, in whatever order both stand. An option with a ``null`` in its value becomes a part of the
merged file, where it means None: jsonargparse 4.53 makes the text "None" of a null in a block that is inside of a
block.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from typing_extensions import override

from mgrpo_lightning.commands.references import resolved
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.names import CLASS_KEYS

PACKAGED = "pkg:"
EVERY = "*"
"""A key that stands for all keys of the block in the files before."""
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
    place = int(bool(rest) and not rest[0].startswith("-"))  # behind the subcommand
    return [*rest[:place], f"--config={merged}", *rest[place:]]


def _require_text(arguments: Sequence[str]) -> None:
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:  # Python keeps other bytes as half surrogates
            raise ConfigurationError(
                f"{argument!r} on the command line is not UTF-8.", hint="give it in the encoding UTF-8."
            ) from error


def composed(arguments: Sequence[str]) -> dict[str, Any]:
    """What the config files of a command line say together; its other options are not read.

    Args:
        arguments: Without the program's name.

    Raises:
        ConfigurationError: A file cannot be read or is no YAML mapping.
    """
    return _merge_all(_split(arguments)[1])


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str], list[tuple[str, Any]]]:
    """Everything but config files and nulls; paths of the files; options with nulls and their values.

    Options with nulls stand behind those that came before them for the same key, or for a block around it.
    """
    words: list[tuple[str, str | None]] = []  # an option and its value, or a word and None
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
        if "." in option and text is not None and _holds_null(_parsed(text)):
            before = {
                i for i, (other, text) in enumerate(words[:index]) if text and f"{option}.".startswith(f"{other}.")
            }
            moved |= {index, *before}
    rest = [word if text is None else f"{word}={text}" for i, (word, text) in enumerate(words) if i not in moved]
    return rest, paths, [(words[i][0].removeprefix("--"), _parsed(words[i][1] or "")) for i in sorted(moved)]


def _parsed(text: str) -> Any:
    """A value of the command line; one that is no YAML is a text."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _holds_null(value: object) -> bool:
    if isinstance(value, dict | list):
        return any(map(_holds_null, value.values() if isinstance(value, dict) else value))
    return value is None


def _set(content: dict[str, Any], option: str, value: object) -> None:
    """Give a key of a config the value of an option; a class may be given by its name alone."""
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
    """Where a key of a block stands."""
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
    if EVERY in changes:  # what is said of one by its name wins
        changes = _merge(dict.fromkeys(base, changes[EVERY]), {k: v for k, v in changes.items() if k != EVERY})
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
