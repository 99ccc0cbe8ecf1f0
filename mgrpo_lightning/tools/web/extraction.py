"""The main text of an HTML page, found by a process of its own, which can be stopped: pages can be made to take hours.

Run as a program it serves pages, a JSON object a line, and needs nothing of this package. The main text of a page has
bounds of computing time and memory. Of a page that takes more it says all text, which is work that grows with the page
alone.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import threading
from typing import Any

SECONDS = 3.0
"""Of computing, for the main text of a page."""
SECONDS_IN_ALL = 15.0
"""For a page, after which the process is killed."""
MEMORY = 2 * 2**30
"""Bytes that the process may address."""


class _Enough(BaseException):
    """The time is over; no Exception, which the libraries would catch."""


class Extractor:
    """Asks one such process, which is started when it is needed and again when it has died.

    Args:
        seconds: See ``SECONDS``.
        in_all: See ``SECONDS_IN_ALL``.
        memory: See ``MEMORY``.
    """

    def __init__(self, seconds: float = SECONDS, in_all: float = SECONDS_IN_ALL, memory: int = MEMORY) -> None:
        self._bounds = [str(seconds), str(memory)]
        self._in_all = in_all
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._stopped = 0
        """How often."""

    def text(self, html: str, url: str) -> str | None:
        """The text of a page; "" if it says nothing, None if it took too much.

        Args:
            html: The page.
            url: Its address.
        """
        stopped = self._stopped
        with self._lock:  # one page at a time: they share the process
            if self._stopped != stopped:
                return None
            if self._process is None or self._process.poll() is not None:
                self._process = self._start()
            process = self._process
            killer = threading.Timer(self._in_all, process.kill)
            killer.daemon = True
            killer.start()
            try:
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(json.dumps({"html": html, "url": url}) + "\n")
                process.stdin.flush()
                answer = process.stdout.readline()
            except OSError:  # it has died
                answer = ""
            finally:
                killer.cancel()
            if answer:
                return str(json.loads(answer))
            process.kill()
            process.communicate()
            self._process = None
            return None

    def stop(self) -> None:
        """End what it is doing, and what waits for it, as nobody wants it any more."""
        self._stopped += 1
        if (process := self._process) is not None:
            process.kill()

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-P", __file__, *self._bounds],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # parsers complain about pages there
            text=True,
            encoding="ascii",
            start_new_session=True,  # Ctrl-C is for the run, whose end ends it
        )


def main_text(html: str, url: str, seconds: float) -> str:
    """A page's text without navigation, advertisements and scripts; all of its text where that takes too much.

    Args:
        html: The page.
        url: Its address.
        seconds: Of computing.
    """
    from trafilatura import extract

    signal.setitimer(signal.ITIMER_PROF, seconds, seconds / 4)  # again, where a callback of C has swallowed it
    try:
        return extract(html, url=url, output_format="markdown", include_comments=False) or ""
    except (_Enough, MemoryError, RecursionError):
        pass
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return plain_text(html)


def plain_text(html: str) -> str:
    """All text of a page but scripts and styles, a line an element.

    Args:
        html: The page.
    """
    from lxml.html import HTMLParser, fromstring

    tree = fromstring(html.encode("utf-8", "replace"), parser=HTMLParser(encoding="utf-8"))
    pieces: list[str] = []
    for element in tree.iter():
        if isinstance(element.tag, str) and element.tag not in ("script", "style"):
            pieces.append(element.text or "")
        pieces.append(element.tail or "")
    return "\n".join(line for piece in pieces if (line := " ".join(piece.split())))


def _serve(seconds: float, memory: int) -> None:
    def stop(signum: int, frame: Any) -> None:
        raise _Enough

    signal.signal(signal.SIGPROF, stop)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    for line in sys.stdin:
        page = json.loads(line)
        print(json.dumps(main_text(page["html"], page["url"], seconds)), flush=True)


if __name__ == "__main__":
    _serve(float(sys.argv[1]), int(sys.argv[2]))
