"""Turn a jsonargparse error into one sentence: the full key, what was expected, and the closest known key.

jsonargparse describes every type that it tried, nested, and prints the whole config. This module keeps the innermost
reasons and the path of keys that leads to them.
"""

from __future__ import annotations

import difflib
import re
import sys
import typing
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser
from typing_extensions import override

from mgrpo_lightning.commands.config_files import composed
from mgrpo_lightning.errors import ConfigurationError, MgrpoError
from mgrpo_lightning.ranges import hints_of
from mgrpo_lightning.roles.team_file import roles_of
from mgrpo_lightning.tools.base import imported

# Patterns of jsonargparse's message texts. If a release changes a text, the user sees the original reason instead.
_KEY = re.compile(r'Parser key "(.+?)":\s*(.*)')
_CLASS = re.compile(r"Problem with given class_path '(.+)':")
_UNKNOWN = re.compile(
    r"(?:Group '(?P<group>.+)' does not accept option|Subcommand '.+' does not accept option|Option) '(?P<key>.+?)'.*"
)
_ARGUMENT = re.compile(r"(?i)unrecognized arguments: --(?P<key>[^=\s]+).*")
_REQUIRED = re.compile(r"the following arguments are required: (.+)")
_EXPECTED = re.compile(r"Expected an? (?:<class '(.+?)'>|(.+?))(?:\. Got value: .*)?")
_GOT = re.compile(
    r"Got value: (.*)|Expected a dot import path string: (.*)|Unable to load config \"(.*)\"|"
    r"Given value: NestedArg\(key='.*?', val=(.*)\)|Given value: (.*)"
)
_COMMAND = re.compile(r"^(fit|validate|test|predict)\.")
_ROLE = re.compile(r"--model\.roles\.(\w+)\.([\w.]+)")
_EVERY = "`mgrpo fit --print_config` shows every key."
_ENDS = ("Given value type:", "Given value:")
_NOISE = (
    "Does not validate against",
    "Subtypes:",
    "Errors:",
    "Expected a <class 'NoneType'>",
    "Subclass types expect one of:",
    "a class path (str)",
    "a dict with",  # with class_path entry, with parameters accepted by the base class; without class_path but ...
)
_MISSING = object()
_LONGEST = 300
"""Maximum length of a displayed reason, in characters."""


