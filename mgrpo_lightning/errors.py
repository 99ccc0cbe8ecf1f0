"""The exceptions users see: each message names the wrong value and ends with the fix after ``HINT:``."""

import signal


class MgrpoError(Exception):
    """Base of every error a user can cause and mend.

    Args:
        message: What is wrong, with the offending value in it.
        hint: What to do about it.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message} HINT: {hint}" if hint else message)
        self.message = message


class ConfigurationError(MgrpoError, ValueError):
    """A team file, option or combination of options that cannot work."""


class DataError(MgrpoError, ValueError):
    """A task file, snapshot, journal or checkpoint whose content is not what it should be."""


class RunStopped(MgrpoError):
    """A run that was asked to stop, and can go on from its last checkpoint; ``mgrpo`` exits with ``STOPPED``."""


class Interrupted(SystemExit):
    """SIGINT or SIGTERM ends a command; ``mgrpo`` exits with ``STOPPED``. No Exception, so that no tool catches it.

    Args:
        number: The signal.
    """

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(STOPPED)
        self.number = number

    def __str__(self) -> str:
        return self.number.name


STOPPED = 75
"""Exit status of a run that has stopped and can go on: EX_TEMPFAIL of sysexits.h."""


class ToolError(MgrpoError):
    """A tool or sub-agent that failed: the policy sees the message as an observation and play goes on."""


class ToolBroken(ToolError):
    """A tool that failed otherwise than by saying so: an exception of another kind, or its time limit.

    Args:
        message: What the policy sees.
        where: The frames in which it failed.
    """

    def __init__(self, message: str, *, where: str = "") -> None:
        super().__init__(message)
        self.where = where


class ScoringError(MgrpoError):
    """A reward that could not be decided (a judge failed); the sample leaves its group, it is never scored as wrong."""
