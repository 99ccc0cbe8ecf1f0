"""Tool protocol; make a tool from a typed function; import a tool by dotted path; look up the tools of a team."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import traceback
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from mgrpo_lightning.errors import ConfigurationError, ToolBroken, ToolError
from mgrpo_lightning.names import check_tools
from mgrpo_lightning.tools.daemon_thread import Apart
from mgrpo_lightning.tools.parameters import SUPPORTED, Misfit, schema_of, value_of

if TYPE_CHECKING:
    from mgrpo_lightning.roles.config import RoleConfig


class Tool(Protocol):
    """A tool that agents can call."""

    name: str
    """Name that calls use."""
    description: str
    """Description in the system prompt."""
    parameters: dict[str, object]
    """JSON schema of the arguments, of type object."""

    async def __call__(self, **arguments: object) -> str:
        """Run the call and return the result text for the policy.

        Args:
            **arguments: They have the names and the types of ``parameters``; the caller checks it
                (``protocol/arguments.py``).

        Raises:
            ToolError: The call failed; its message becomes the observation.
            ConfigurationError: Every call would fail until the user corrects something; it ends the run.
        """
        ...


class _FunctionTool:
    """A tool that calls one function; see ``function_tool``."""

    def __init__(self, function: Callable[..., Any], *, apart: bool) -> None:
        # A coroutine function must run in the event loop of the play.
        apart = apart and not inspect.iscoroutinefunction(inspect.unwrap(function))
        self._function = Apart(function) if apart else function
        self.name = function.__name__
        self.description = inspect.getdoc(function) or ""
        self._hints = _parameters(function)
        signature = inspect.signature(function)
        self.parameters: dict[str, object] = {
            "type": "object",
            "properties": {name: _schema(function, name, hint) for name, hint in self._hints.items()},
            "required": [n for n in self._hints if signature.parameters[n].default is inspect.Parameter.empty],
        }

    async def __call__(self, **arguments: object) -> str:
        read = {name: self._value(name, value) for name, value in arguments.items()}
        try:
            result = self._function(**read)
            return str(await result if inspect.isawaitable(result) else result)
        except (ToolError, ConfigurationError):
            raise
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # the play cancels this task; the function did not raise it
            # A bug in a user's function, triggered by some argument of a policy, must not end a run of hours.
            where = "".join(traceback.format_tb(error.__traceback__))
            raise ToolBroken(f"{self.name} failed: {type(error).__name__}: {_words(error)}", where=where) from error

    def _value(self, name: str, value: object) -> object:
        """Fit a value to the annotation of its parameter. The parts of a list or an object are checked too."""
        try:
            return value_of(self._hints[name], value, name)
        except Misfit as error:
            problem = f"argument {error.place!r} of {self.name} is {error.value!r}."
            raise ToolError(problem, hint=f"it must be {error.wanted}.") from error


def function_tool(function: Callable[..., Any], *, apart: bool | None = None) -> Tool:
    """Make a tool from a typed function, sync or async, that returns text.

    The function's name and docstring become the name and the description of the tool, and its annotations the schema.
    Supported types: str, int, float, bool, ``Literal``, lists and dicts of these, ``TypedDict`` and unions. Arguments
    with a default are optional. A call whose argument does not fit its annotation raises a ToolError that names the
    argument. An exception of the function becomes a ToolError, except a ConfigurationError, which ends the run.

    Args:
        function: The function that a call runs.
        apart: Whether a sync function runs in a thread, one call at a time (see ``Apart``). Play then goes on while the
            function blocks, and without it after its time limit. None: yes, unless the function is this package's own.

    Raises:
        ConfigurationError: A parameter has no annotation or an unsupported one, or is ``*args`` or ``**kwargs``.
    """
    own = str(function.__module__).partition(".")[0] == __name__.partition(".")[0]
    return _FunctionTool(function, apart=not own if apart is None else apart)


def imported(path: str) -> Any:
    """The object at a dotted path, such as ``package.module.function``; an import may raise anything."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def load_tool(path: str) -> Tool:
    """Import the tool at a dotted path: a tool object, or a typed function, which ``function_tool`` converts.

    A user's function may block, so it runs in a thread (see ``Apart``). This package's own functions take microseconds
    and run in the event loop.

    Args:
        path: Dotted path, for instance ``my_package.my_module.my_function``.

    Raises:
        ConfigurationError: The path cannot be imported, or is neither a function nor a tool object.
    """
    try:
        found = imported(path)
    except Exception as error:  # importing a user's module runs any code
        raise ConfigurationError(
            f"tool {path!r} cannot be imported: {type(error).__name__}: {error}.",
            hint="give the dotted path of a typed Python function.",
        ) from error
    if all(hasattr(found, name) for name in ("name", "description", "parameters")) and not inspect.isclass(found):
        return typing.cast("Tool", found)
    if not inspect.isfunction(found) or inspect.isgeneratorfunction(found) or inspect.isasyncgenfunction(found):
        raise ConfigurationError(
            f"{path!r} is a {_kind(found)}, not a function that returns text.",
            hint="give a typed function or a tool object.",
        )
    return function_tool(found, apart=path.partition(".")[0] != __name__.partition(".")[0])


def wanted_tools(roles: Mapping[str, RoleConfig], offered: Mapping[str, Tool]) -> dict[str, Tool]:
    """The tools that the roles of a team use, by the names in the roles' ``tools``.

    Args:
        roles: Configuration of every role of the team, by name.
        offered: The task's own tools, by name.

    Raises:
        ConfigurationError: A name is neither a tool of the task nor the dotted path of a tool; or a role cannot have a
            tool of that name, see ``check_tools``.
    """
    tools: dict[str, Tool] = {}
    for role, config in roles.items():
        for name in config.tools:
            if name not in offered and "." not in name:
                raise ConfigurationError(
                    f"role {role!r} has tool {name!r}, which the task does not offer.",
                    hint=f"use one of {sorted(offered)}, or give your own tool as a dotted path: package.function.",
                )
            tools[name] = offered[name] if name in offered else load_tool(name)
        check_tools(role, [tools[name].name for name in config.tools], config.calls)
    return tools


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # the error is of a user's class, and its __str__ runs any code
        return "it cannot be shown"


def _kind(found: object) -> str:
    return "generator" if inspect.isfunction(found) else type(found).__name__


def _parameters(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        hints = typing.get_type_hints(function)
    except Exception as error:  # evaluating an annotation runs any code
        raise ConfigurationError(
            f"the annotations of tool {function.__name__!r} cannot be read: {error}.",
            hint="use names that the module imports at run time, or plain str, int, float and bool.",
        ) from error
    parameters = inspect.signature(function).parameters.values()
    if bad := [p.name for p in parameters if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.POSITIONAL_ONLY)]:
        raise ConfigurationError(
            f"tool {function.__name__!r} has the parameter {bad[0]!r}, which a call cannot pass by name.",
            hint="use only parameters that can be passed by name.",
        )
    return {parameter.name: hints.get(parameter.name) for parameter in parameters}


def _schema(function: Callable[..., Any], name: str, hint: object) -> dict[str, object]:
    try:
        return schema_of(hint)
    except TypeError as error:
        part = "" if str(error) == repr(hint) or isinstance(hint, type) else f", with {error} in it"
        raise ConfigurationError(
            f"parameter {name!r} of tool {function.__name__!r} has the annotation {hint!r}{part}.",
            hint=f"annotate it with {SUPPORTED}.",
        ) from error