class TeamFileParser(LightningArgumentParser):
    """Lightning's parser with errors of one sentence that name the key, and role options that name a role in help."""

    @override
    def format_help(self, *args: Any, **kwargs: Any) -> str:
        """Return the help; for ``--model.roles.help``, with the options of a role as they can be given."""
        text = super().format_help(*args, **kwargs)
        if not (self.description or "").startswith("Help for --model.roles.help"):
            return text
        # Left out: options that work on this page only, and appending, which does not work inside a role.
        text = re.sub(r"  --model\.roles\.\S+\.help\n +Show the help .*\n|, --model\.roles\.\S+\+ \S+", "", text)
        return text.replace("--model.roles.", "--model.roles.ROLE.").replace("ROLE.help=", "help=")

    @override
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the error as a ``ConfigurationError``. Nested parsers raise as usual, so that the outer one sees it."""
        if not self.exit_on_error:
            super().error(message, ex)
        inner: BaseException | None = ex
        while inner is not None and not isinstance(inner, MgrpoError):
            inner = inner.__cause__
        if inner is not None:  # one of our classes raised it, so it is a clear sentence already
            raise inner
        asked = getattr(ex, "subcommand_parser", None) or self
        raise mistake(message, [action.dest for action in asked._actions], sys.argv[1:]) from ex


def mistake(message: str, keys: Sequence[str], arguments: Sequence[str]) -> ConfigurationError:
    """Make the error to show for a jsonargparse message.

    Args:
        message: Text of the jsonargparse error, many lines.
        keys: Dotted keys that the top-level parser knows.
        arguments: The command line. jsonargparse does not name the role; it is found here and in the config files.
    """
    path, classes, reasons = _read(message)
    *_, last = [None, *classes]  # the innermost class, or None without classes
    for reason in reasons:
        if (unknown := _UNKNOWN.fullmatch(reason) or _ARGUMENT.fullmatch(reason)) is not None:
            parts = unknown.groupdict()
            inner = ".".join(filter(None, (parts.get("group"), parts["key"])))
            return _no_key([*_with_role([*path, inner], arguments)[:-1]], inner, last, keys)
        if (missing := _REQUIRED.fullmatch(reason)) is not None:
            names = " and ".join(_COMMAND.sub("", name) for name in missing[1].split(", "))
            place = ".".join(_with_role(path, arguments))
            return ConfigurationError(
                f"{place} lacks {names}." if place else f"{names} is missing.",
                hint=f"give {names}{', or leave the block out' if place else ''}.",
            )
    if not path:
        return ConfigurationError(f"{_short('; '.join(reasons))}.", hint=_EVERY)
    got = _GOT.search(message)
    value = next(filter(None, got.groups())).strip("'\"") if got else None
    key = ".".join(_with_role(path, arguments, value))
    reasons = [reason for reason in dict.fromkeys(reasons) if not reason.startswith("Expected a path but")]
    expected = [found for reason in reasons if (found := _expected(reason))]
    if expected and len(expected) == len(reasons):
        given = "wrong" if value is None else _short(value)
        return ConfigurationError(f"{key} is {given}; it must be {' or '.join(dict.fromkeys(expected))}.", hint=_EVERY)
    return ConfigurationError(
        f"{key}: {_short('; '.join(reasons))}.", hint="correct the value; docs/team_file.md lists the allowed values."
    )


def _read(message: str) -> tuple[list[str], list[str], list[str]]:
    """Parse a message into the path of keys, the classes on that path, and the innermost reasons."""
    path: list[str] = []
    classes: list[str] = []
    reasons: list[str] = []
    for line in message.splitlines():
        text = line.strip().removeprefix("- ")
        if text.startswith(_ENDS):
            break  # the rest of the message repeats the enclosing blocks
        if (key := _KEY.fullmatch(text)) is not None:
            parts = key[1].split(".")
            path += parts if path[-len(parts) :] != parts else []  # a key may be reported twice in a row
            text = key[2]
        elif (found := _CLASS.fullmatch(text)) is not None:
            classes.append(found[1])
            continue
        if text and not text.startswith(_NOISE):
            reasons.append(text)
    return path, classes, reasons


def _with_role(path: list[str], arguments: Sequence[str], value: str | None = None) -> list[str]:
    """Insert the role into a path of keys: the one that has this key with this value, or the first of several."""
    if path[:2] != ["model", "roles"]:
        return path
    rest = ".".join(path[2:])
    options = [found for word in arguments if (found := _ROLE.match(word)) and f"{found[2]}.".startswith(f"{rest}.")]
    names = [found[1] for found in options]
    if not names:
        roles = roles_of(composed(arguments))
        places = {name: _at(role, rest) for name, role in roles.items()}
        names = [name for name, one in places.items() if one is not _MISSING and value in (None, str(one))]
    return [*path[:2], *names[:1], *path[2:]]


def _at(block: Any, key: str) -> object:
    for name in filter(None, key.split(".")):
        if not isinstance(block, Mapping) or name not in block:
            return _MISSING  # not None, because a value in the config may be null
        block = block[name]
    return block


def _no_key(path: Sequence[str], inner: str, class_path: str | None, keys: Sequence[str]) -> ConfigurationError:
    """Make the error for an unknown key of a class or of the parser; it suggests the closest known key."""
    wrong, known = _unknown_option(inner, keys) if class_path is None else _unknown(class_path, inner)
    names = {name.rpartition(".")[2]: name for name in known}
    near = difflib.get_close_matches(wrong.rpartition(".")[2], names, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    return ConfigurationError(f"{'.'.join([*path, wrong])} is not a key of a team file.", hint=f"{meant}{_EVERY}")


def _unknown_option(key: str, keys: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Return a dotted key up to its first part that the parser does not know, and the keys that it knows there."""
    place = ""
    for part in key.split("."):
        known = [one for one in keys if one.startswith(place)]
        if not any(f"{one}.".startswith(f"{place}{part}.") for one in known):
            return f"{place}{part}", [place + one.removeprefix(place).partition(".")[0] for one in known]
        place += f"{part}."
    return key, keys


def _unknown(class_path: str, inner: str) -> tuple[str, Sequence[str]]:
    """Return a dotted key up to its first unknown part, and the keys that are known at that place."""
    hint = imported(class_path)
    parts = inner.split(".")
    for index, part in enumerate(parts):
        known = hints_of(hint)
        inside = _class_in(known.get(part))
        if inside is None or index + 1 == len(parts):
            return ".".join(parts[: index + 1]), list(known)
        hint = inside  # descend into the class of this part
    raise AssertionError("a key has parts")


def _class_in(hint: Any) -> type | None:
    """Return the class in a type such as ``Limits | None``."""
    candidates = (*typing.get_args(hint), hint)
    return next((one for one in candidates if isinstance(one, type) and one is not type(None)), None)


def _expected(reason: str) -> str | None:
    if reason.startswith(("Expected a dot import path string", "Not a valid subclass of")):
        return "the dotted path of a class"
    if reason.startswith("Unable to load config"):
        return "a block of keys"
    if (found := _EXPECTED.fullmatch(reason)) is None:
        return None
    words = {"int": "an integer", "float": "a number", "str": "text", "bool": "true or false"}
    words |= {"list": "a list", "dict": "a block of keys"}
    choices = re.fullmatch(r"typing\.Literal\[(.+)\]", found[2] or "")
    return f"one of {choices[1]}" if choices else words.get(found[1] or "", found[1] or found[2])


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
