"""One run at a time in a process, and one model at a time that is made or loaded.

Making a model changes what a whole process shares: transformers sets torch's default dtype and replaces the functions
that initialise and tie weights, and puts back what it found. Two threads that do so put back each other's. Weights are
then random without an error, also in later loads. A run computes with the same settings, its command line is the
process's ``sys.argv``, and its seed is that of the process.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mgrpo_lightning.errors import ConfigurationError

_guard = threading.Lock()
_making = threading.RLock()
_running: threading.Thread | None = None
"""That in which a run is."""


def begin_run() -> None:
    """Make the run of this thread the one of the process; it may be already.

    Raises:
        ConfigurationError: There is one in another thread.
    """
    global _running
    with _guard:
        _refuse_beside_another()
        _running = threading.current_thread()


def end_run() -> None:
    """The run of this thread is over; without one nothing happens."""
    global _running
    with _guard:
        if _running is threading.current_thread():
            _running = None


@contextmanager
def one_run() -> Iterator[None]:
    """The block in which a run of this thread is the one of the process.

    Raises:
        ConfigurationError: There is one in another thread.
    """
    begin_run()
    try:
        yield
    finally:
        end_run()


@contextmanager
def making_a_model() -> Iterator[None]:
    """The block in which a model is made or loaded; another thread's waits for its end.

    Raises:
        ConfigurationError: A run is in another thread.
    """
    with _making:
        with _guard:
            _refuse_beside_another()
        yield


def _refuse_beside_another() -> None:
    if _running not in (None, threading.current_thread()) and _running.is_alive():
        raise ConfigurationError(
            "a run is in another thread of this process, whose seed, settings of torch and command line are for one.",
            hint="wait for its end, or start a second process.",
        )
