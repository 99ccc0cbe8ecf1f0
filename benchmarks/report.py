"""Tables and pictures of all that is recorded, without a run: those of the pages of docs/ and of README.

    python -m benchmarks.report [paper/arms ... speed/viewer] [--beside co_training]

Names are those of the benchmarks. Above a table stand the command and the origin of its records, where they have one.
What a table of the arms shows is said in ``arms_tables.py``. Pictures go to docs/pictures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

from benchmarks.faults import kill, stop
from benchmarks.origin import when, where
from benchmarks.paper import causes, credit, crossplay, lag, mismatch, quickstart, smollm2
from benchmarks.paper.arms import ARMS
from benchmarks.paper.arms import NAME as OF_ARMS
from benchmarks.paper.arms_measures import by_arm
from benchmarks.paper.arms_picture import draw
from benchmarks.paper.arms_tables import accuracy_table, parts_table, stability_table
from benchmarks.pictures import FOLDER
from benchmarks.records import read, under
from benchmarks.speed import decoupled, memory, multiturn, roofline, scaling, store, trl, viewer
from mgrpo_lightning.tasks import Factbook


def arms(beside: str) -> str:
    """The tables of the arms, whose picture is drawn too.

    Args:
        beside: The arm that the others are tested against.
    """
    found = by_arm(read(OF_ARMS).values())
    count = len(next(iter(found.values()))[0]["validations"][-1]["right"])
    questions = Factbook(hops=[1, 2]).questions("test")[:count]
    draw(found, FOLDER / "arms.png")
    return "\n\n".join([accuracy_table(found, beside), parts_table(found, questions), stability_table(found)])


def tables(name: str, table: Callable[..., str]) -> str:
    """What a benchmark makes of the results of all its records.

    Args:
        name: Of the benchmark.
        table: Its function of that name.
    """
    return table(*(record["result"] for record in under(name).values()))


TABLES: dict[str, Callable[..., str]] = {
    quickstart.NAME: quickstart.table,
    causes.NAME: causes.table,
    mismatch.NAME: mismatch.table,
    kill.NAME: kill.table,
    stop.NAME: stop.table,
    trl.NAME: trl.table,
    multiturn.NAME: multiturn.table,
    memory.NAME: memory.table,
    roofline.NAME: roofline.table,
    decoupled.NAME: decoupled.table,
    store.NAME: store.table,
    viewer.NAME: viewer.table,
}
"""What makes the tables of a benchmark without pictures of its results."""
REPORTS: dict[str, Callable[[], str]] = {
    OF_ARMS: partial(arms, "co_training"),
    credit.NAME: credit.report,
    crossplay.NAME: crossplay.report,
    lag.NAME: lag.report,
    smollm2.NAME: smollm2.report,
    scaling.NAME: scaling.report,
    **{name: partial(tables, name, table) for name, table in TABLES.items()},
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
    reports = REPORTS | {OF_ARMS: partial(arms, arguments.beside)}
    found = {name: records for name in REPORTS if (records := under(name))}
    if missing := [name for name in arguments.benchmarks if name not in found]:
        parser.error(f"there is no record of {', '.join(missing)}, only of {', '.join(found) or 'nothing'}")
    for name in arguments.benchmarks or found:
        print(f"{name}\n")
        for one, record in found[name].items():
            if "result" in record:
                print(f"{one}: {when(record)}; {where(record)}\n")
        print(f"{reports[name]()}\n", flush=True)


if __name__ == "__main__":
    main()
