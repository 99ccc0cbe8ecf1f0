"""Fixtures every test runs under: the same seeds, no network, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # workers share the cores, and threads that wait for each other spin
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

# The same examples in every run, so that a mutant is killed every time; no deadline, as machines differ in speed.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, max_examples=60)
hypothesis.settings.load_profile("repeatable")

ROOT = Path(__file__).resolve().parent.parent

ENVIRONMENT_OF_LIBRARIES = (
    "CUBLAS_WORKSPACE_CONFIG",  # lightning, deterministic=True
    "KMP_",  # OpenMP, on import of torch
    "NVIDIA_TF32_OVERRIDE",
    "PL_GLOBAL_SEED",  # lightning.seed_everything
    "_RJEM_MALLOC_CONF",  # polars, on import
    "PL_SEED_WORKERS",
    "POSSIBLE_USER_WARNINGS",
    "PYTEST_",
    "TENSORBOARD",
    "TF_",
    "TORCH",
)
"""Prefixes of variables that libraries set for good on first use."""

THREADS_OF_LIBRARIES = ("asyncio_", "pytest_timeout", "ThreadPoolExecutor", "tqdm_monitor")
"""Prefixes of threads that outlive a test by design: pools are joined at exit."""

_loops: weakref.WeakSet[asyncio.BaseEventLoop] = weakref.WeakSet()
_loop_init = asyncio.BaseEventLoop.__init__


def _remember_loop(loop: Any) -> None:
    _loop_init(loop)
    _loops.add(loop)


asyncio.BaseEventLoop.__init__ = _remember_loop  # type: ignore[assignment, method-assign]


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True)
def no_leaked_environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    after = dict(os.environ)
    names = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    for name in names:
        if name in before:
            os.environ[name] = before[name]
        else:
            del os.environ[name]
    leaked = sorted(name for name in names if not name.startswith(ENVIRONMENT_OF_LIBRARIES))
    assert not leaked, f"the test left environment variables changed: {leaked}; use monkeypatch"


@pytest.fixture(autouse=True)
def no_leaked_threads() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    new = [t for t in threading.enumerate() if t not in before and not t.daemon]
    leaked = sorted(t.name for t in new if not t.name.startswith(THREADS_OF_LIBRARIES))
    assert not leaked, f"the test left threads running: {leaked}"


@pytest.fixture(autouse=True)
def no_leaked_event_loops() -> Iterator[None]:
    before = set(_loops)
    yield
    give_up = time.monotonic() + 10
    # A daemon thread that ends with its test may still be closing its loop.
    while any(loop.is_running() for loop in set(_loops) - before) and time.monotonic() < give_up:
        time.sleep(0.01)
    if any(not loop.is_closed() for loop in set(_loops) - before):
        gc.collect()  # a loop is in reference cycles; one that nothing else holds is no leak of ours to report here
    leaked = [loop for loop in set(_loops) - before if not loop.is_closed()]
    for loop in leaked:
        loop.close()
    assert not leaked, f"the test left {len(leaked)} event loops open"


@pytest.fixture
def server() -> Iterator[Any]:
    """An OpenAI-compatible server; see ``chat_server.py``."""
    from tests.support.chat_server import Server

    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def own_argv(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line of a command that is called as a function: Lightning looks at it."""
    monkeypatch.setattr("sys.argv", ["mgrpo"])


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random model, which nobody writes into; see ``tiny.py``."""
    from tests.support.tiny import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository root."""
    return ROOT


@pytest.fixture(scope="session", params=["tiny", pytest.param("quickstart", marks=pytest.mark.slow)])
def team(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The teams of runs in processes of their own; see ``teams.py``."""
    from tests.support.teams import QUICKSTART, tiny_team

    return QUICKSTART if request.param == "quickstart" else tiny_team(tmp_path_factory.mktemp("team"))
