"""Viewer benchmark in a browser, many rollouts: first view, filter, rollout, search; memory; README's picture.

    pip install playwright && apt-get install chromium
    python -m benchmarks.speed.viewer RUN [--rollouts 10000] [--repeats 3] [--record [NAME]]
    python -m benchmarks.speed.viewer runs/quickstart --picture docs/pictures/viewer.png     # only README's picture

The rollouts are those of a real run (its training journal), written again and again as further steps until there are
enough. Server and browser share the machine; times are the browser's own, in seconds, from an address being opened or a
control being changed to what is asked for being in the page. The first line is of the real run, from starting
``mgrpo view`` to a rollout being read.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks.records import add_option, keep
from benchmarks.tables import markdown
from mgrpo_lightning.records.journal import Extra, read_groups, training_files, write_groups
from mgrpo_lightning.records.trajectory import Group, Key, Trajectory
from mgrpo_lightning.viewer.server import Server
from mgrpo_lightning.viewer.site import Site
from mgrpo_lightning.viewer.sources import Source

NAME = "speed/viewer"
MIB = 2**20


def multiply(run: Path, folder: Path, wanted: int) -> int:
    """Write a run with at least so many rollouts; how many it has.

    Args:
        run: A real one.
        folder: Of the new one.
        wanted: Rollouts.
    """
    paths = [path for paths in training_files(run / "journal").values() for path in paths]
    shutil.copy(run / "config.yaml", folder)
    count = step = 0
    while count < wanted:
        for path in paths:
            groups = [_moved(group, step) for group in read_groups(path)]
            members = [t for group in groups for rollout in group.rollouts for t in rollout.trajectories()]
            extras = {t.key: Extra((-1.0) ** t.key.rollout, 0.01) for t in members}
            write_groups(folder / "journal", step, groups, "train", extras)
            step += 1
            count += sum(len(group.rollouts) for group in groups)
            if count >= wanted:
                break
    return count


def _moved(group: Group, step: int) -> Group:
    def moved(t: Trajectory) -> Trajectory:
        return replace(t, key=Key(step, *t.key[1:]))

    return replace(
        group,
        rollouts=[replace(r, main=moved(r.main), subs=[moved(sub) for sub in r.subs]) for r in group.rollouts],
    )


def measure(url: str, browser: Any, count: int) -> dict[str, float]:
    """Seconds of each thing a person does, and the page's memory in MiB at the end.

    Args:
        url: Of the page.
        browser: Started.
        count: Rollouts that the page has to show.
    """
    # Playwright waits by evaluating text, which the page's own policy forbids.
    page = browser.new_page(viewport={"width": 1400, "height": 900}, bypass_csp=True)
    found: dict[str, float] = {}

    def timed(name: str, act: Callable[[], Any], until: str) -> None:
        started = time.perf_counter()
        act()
        page.wait_for_function(until, polling=5, timeout=120_000)
        found[name] = time.perf_counter() - started

    shown = "document.querySelector('.filters .quiet').innerText"
    timed("first view", lambda: page.goto(url), f"document.querySelector('.card b')?.innerText === '{count:,}'")
    timed("list", lambda: page.keyboard.press("l"), "document.querySelectorAll('.rows .row').length > 20")
    timed("filter by reward", lambda: page.fill("input[name=low]", "0.5"), f"!{shown}.startsWith('{count:,} of')")
    timed(
        "sort",
        lambda: page.click(".head button:has-text('tokens')"),
        "document.querySelector('.head').innerText.includes('\u2191')",
    )
    page.fill("input[name=low]", "")
    page.wait_for_function(f"{shown}.startsWith('{count:,} of')")
    timed("text of questions", lambda: page.fill("#search", "capital"), f"!{shown}.startsWith('{count:,} of')")
    timed(
        "one rollout", lambda: page.locator(".rows .row").first.click(), "!!document.querySelector('.trajectory .turn')"
    )
    timed(
        "next rollout", lambda: page.keyboard.press("j"), "document.querySelector('.place')?.innerText.includes('2 of')"
    )
    page.keyboard.press("l")
    page.wait_for_selector(".rows .row")
    every = f"{count:,} of {count:,} searched"
    timed("search in all texts", lambda: page.press("#search", "Enter"), f"{shown} === '{every}'")
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    found["page, MiB"] = metrics["JSHeapUsedSize"] / MIB
    found["page, nodes"] = metrics["Nodes"]
    page.close()
    return found


def picture(url: str, browser: Any, path: Path) -> None:
    """Write a picture of a rollout with two calls, its tokens coloured by log-probability.

    Args:
        url: Of the page.
        browser: Started.
        path: The picture to write.
    """
    page = browser.new_page(viewport={"width": 1200, "height": 860}, device_scale_factor=1.5)
    page.goto(f"{url}#/list?stage=train&calls=2&level=2+hops&sort=reward&down=1")
    page.locator(".rows .row").first.click()
    page.wait_for_selector(".trajectory.sub .turn")
    page.keyboard.press("c")
    page.screenshot(path=str(path))
    page.close()


def from_command(run: Path, browser: Any) -> float:
    """Seconds from starting ``mgrpo view`` to a rollout being read.

    Args:
        run: Its folder.
        browser: Started.
    """
    started = time.perf_counter()
    command = [sys.executable, "-m", "mgrpo_lightning", "view", str(run), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            page = browser.new_page()
            page.goto(process.stdout.readline().split()[0])
            page.wait_for_selector(".card")
            page.keyboard.press("l")
            page.locator(".rows .row").first.click()
            page.wait_for_selector(".trajectory .turn")
            seconds = time.perf_counter() - started
            page.close()
        finally:
            process.terminate()  # an interrupt may be ignored where this runs in the background
    return seconds


def served(run: Path) -> Iterator[str]:
    """Serve a run until the iterator is closed.

    Args:
        run: Its folder.
    """
    server = Server(Site([Source(run)], live=True))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.url
    server.shutdown()
    server.server_close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rollouts", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--picture", type=Path, help="only take a picture of one rollout")
    add_option(parser, NAME)
    arguments = parser.parse_args()
    from playwright.sync_api import sync_playwright  # here: only what starts a browser needs it

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        if arguments.picture is not None:
            serving = served(arguments.run)
            picture(next(serving), browser, arguments.picture)
            next(serving, None)
        else:
            result = measure_all(arguments.run, browser, arguments.rollouts, arguments.repeats)
            print(table(result))
            keep(arguments.record, result, threads=1)
        browser.close()


def measure_all(run: Path, browser: Any, wanted: int, repeats: int) -> dict[str, Any]:
    """Number of rollouts, and what ``from_command`` and ``measure`` find in every repeat.

    Args:
        run: A real one.
        browser: Started.
        wanted: Rollouts, at least.
        repeats: Of every measurement.
    """
    every: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        count = multiply(run, Path(folder), wanted)
        for _ in range(repeats):
            before = psutil.Process().memory_info().rss
            serving = served(Path(folder))
            every.append({"from `mgrpo view` to one rollout": from_command(run, browser)})
            every[-1] |= measure(next(serving), browser, count)
            every[-1]["server, MiB"] = (psutil.Process().memory_info().rss - before) / MIB
            next(serving, None)
    return {"rollouts": count, "repeats": every}


def table(*results: Mapping[str, Any]) -> str:
    """Medians and all repeats, in Markdown; a table for each result.

    Args:
        results: Of ``measure_all``.
    """
    parts = []
    for result in results:
        every = result["repeats"]
        columns = (f"{result['rollouts']:,} rollouts", f"median of {len(every)}", "all")
        found = {name: [one[name] for one in every] for name in every[0]}
        rows = [
            (name, f"{statistics.median(values):,.2f}", ", ".join(f"{value:,.2f}" for value in values))
            for name, values in found.items()
        ]
        parts.append(markdown(columns, rows))
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
