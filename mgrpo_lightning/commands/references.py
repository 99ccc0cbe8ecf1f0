"""Resolve references in a team file, such as ``${run.name}``, with OmegaConf.

A reference is the full dotted key from the top of the team file; ``init_args`` may be left out. Values of the keys in
``TEXTS`` are prompts for a model and contain no references. OmegaConf's other syntax, such as resolvers that read the
environment, is not supported; it is escaped or refused before OmegaConf sees it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mgrpo_lightning.commands.run_config import RunConfig
from mgrpo_lightning.errors import ConfigurationError

TEXTS = ("system_prompt", "description", "question")
"""Keys whose values are prompts for a model; ``${...}`` in them stays as written."""
BLOCKS = ("run", "model", "data", "trainer", "checkpoint", "export", "rollout_log", "alarm", "distributions", "results")
"""Top-level keys that a reference may start with. ``${100}`` and ``${HOME}`` are therefore plain text."""
_NAME = rf"(?:{'|'.join(BLOCKS)})(?:\.[\w-]+)+"
_REFERENCE = re.compile(rf"\$\{{{_NAME}\}}")
_OPENING = re.compile(rf"(\\*)\$\{{(?:({_NAME})\}})?")
_RESOLVER = re.compile(r"\$\{\s*[\w.]+\s*:")
_KEY = re.compile(r"--([\w-]+(?:\.[\w-]+)*)")
_ASKED = "_asked"
"""Temporary key of the tree: a value is stored here, and OmegaConf resolves it on reading."""


def resolved(content: dict[str, Any], options: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Replace the references in a team file and in command-line options by the values that they name.

    Args:
        content: The merged config files; not modified.
        options: Command-line words, ``--name=value`` or others; their values win over the files.

    Raises:
        ConfigurationError: A reference names a missing key or itself, or uses an OmegaConf resolver such as
            ``${oc.env:HOME}``.
    """
    values = _Values(content, options)
    return values.walk(content), [values.option(option) for option in options]


class _Values:
    """Tree of the values that references may name: the files, with the command-line options on top."""

    def __init__(self, content: Mapping[str, Any], options: Sequence[str]) -> None:
        known = _readable(dict(content))
        if isinstance(run := known.get("run", {}), dict):
            known["run"] = dataclasses.asdict(RunConfig()) | run
        self._tree = OmegaConf.create(known, flags={"allow_objects": True})  # YAML parses dates to objects
        for option in options:
            name, equals, text = option.partition("=")
            if equals and (key := _KEY.fullmatch(name)):
                path = _path(key[1])
                value = _readable(parsed(text), path.rpartition(".")[2])
                with contextlib.suppress(TypeError):  # a key inside a list: the parser gives the error later
                    old = OmegaConf.select(self._tree, path, throw_on_resolution_failure=False)
                    both = isinstance(value, dict) and isinstance(old, DictConfig)
                    OmegaConf.update(self._tree, path, value, merge=both, force_add=True)

    def option(self, option: str) -> str:
        name, equals, text = option.partition("=")
        if not (name.startswith("--") and equals) or "${" not in text:
            return option
        key = name.rpartition(".")[2].removeprefix("--")
        value = parsed(text)
        if not isinstance(value, dict | list):
            return f"{name}={self._leaf(key, text)}"
        found = self.walk(value, key)
        return option if found == value else f"{name}={yaml.safe_dump(found, default_flow_style=True, width=2**20)}"

    def walk(self, value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: self.walk(one, str(name)) for name, one in value.items()}
        if isinstance(value, list):
            return [self.walk(one, key) for one in value]
        return self._leaf(key, value) if isinstance(value, str) else value

    def _leaf(self, key: str, text: str) -> Any:
        readable = _readable(text, key)
        if key in TEXTS or not _REFERENCE.search(text):
            return text
        self._tree[_ASKED] = readable
        try:
            found = self._tree[_ASKED]
            return OmegaConf.to_container(found, resolve=True) if isinstance(found, DictConfig | ListConfig) else found
        except OmegaConfBaseException as error:
            raise ConfigurationError(
                f"{key} is {text!r}: {str(error).splitlines()[0]}.", hint="name another key, or write the value out."
            ) from error


def _readable(value: Any, key: str = "") -> Any:
    """Prepare a value for OmegaConf: drop ``init_args`` from keys and references, and escape any other ``${``."""
    if isinstance(value, dict):
        inner = value.get("init_args")
        flat = {**value, **inner} if isinstance(inner, dict) else value
        return {name: _readable(one, str(name)) for name, one in flat.items() if name != "init_args"}
    if isinstance(value, list):
        return [_readable(one, key) for one in value]
    if not isinstance(value, str) or "${" not in value:
        return value
    if key not in TEXTS and _RESOLVER.search(value):
        raise ConfigurationError(
            f"{key} is {value!r}, which is to come from outside of the team file.",
            hint="write the value; keys of services are named by key_variable.",
        )

    def escaped(found: re.Match[str]) -> str:
        slashes = found[1] * 2  # before ${, OmegaConf reads two backslashes as one
        if found[2] is None:
            return rf"{slashes}\${{"
        return f"{slashes}${{{_path(found[2])}}}" if key not in TEXTS else rf"{slashes}\${{{found[2]}}}"

    return _OPENING.sub(escaped, value)


def _path(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != "init_args")


def parsed(text: str) -> Any:
    """Parse a command-line value as YAML; a value that is not valid YAML stays a string.

    Args:
        text: What stands behind the ``=`` of an option.
    """
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
