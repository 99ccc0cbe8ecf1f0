"""Exceptions that users see, each with a ``HINT:``: wrong config or data, stopped run, failed tool, undecided score."""

import signal


class MgrpoError(Exception):
    """Base class of every error that a user can cause and fix.

    Args:
        message: What is wrong, including the wrong value.
        hint: How to fix it; shown after ``HINT:``.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message} HINT: {hint}" if hint else message)
        self.message = message


class ConfigurationError(MgrpoError, ValueError):
    """A team file, option or combination of options that cannot work."""


class DataError(MgrpoError, ValueError):
    """A task file, snapshot, journal or checkpoint has invalid content."""


class RunStopped(MgrpoError):
    """The run was asked to stop and can resume from its last checkpoint; ``mgrpo`` exits with ``STOPPED``."""


class Interrupted(SystemExit):
    """SIGINT or SIGTERM ended a command; ``mgrpo`` exits with ``STOPPED``.

    It derives from SystemExit and not from Exception, so a tool that catches Exception does not swallow it.

    Args:
        number: The signal that was received.
    """

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(STOPPED)
        self.number = number

    def __str__(self) -> str:
        return self.number.name


STOPPED = 75
"""Exit status of a run that stopped and can resume: EX_TEMPFAIL of sysexits.h."""


class ToolError(MgrpoError):
    """A tool or sub-agent failed: the policy sees the message as an observation and the rollout continues."""


class ToolBroken(ToolError):
    """A tool raised an exception other than ``ToolError``, or ran into its timeout.

    Args:
        message: Shown to the policy.
        where: Stack frames of the failure, for the log.
    """

    def __init__(self, message: str, *, where: str = "") -> None:
        super().__init__(message)
        self.where = where


class ScoringError(MgrpoError):
    """A reward could not be decided because a judge failed.

    The sample leaves its group before mean and std. It is never scored as wrong.
    """
