"""CPU seconds until a command has answered: every help page, and what needs the parser of ``mgrpo fit``.

    python -m benchmarks.speed.startup [--repeats N] [--parser]

A help page may take 0.5 s. Each line is the median over fresh processes, user and system time of all threads. With
``--parser``, also ``--print_config`` and ``--help_all``, which import torch and lightning and take seconds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from statistics import median

from benchmarks.tables import markdown
from mgrpo_lightning.commands.help_pages import commands

BOUND = 0.5
"""CPU seconds that a help page may take."""
PARSER = (("fit", "--config=pkg:quickstart.yaml", "--print_config"), ("fit", "--help_all"))


def cpu_seconds(words: Sequence[str]) -> float:
    """CPU seconds of one command line in a fresh process.

    Args:
        words: Command line without the program's name.
    """
    child = subprocess.Popen([sys.executable, "-m", "mgrpo_lightning", *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    assert status == 0, f"mgrpo {' '.join(words)} ended with status {os.waitstatus_to_exitcode(status)}"
    child.returncode = 0  # wait4 has collected it, so Popen must not wait for it again
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Print the table; exit with 1 if a page takes longer than ``BOUND``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="fresh processes of each line")
    parser.add_argument("--parser", action="store_true", help="also time what needs the parser of `mgrpo fit`")
    arguments = parser.parse_args()
    pages = [("--help",), *((name, "--help") for name in commands())]
    found = {
        words: median(cpu_seconds(words) for _ in range(arguments.repeats))
        for words in [*pages, *(PARSER if arguments.parser else ())]
    }
    print(markdown(["command", "CPU seconds"], [[f"mgrpo {' '.join(w)}", f"{s:.2f}"] for w, s in found.items()]))
    if slow := [f"mgrpo {' '.join(words)}" for words in pages if found[words] > BOUND]:
        raise SystemExit(f"above {BOUND} s: {', '.join(slow)}")


if __name__ == "__main__":
    main()
