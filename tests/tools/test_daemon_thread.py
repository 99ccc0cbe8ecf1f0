"""Time limits of tools: one that hangs costs its call one limit, its queue one more, and holds up nobody's end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from mgrpo_lightning.tools.daemon_thread import Apart, Limit


async def timed(function: Apart, seconds: float, **arguments: object) -> object:
    limit = Limit(seconds)
    try:
        async with limit:
            return await function(**arguments)
    except TimeoutError:
        assert limit.passed
        return "passed"


def test_a_call_that_hangs_ends_with_those_that_have_waited_for_it_and_none_of_these_is_begun() -> None:
    release, begun = threading.Event(), list[int]()

    def hang(number: int) -> int:
        begun.append(number)
        release.wait()
        return number

    async def play() -> list[object]:
        hanging = Apart(hang)
        found = await asyncio.gather(*(timed(hanging, 0.2, number=n) for n in range(20)))
        release.set()
        return [*found, await timed(hanging, 60, number=20)]

    assert asyncio.run(play()) == [*["passed"] * 20, 20], "and the next call begins anew"
    assert begun == [0, 20]


def test_a_call_that_has_just_come_does_not_end_with_the_one_that_hangs() -> None:
    release = threading.Event()

    async def play() -> list[object]:
        function = Apart(lambda number: number or release.wait())
        hanging = asyncio.ensure_future(timed(function, 0.3, number=0))
        await asyncio.sleep(0.2)
        try:
            return list(await asyncio.gather(hanging, timed(function, 60, number=1)))
        finally:
            release.set()

    assert asyncio.run(play()) == ["passed", 1]


def test_a_long_queue_of_calls_that_return_passes_no_limit() -> None:
    """Twenty calls of a twentieth of a second, each with a limit that all together exceed."""

    async def play() -> list[object]:
        pause = threading.Event()
        slow = Apart(lambda number: pause.wait(0.05) or number)
        return await asyncio.gather(*(timed(slow, 0.6, number=n) for n in range(20)))

    assert asyncio.run(play()) == list(range(20))


def test_a_timeout_of_the_function_itself_is_not_the_limit() -> None:
    def fails() -> None:
        raise TimeoutError("the server's")

    async def play() -> None:
        limit = Limit(60)
        with pytest.raises(TimeoutError, match="the server's"):
            async with limit:
                await Apart(fails)()
        assert not limit.passed

    asyncio.run(play())


HANGS = """
import asyncio, threading
from mgrpo_lightning.tools.daemon_thread import Apart, Limit

async def play():
    async with Limit(0.1):
        await Apart(lambda: threading.Event().wait())()

try:
    asyncio.run(play())
except TimeoutError:
    print("ended")
"""


def test_no_process_waits_for_a_thread_that_hangs() -> None:
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "ended\n"
