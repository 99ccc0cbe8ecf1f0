"""Extract the main text of an HTML page (trafilatura) in a subprocess with limits of CPU time and memory.

A subprocess, because a hostile page can keep the extraction busy for hours, and a thread cannot be stopped. Run as a
program, this file reads pages from stdin and writes texts to stdout, one JSON value a line; it imports nothing of this
package. If the main text of a page takes too much CPU time or memory, the program returns all text of the page
instead, in time proportional to the size of the page.
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
"""CPU seconds for the main text of a page."""
SECONDS_IN_ALL = 15.0
"""Seconds for a page in total, after which the process is killed."""
MEMORY = 2 * 2**30
"""Maximum address space of the process, in bytes."""


class _Enough(BaseException):
    """The CPU time is used up. A BaseException, because the libraries catch every Exception."""


class Extractor:
    """The client of one extraction process, which is started when needed and restarted after it has died.

    Args:
        seconds: CPU seconds for the main text of a page.
        in_all: Seconds for a page in total, after which the process is killed.
        memory: Maximum address space of the process, in bytes.
    """

    def __init__(self, seconds: float = SECONDS, in_all: float = SECONDS_IN_ALL, memory: int = MEMORY) -> None:
        self._bounds = [str(seconds), str(memory)]
        self._in_all = in_all
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._stopped = 0
        """Number of calls of ``stop``."""

    def text(self, html: str, url: str) -> str | None:
        """The text of a page; "" if it has none, None if it took too much time or memory or ``stop`` was called.

        Args:
            html: Source text of the page.
            url: Address of the page.
        """
        stopped = self._stopped
        with self._lock:  # one page at a time: all threads share the process
            # `stop` was called while this call waited for the lock.
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
            except OSError:  # the process has died
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
        """End the running extraction and those that wait for it; they return None."""
        self._stopped += 1
        if (process := self._process) is not None:
            process.kill()

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-P", __file__, *self._bounds],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # parsers write warnings about pages
            text=True,
            encoding="ascii",
            start_new_session=True,  # Ctrl-C goes to the run only; when the run ends, stdin closes and the process ends
        )


def main_text(html: str, url: str, seconds: float) -> str:
    """The text of a page without navigation, advertisements and scripts; all of its text if that takes too much.

    Args:
        html: Source text of the page.
        url: Address of the page.
        seconds: CPU seconds for finding the main text.
    """
    from trafilatura import extract

    # The timer repeats, because a C callback may swallow the exception of the first signal.
    signal.setitimer(signal.ITIMER_PROF, seconds, seconds / 4)
    try:
        return extract(html, url=url, output_format="markdown", include_comments=False) or ""
    except (_Enough, MemoryError, RecursionError):
        pass
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return plain_text(html)


def plain_text(html: str) -> str:
    """All text of a page except scripts and styles, one line for each piece of text.

    Args:
        html: Source text of the page.
    """
    from lxml.html import HTMLParser, fromstring

    tree = fromstring(html.encode("utf-8", "replace"), parser=HTMLParser(encoding="utf-8"))
    pieces: list[str] = []
    for element in tree.iter():
        if isinstance(element.tag, str) and element.tag not in ("script", "style"):
            pieces.append(element.text or "")
        # The tail is the text after an element, so it counts even after a script.
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
