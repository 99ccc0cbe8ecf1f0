"""Compose one config from all ``--config`` files: load YAML or ``pkg:NAME``, merge, apply options, resolve references.

In ``--config TEAM --config CHANGES``, the later file wins. ``pkg:NAME`` is a config file inside the installed package.
A duplicate key in a mapping is an error, because YAML would silently keep the last one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from omegaconf.errors import OmegaConfBaseException

from mgrpo_lightning.commands.merging import completed, merged, with_option
from mgrpo_lightning.commands.options import Word, split
from mgrpo_lightning.commands.references import escaped, has_reference, resolved
from mgrpo_lightning.commands.run_config import RunConfig
from mgrpo_lightning.commands.yaml_text import UniqueKeyLoader, dumped
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.roles.team_file import DEFAULTS, flat, flat_key, nested

PACKAGED = "pkg:"
_KEY = re.compile(r"[\w-]+(?:\.[\w-]+)*")
_ROLE = re.compile(r"model\.roles\.([^.]+)\..+")


def compose(arguments: Sequence[str]) -> list[str]:
    """Replace the config files of a command line by one ``--config`` that holds the merged text.

    Args:
        arguments: Command line without the program's name. A single config file stays a path if nothing changes it.

    Raises:
        ConfigurationError: A file cannot be read or is no YAML mapping, a reference leads nowhere, or the arguments are
            not UTF-8.
    """
    _require_text(arguments)
    paths, moved, words = split(arguments)
    loaded = [_load(path) for path in paths]
    content = _content(paths, loaded, moved, words)
    known = _known(content, words)
    rest = [_resolved_word(word, known) for word in words]
    if not paths and not moved:
        return rest
    found = nested(_resolved(content, known))
    as_it_is = loaded == [found] and not moved
    merged = _path(paths[0]) if as_it_is else dumped(found)
    place = int(bool(rest) and not rest[0].startswith("-"))  # after the subcommand, whose parser knows --config
    return [*rest[:place], f"--config={merged}", *rest[place:]]


def composed(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the content of the config files of a command line in the flat shape, merged, completed and resolved.

    References see the options; the content has only those options that ``compose`` moves into the merged file.

    Args:
        arguments: Command line without the program's name.

    Raises:
        ConfigurationError: A file cannot be read or is no YAML mapping, or a reference leads nowhere.
    """
    paths, moved, words = split(arguments)
    content = _content(paths, [_load(path) for path in paths], moved, words)
    return _resolved(content, _known(content, words))


def with_options(arguments: Sequence[str], blocks: Collection[str]) -> dict[str, Any]:
    """Return ``composed`` with all options on top, as far as they are keys of some blocks.

    Args:
        arguments: Command line without the program's name.
        blocks: Names of the blocks.

    Raises:
        ConfigurationError: As in ``composed``.
    """
    paths, moved, words = split(arguments)
    content = _content(paths, [_load(path) for path in paths], moved, words)
    for word in words:
        if _KEY.fullmatch(word.key) and word.key.partition(".")[0] in blocks:
            content = _with_word(content, word)
    return _resolved(content, content)


def _require_text(arguments: Sequence[str]) -> None:
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:  # Python keeps bytes that are not UTF-8 as lone surrogates
            raise ConfigurationError(
                f"{argument!r} on the command line is not UTF-8.", hint="encode it as UTF-8."
            ) from error


def _content(
    paths: Sequence[str], loaded: Sequence[dict[str, Any]], moved: Sequence[Word], words: Sequence[Word]
) -> dict[str, Any]:
    """Return the merged and completed files, flat and escaped."""
    content: dict[str, Any] = {}
    for path, one in zip(paths, loaded, strict=True):
        try:
            content = merged(content, escaped(flat(one)))
        except OmegaConfBaseException as error:
            raise _no_value(f"config file {path!r}", error) from error
    for word in moved:
        content = _with_word(content, word)
    return completed(content, [found[1] for word in words if (found := _ROLE.fullmatch(word.key))])


def _with_word(content: Mapping[str, Any], word: Word) -> dict[str, Any]:
    keys = flat_key(word.key).split(".")
    try:
        return with_option(content, keys, escaped(word.value, keys[-1]))
    except OmegaConfBaseException as error:
        raise _no_value(f"--{word.key}", error) from error


def _no_value(place: str, error: OmegaConfBaseException) -> ConfigurationError:
    """Make the error for a value or key of a type that a team file cannot have, such as a set."""
    reason = str(error).splitlines()[0]
    return ConfigurationError(f"{place}: {reason}.", hint="give a text, a number, a list or a block.")


def _known(content: Mapping[str, Any], words: Sequence[Word]) -> dict[str, Any]:
    """Return what references may name: the files, with the options on top."""
    known = dict(content)
    if isinstance(run := known.get("run", {}), dict):
        known["run"] = asdict(RunConfig()) | run
    if has_reference(str([content, *words])):
        for word in words:
            if _KEY.fullmatch(word.key):
                known = _with_word(known, word)
    return known


def _resolved(content: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    found = resolved(content, known)
    if isinstance(model := found.get("model"), dict):
        model.pop(DEFAULTS, None)  # every role has them now
    return found


def _resolved_word(word: Word, known: Mapping[str, Any]) -> str:
    if not word.key or "${" not in word.text:
        return str(word)
    whole = isinstance(word.value, dict | list)
    value = word.value if whole else word.text
    found = resolved({word.key: escaped(value, word.key.rpartition(".")[2])}, known)[word.key]
    if found == value:
        return str(word)
    return f"--{word.key}={dumped(found, one_line=True) if isinstance(found, dict | list) else found}"


def _path(path: str) -> str:
    return str(files("mgrpo_lightning.configs") / path.removeprefix(PACKAGED)) if path.startswith(PACKAGED) else path


def _load(path: str) -> dict[str, Any]:
    path = _path(path)
    try:
        # A rank that Lightning starts inherits sys.argv, where --config already holds the merged text, not a path.
        text = path if "\n" in path else Path(path).read_text(encoding="utf-8")
        content = yaml.load(text, UniqueKeyLoader)
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"config file {path!r} is not UTF-8: {error}.", hint="save it as UTF-8.") from error
    except OSError as error:
        raise ConfigurationError(
            f"config file {path!r} cannot be read: {error.strerror}.",
            hint="correct the path; a config file of the package is named pkg:NAME.",
        ) from error
    except yaml.YAMLError as error:
        raise ConfigurationError(
            f"config file {path!r} is not valid YAML: {error}.", hint="correct that line."
        ) from error
    if not isinstance(content, dict):
        raise ConfigurationError(
            f"config file {path!r} is not a mapping.", hint="write keys and values, as in configs/quickstart.yaml."
        )
    return content
