"""Read and write YAML as jsonargparse does: ``1e-3`` is a number, a date is text; refuse duplicate keys.

In PyYAML, which follows YAML 1.1, ``1e-3`` is a text and ``2026-01-01`` a date. In jsonargparse, as in YAML 1.2, they
are a number and a text. Text that would be read as a number is written in quotes.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from typing_extensions import override

_FLOAT = "tag:yaml.org,2002:float"
_EXPONENT = re.compile(r"^[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$")
_RESOLVERS = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_NO_KEYS = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:null", _FLOAT)
"""YAML types that a key must not have. YAML reads the key ``on`` as True, but its author meant the word."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _RESOLVERS


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = _RESOLVERS


_Loader.add_implicit_resolver(_FLOAT, _EXPONENT, list("-+0123456789"))  # into _RESOLVERS, so for the dumper too


class UniqueKeyLoader(_Loader):
    """Loader that refuses duplicate keys and keys that YAML reads as a bool, a null or a float."""

    @override
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} appears twice", key.start_mark
                )
            seen.add(key.value)
            if key.tag in _NO_KEYS:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} means {self.construct_object(key)!r} in YAML", key.start_mark
                )
        return super().construct_mapping(node, deep)


def parsed(text: str) -> Any:
    """Parse a command-line value as YAML; a value that is not valid YAML stays a string.

    Args:
        text: What stands behind the ``=`` of an option.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError:
        return text


def dumped(value: Any, *, one_line: bool = False) -> str:
    """Return a value as YAML text that jsonargparse reads back as the same value.

    Args:
        value: Nested dicts and lists of scalars.
        one_line: Whether the text is one line, for an option.
    """
    # ASCII only: PyYAML writes rare line breaks such as U+0085 as they are, and they come back as spaces.
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=one_line, width=2**20)
