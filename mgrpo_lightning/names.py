"""Check the names of roles, tools and reward functions: characters, length, reserved words, YAML words, duplicates.

A role's name is a YAML key, a part of a command-line option, a folder name and the first half of a metric's name. It is
never a part of a module's or parameter's name, so torch and peft do not see it. A tool's name is text that a policy
writes in a call.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import yaml

from mgrpo_lightning.errors import ConfigurationError

_ROLE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_TOOL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")

FOLDERS = (
    *("adapters", "best", "checkpoints", "journal", "locks", "resume_logs", "predictions", "stop", "store"),
    "tensorboard",
)
"""Folders in a run folder, beside those of roles that run in their own process."""
METRICS = ("judge", "seconds", "val")
"""First halves of metric names that are not roles."""
SCORES = ("std", "total", "failed", "functions")
"""Second halves of metric names and of journal columns that are not reward functions."""
CLASS_KEYS = ("class_path", "dict_kwargs", "init_args")
"""Keys that mark a class block in a config file."""


def check_roles(names: Iterable[object]) -> None:
    """Reject names that a role cannot have.

    Args:
        names: Names of all roles of a team.

    Raises:
        ConfigurationError: A name contains other characters than letters, digits and underscores, is too long, is not a
            string in YAML, is reserved (command line, run folder or metrics), or differs from another name only in
            case.
    """
    seen: dict[str, str] = {}
    for name in names:
        if not isinstance(name, str) or not _ROLE.fullmatch(name):
            raise ConfigurationError(
                f"a role is called {name!r}.",
                hint="start its name with a letter, and use letters, digits and underscores only, 64 at most.",
            )
        # YAML reads some plain words as other types: `no` and `off` are booleans, `null` is None.
        if yaml.safe_load(name) != name:
            raise ConfigurationError(
                f"a role is called {name!r}, which YAML reads as {yaml.safe_load(name)!r}.",
                hint=f"use another name, such as {name}_role.",
            )
        if name.lower() in (*FOLDERS, *METRICS, *CLASS_KEYS):
            raise ConfigurationError(
                f"a role is called {name!r}, a name that is reserved for run folders, metrics or the command line.",
                hint=f"use another name, such as {name}_role.",
            )
        # Case-insensitive file systems map `Main` and `main` to one folder.
        if (other := seen.setdefault(name.lower(), name)) != name:
            raise ConfigurationError(
                f"roles are called {other!r} and {name!r}, which are the same folder on some machines.",
                hint="rename one of them.",
            )


def check_functions(names: Iterable[object], components: Iterable[str]) -> None:
    """Reject names that a reward function cannot have. They are parts of metric names and keys of a team file.

    Args:
        names: Names of the reward functions of a role.
        components: Names of the reward components of the paper.

    Raises:
        ConfigurationError: A name contains other characters than letters, digits and underscores, is too long, or is
            reserved.
    """
    for name in names:
        if not isinstance(name, str) or not _ROLE.fullmatch(name):
            raise ConfigurationError(
                f"a reward function is called {name!r}.",
                hint="start its name with a letter, and use letters, digits and underscores only, 64 at most.",
            )
        if name in (*components, *SCORES, *CLASS_KEYS):
            raise ConfigurationError(
                f"a reward function is called {name!r}, which has another meaning.",
                hint=f"use another name, such as my_{name}.",
            )


def check_tools(role: str, tools: Iterable[str], callees: Iterable[str]) -> None:
    """Reject tool names that a call cannot contain, and names that are used twice in one role.

    Args:
        role: The role that has the tools.
        tools: Names of its tools, as they appear in calls.
        callees: Roles that it may call.

    Raises:
        ConfigurationError: A name contains other characters than letters, digits and ``_.-``, or two tools or a tool
            and a role have the same name.
    """
    taken = dict.fromkeys(callees, "role")
    for name in tools:
        if not _TOOL.fullmatch(name):
            raise ConfigurationError(
                f"role {role!r} has a tool called {name!r}.",
                hint="name tools with letters, digits, underscores, dots and hyphens, 128 at most.",
            )
        if name in taken:
            raise ConfigurationError(
                f"role {role!r} may call two things called {name!r}: a tool and a {taken[name]}.",
                hint="rename or remove one: a call has only the name.",
            )
        taken[name] = "tool"
