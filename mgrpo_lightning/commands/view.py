"""``mgrpo view RUN [RUN ...]``: show the rollouts of runs in a browser, or write the page into a folder."""

from __future__ import annotations

import argparse
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mgrpo_lightning.viewer.export import export
from mgrpo_lightning.viewer.server import Server
from mgrpo_lightning.viewer.site import Site
from mgrpo_lightning.viewer.sources import Source


def main(args: Sequence[str]) -> None:
    """Run ``mgrpo view``.

    Args:
        args: Command line after ``mgrpo view``.

    Raises:
        MgrpoError: A run has no journal, the port is taken, or the folder cannot be written.
    """
    parser = argparse.ArgumentParser("mgrpo view")
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        help="run folders, or folders that hold run folders; new steps of a running run appear",
    )
    parser.add_argument("--out", type=Path, help="write the page into this folder instead of serving it")
    parser.add_argument(
        "--encrypted", action="store_true", help="with --out: also write the questions of encrypted benchmarks"
    )
    parser.add_argument(
        "--port", type=int, default=0, help="port on the loopback address; 0, the default, takes a free port"
    )
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    arguments = parser.parse_args(args)
    sources = [source for run in arguments.runs for source in Source.found(run)]
    console = Console()
    if arguments.out is not None:
        with console.status("writing ...") as status:
            page = export(
                Site(sources, live=False),
                arguments.out,
                lambda count: status.update(f"writing, {count} groups ..."),
                encrypted=arguments.encrypted,
            )
        console.print(f"open {page}", soft_wrap=True)
        return
    with Server(Site(sources, live=True), arguments.port) as server:
        console.print(f"{server.url} (Ctrl-C stops it)", soft_wrap=True)
        if not arguments.no_browser:
            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            console.print("stopped")
