"""The toy task with a tool or a judge that hangs for as long as a file says so."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from typing_extensions import override

from mgrpo_lightning.records.question import Question
from mgrpo_lightning.tools.base import Tool, function_tool
from tests.support import toy

FIRST = 6
"""Calls before the first that hangs."""


class HangingTask(toy.ToyTask):
    """Its tool hangs in an await, in a thread, or in C with the interpreter held; or its judge does in an await.

    Args:
        kind: Where.
        folder: In which the file ``hang`` makes it hang, an await as long as it is there; what hangs makes ``hangs``.
        since: Another file that has to be there; None for none. No call is too early for it then.
    """

    def __init__(
        self,
        kind: Literal["await", "thread", "interpreter", "judge"] = "await",
        folder: str = ".",
        since: str | None = None,
    ) -> None:
        self.kind = kind
        self.folder = Path(folder)
        self.since = None if since is None else Path(since)
        self._calls = itertools.count()

    def _hangs(self) -> bool:
        early = next(self._calls) < FIRST if self.since is None else not self.since.exists()
        if early or not (self.folder / "hang").exists():
            return False
        (self.folder / "hangs").touch()
        return True

    @override
    async def correct(self, question: Question, answer: str | None) -> float:
        if self.kind == "judge" and self._hangs():
            await asyncio.sleep(3600)
        return await super().correct(question, answer)

    @override
    def tools(self) -> Mapping[str, Tool]:
        async def search(query: str) -> str:
            """Look a number up."""
            if self.kind == "await" and self._hangs():
                while (self.folder / "hang").exists():
                    await asyncio.sleep(0.05)
            return toy.search(query)

        def blocking(query: str) -> str:
            """Look a number up."""
            if self._hangs() and self.kind == "thread":
                time.sleep(3600)
            elif (self.folder / "hangs").exists() and (self.folder / "hang").exists():
                re.fullmatch(r"(a+)+b", "a" * 40)
            return toy.search(query)

        blocking.__name__ = "search"
        awaits = self.kind in ("await", "judge")
        return {"search": function_tool(search) if awaits else function_tool(blocking, apart=True)}
