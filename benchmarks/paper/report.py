"""Tables and pictures of all that is recorded, without a run: the figures of docs/results.md and docs/performance.md.

    python -m benchmarks.paper.report [arms credit crossplay lag smollm2] [--beside co_training]

What a table of the arms shows is said in ``arms_tables.py``. Pictures go to docs/pictures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

from benchmarks.paper import credit, crossplay, lag, records, smollm2
from benchmarks.paper.arms import ARMS
from benchmarks.paper.arms_measures import by_arm
from benchmarks.paper.arms_picture import draw
from benchmarks.paper.arms_tables import accuracy_table, parts_table, stability_table
from benchmarks.paper.pictures import FOLDER
from benchmarks.paper.records import load, read
from mgrpo_lightning.tasks import Factbook


def arms(beside: str) -> str:
    """The tables of the arms, whose picture is drawn too.

    Args:
        beside: The arm that the others are tested against.
    """
    found = by_arm(read("arms").values())
    count = len(next(iter(found.values()))[0]["validations"][-1]["right"])
    questions = Factbook(hops=[1, 2]).questions("test")[:count]
    draw(found, FOLDER / "arms.png")
    return "\n\n".join([accuracy_table(found, beside), parts_table(found, questions), stability_table(found)])


REPORTS: dict[str, Callable[[], str]] = {
    "arms": partial(arms, "co_training"),
    "credit": credit.report,
    "crossplay": crossplay.report,
    "lag": lag.report,
    "smollm2": smollm2.report,
}
"""By benchmark; each gives its tables and draws its pictures."""


def main() -> None:
    """Print the tables and draw the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmarks", nargs="*", choices=[[], *REPORTS], metavar="BENCHMARK", help=", ".join(REPORTS))
    parser.add_argument(
        "--beside", choices=list(ARMS), default="co_training", help="arm to compare with in the paired tests"
    )
    arguments = parser.parse_args()
    reports = REPORTS | {"arms": partial(arms, arguments.beside)}
    names = load(records.FILE)
    there = [name for name in REPORTS if any(one.startswith(f"{name}/") for one in names)]
    if missing := [name for name in arguments.benchmarks if name not in there]:
        parser.error(f"there is no record of {', '.join(missing)}, only of {', '.join(there) or 'nothing'}")
    for name in arguments.benchmarks or there:
        print(f"{name}\n\n{reports[name]()}\n", flush=True)


if __name__ == "__main__":
    main()
