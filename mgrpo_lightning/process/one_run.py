"""Refuse a second run in another thread of this process; let one thread at a time construct or load a model.

Constructing a model changes global state. transformers sets torch's default dtype, replaces the functions that
initialise and tie weights, and restores them afterwards. Two threads that do this at once restore each other's state.
Then weights are random without an error, also in later loads. A run also needs the process for itself: it uses torch's
global settings, ``sys.argv`` and the global seed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mgrpo_lightning.errors import ConfigurationError

_guard = threading.Lock()
_making = threading.RLock()
_running: threading.Thread | None = None
"""Thread of the current run."""


def begin_run() -> None:
    """Register the run of this thread as the run of the process; a second call does nothing.

    Raises:
        ConfigurationError: Another thread has a run.
    """
    global _running
    with _guard:
        _refuse_beside_another()
        _running = threading.current_thread()


def end_run() -> None:
    """Unregister the run of this thread, if there is one."""
    global _running
    with _guard:
        if _running is threading.current_thread():
            _running = None


@contextmanager
def one_run() -> Iterator[None]:
    """Register a run of this thread during the block.

    Raises:
        ConfigurationError: Another thread has a run.
    """
    begin_run()
    try:
        yield
    finally:
        end_run()


@contextmanager
def making_a_model() -> Iterator[None]:
    """Construct or load a model in this block; other threads wait for its end.

    Raises:
        ConfigurationError: Another thread has a run.
    """
    with _making:
        with _guard:
            _refuse_beside_another()
        yield


def _refuse_beside_another() -> None:
    if _running not in (None, threading.current_thread()) and _running.is_alive():
        raise ConfigurationError(
            "another thread of this process has a run; a process can have only one at a time.",
            hint="wait until it ends, or start a second process.",
        )
