"""Names of roles and tools: one rule, checked before anything is made of them.

A role's name is a key of a YAML mapping, a part of an option, a folder, and the first half of a metric. It is no part
of a module's or parameter's name, so torch and peft never see it. A tool's name is text that a policy writes in a call.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import yaml

from mgrpo_lightning.errors import ConfigurationError

_ROLE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_TOOL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")

FOLDERS = ("adapters", "checkpoints", "journal", "open_steps", "predictions", "stop", "store", "tensorboard")
"""What stands in a run folder, beside the folders of roles that have processes of their own."""
METRICS = ("judge", "seconds", "val")
"""What stands before the slash of a metric, beside roles."""
CLASS_KEYS = ("class_path", "dict_kwargs", "init_args")
"""Keys by which the command line knows the block of a class."""


def check_roles(names: Iterable[object]) -> None:
    """Refuse names that a role cannot have.

    Args:
        names: Of all roles of a team.

    Raises:
        ConfigurationError: A name is not of letters, digits and underscores, is too long, means something else to YAML,
            the command line, the run folder or the metrics, or differs from another one in its case alone.
    """
    seen: dict[str, str] = {}
    for name in names:
        if not isinstance(name, str) or not _ROLE.fullmatch(name):
            raise ConfigurationError(
                f"a role is called {name!r}.",
                hint="begin its name with a letter and go on with letters, digits and underscores, 64 at most.",
            )
        if yaml.safe_load(name) != name:
            raise ConfigurationError(
                f"a role is called {name!r}, which YAML reads as {yaml.safe_load(name)!r}.",
                hint=f"take another name, such as {name}_role.",
            )
        if name.lower() in (*FOLDERS, *METRICS, *CLASS_KEYS):
            raise ConfigurationError(
                f"a role is called {name!r}, a name that the run folder, its metrics or the command line need.",
                hint=f"take another name, such as {name}_role.",
            )
        if (other := seen.setdefault(name.lower(), name)) != name:
            raise ConfigurationError(
                f"roles are called {other!r} and {name!r}, which is one folder on some machines.",
                hint="rename one of them.",
            )


def check_tools(role: str, tools: Iterable[str], callees: Iterable[str]) -> None:
    """Refuse names of tools that a call cannot have, or that a role would have twice.

    Args:
        role: Who may call.
        tools: Names of its tools, as calls have them.
        callees: Roles that it may call.

    Raises:
        ConfigurationError: A name has other characters than letters, digits and ``_.-``, or is that of two.
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
                hint="rename one, or take it off the list: a call has nothing but the name.",
            )
        taken[name] = "tool"
