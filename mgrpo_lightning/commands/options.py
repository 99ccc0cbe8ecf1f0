"""Split a command line into ``--config`` files, dotted options and other words; expand ``--role``; find nulls to move.

Options win over files, in any order. An option moves into the merged file if its value contains ``null`` or if its key
is in ``model.defaults`` or in a role's ``reward.functions``. In the file, null means None; jsonargparse 4.53 turns a
null in a nested block into the text "None". jsonargparse does not know ``model.defaults``. For one key of a reward
function, it drops the function's other keys.

``--role`` is short for ``--run.role``; ``--model.init_args.x`` is ``--model.x``, and the same holds for ``data``.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from typing_extensions import override

from mgrpo_lightning.commands.yaml_text import parsed
from mgrpo_lightning.roles.team_file import ARGUMENTS, CLASSES, DEFAULTS, check_class

_ANY = re.compile("--.")
_OLD = re.compile(rf"({'|'.join(CLASSES)})\.{ARGUMENTS}(?=\.|$)")
_OF_THE_FILE = re.compile(rf"model\.({DEFAULTS}(\..+)?|roles\.[^.]+\.reward\.functions\..+)")


class Word(NamedTuple):
    """One option with its value, or another word."""

    key: str
    """Dotted key of the option, without dashes; empty for another word."""
    text: str
    """Value of the option, or the word."""

    @override
    def __str__(self) -> str:
        return f"--{self.key}={self.text}" if self.key else self.text

    @property
    def value(self) -> Any:
        """The value, parsed as YAML."""
        return parsed(self.text)


def split(arguments: Sequence[str]) -> tuple[list[str], list[Word], list[Word]]:
    """Split a command line into config files, options that move into the merged file, and all other words.

    Args:
        arguments: Command line without the program's name.

    Raises:
        ConfigurationError: An option names another class for ``model`` or ``data``.
    """
    paths: list[str] = []
    words: list[Word] = []
    remaining = deque(arguments)
    while remaining:
        option, equals, text = remaining.popleft().partition("=")
        if option in ("--config", "-c"):
            paths.append(text if equals else remaining.popleft() if remaining else "")
        elif _ANY.match(option) and (equals or (remaining and not remaining[0].startswith("--"))):
            words.append(Word(_key(option.removeprefix("--")), text if equals else remaining.popleft()))
        else:
            words.append(Word("", option + equals + text))
    words = [word for word in words if not _only_class(word)]
    moved = _moved(words)
    return paths, [words[i] for i in sorted(moved)], [word for i, word in enumerate(words) if i not in moved]


def _key(name: str) -> str:
    return "run.role" if name == "role" else _OLD.sub(r"\1", name)


def _only_class(word: Word) -> bool:
    """Whether an option only says the class that the block has anyway."""
    block, _, last = word.key.partition(".")
    if block not in CLASSES or last not in ("", "class_path") or isinstance(word.value, dict):
        return False
    check_class(block, word.value)
    return True


def _moved(words: Sequence[Word]) -> set[int]:
    """Return the indices of the options that move.

    Earlier options for the same key, or for a block around it, move with an option. Otherwise they would win over it,
    because options win over files.
    """
    moved: set[int] = set()
    for index, word in enumerate(words):
        if _OF_THE_FILE.fullmatch(word.key) or ("." in word.key and _holds_null(word.value)):
            before = {i for i, other in enumerate(words[:index]) if other.key and _within(word.key, other.key)}
            moved |= {index, *before}
    return moved


def _within(key: str, block: str) -> bool:
    return f"{key}.".startswith(f"{block}.")


def _holds_null(value: object) -> bool:
    if isinstance(value, dict | list):
        return any(map(_holds_null, value.values() if isinstance(value, dict) else value))
    return value is None
