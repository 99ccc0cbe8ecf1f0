"""References between the values of a team file: ``${run.name}``. Nothing else that looks so is looked up.

A reference names a key of the team file from the top, ``init_args`` left out or not. What a user writes for a model to
read (``TEXTS``) has none, whatever stands in it; no value comes from the environment.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.run_config import RunConfig

TEXTS = ("system_prompt", "description", "question")
"""Keys whose values are texts for a model."""
BLOCKS = ("run", "model", "data", "trainer", "checkpoint", "export", "rollout_log", "alarm", "distributions", "results")
"""Keys at the top of a team file with which a reference begins; ``${100}`` and ``${HOME}`` are text."""
_REFERENCE = re.compile(rf"\$\{{((?:{'|'.join(BLOCKS)})(?:\.[\w-]+)+)\}}")
_RESOLVER = re.compile(r"\$\{\s*[\w.]+\s*:")
_MISSING = object()


def resolved(content: dict[str, Any], options: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """A team file and options with the values in the places of their references.

    Args:
        content: The merged config files; it is not changed.
        options: Of the command line, ``--name=value`` or other words; they win over the files.

    Raises:
        ConfigurationError: A reference leads nowhere or to itself, or a value is to come from elsewhere, such as
            ``${oc.env:HOME}``.
    """
    values = _Values(content, options)
    return values.walk(content, ()), [values.option(option) for option in options]


class _Values:
    """What references may lead to.

    Args:
        content: The merged config files.
        options: Of the command line.
    """

    def __init__(self, content: Mapping[str, Any], options: Sequence[str]) -> None:
        self._sources: list[tuple[list[str], Any]] = [([], {"run": dataclasses.asdict(RunConfig())}), ([], content)]
        for option in options:
            name, equals, text = option.partition("=")
            if name.startswith("--") and equals:
                self._sources.append((_path(name.removeprefix("--")), _parsed(text)))

    def option(self, option: str) -> str:
        name, equals, text = option.partition("=")
        if not (name.startswith("--") and equals) or "${" not in text:
            return option
        key = name.rpartition(".")[2].removeprefix("--")
        value = _parsed(text)
        if not isinstance(value, dict | list):
            return f"{name}={self._leaf(key, text, ())}"
        found = self.walk(value, (), key)
        return option if found == value else f"{name}={yaml.safe_dump(found, default_flow_style=True, width=2**20)}"

    def walk(self, value: Any, seen: tuple[str, ...], key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: self.walk(one, seen, str(name)) for name, one in value.items()}
        if isinstance(value, list):
            return [self.walk(one, seen, key) for one in value]
        return self._leaf(key, value, seen) if isinstance(value, str) else value

    def _leaf(self, key: str, text: str, seen: tuple[str, ...]) -> Any:
        if key in TEXTS or "${" not in text:
            return text
        if _RESOLVER.search(text):
            raise ConfigurationError(
                f"{key} is {text!r}, which is to come from outside of the team file.",
                hint="write the value; keys of services are named by key_variable.",
            )
        if (whole := _REFERENCE.fullmatch(text)) is not None:
            return self._value(whole[1], seen)
        return _REFERENCE.sub(lambda found: str(self._value(found[1], seen)), text)

    def _value(self, name: str, seen: tuple[str, ...]) -> Any:
        if name in seen:
            raise ConfigurationError(f"${{{name}}} refers to itself.", hint="write one of the values out.")
        wanted = _path(name)
        value: Any = _MISSING
        for place, source in self._sources:
            if wanted[: len(place)] == place and (found := _at(source, wanted[len(place) :])) is not _MISSING:
                value = found
        if value is _MISSING:
            raise ConfigurationError(
                f"${{{name}}} refers to a key that is not set.", hint="set it in the team file, or write the value out."
            )
        return self.walk(value, (*seen, name), wanted[-1])


def _path(name: str) -> list[str]:
    return [part for part in name.split(".") if part != "init_args"]


def _at(value: Any, path: Sequence[str]) -> Any:
    for part in path:
        if isinstance(value, dict) and part not in value and isinstance(value.get("init_args"), dict):
            value = value["init_args"]
        if not isinstance(value, dict) or part not in value:
            return _MISSING
        value = value[part]
    return value


def _parsed(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
