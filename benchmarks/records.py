"""Records of finished runs, in one compressed file: benchmarks add to it, and what draws tables and pictures reads it.

    python -m benchmarks.records                              # the names of all records
    python -m benchmarks.records paper/arms/co_training-0     # one record, as JSON
    python -m benchmarks.records --merge OTHER.jsonl.xz       # takes over what another such file has

The file is JSON Lines under xz, a line for each record: ``xzcat benchmarks/records.jsonl.xz`` shows it. Lines are
sorted by name, so the same records make the same bytes. A name begins with the path of the benchmark, as in
``speed/roofline`` or ``paper/arms/ARM-SEED``. Where git cannot merge two versions of the file, ``--merge`` does.

What ``--record`` of a benchmark adds has the result beside its origin: machine, versions, commit, command and day.
"""

from __future__ import annotations

import argparse
import json
import lzma
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.origin import origin
from mgrpo_lightning.persistence.atomic import alone, atomic_path

FILE = Path(__file__).with_name("records.jsonl.xz")


def read(benchmark: str) -> dict[str, Any]:
    """The records of one benchmark, by the rest of their names and sorted by it.

    Args:
        benchmark: All of a name before its last ``/``.
    """
    parts = ((name.rpartition("/"), record) for name, record in load(FILE).items())
    return {rest: record for (first, _, rest), record in parts if first == benchmark}


def under(name: str) -> dict[str, Any]:
    """Records by name: the one of this name, and those whose names go on after it with ``/``.

    Args:
        name: Of a benchmark.
    """
    return {found: record for found, record in load(FILE).items() if found == name or found.startswith(f"{name}/")}


def load(path: Path) -> dict[str, Any]:
    """All records of a file by name, none if there is no file.

    Args:
        path: The file.
    """
    if not path.exists():
        return {}
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        pairs = [json.loads(line) for line in lines]
    return {pair["name"]: pair["record"] for pair in pairs}


def add(added: Mapping[str, Any]) -> None:
    """Put records into the file, in the place of those of the same names.

    Several threads and processes may do so at a time; the file is replaced whole.

    Args:
        added: By name; what JSON can hold.
    """
    with alone(FILE.with_suffix(".lock")):
        found = load(FILE) | dict(added)
        lines = [json.dumps({"name": name, "record": found[name]}, separators=(",", ":")) for name in sorted(found)]
        data = "".join(f"{line}\n" for line in lines).encode("utf-8")
        with atomic_path(FILE) as temporary:
            temporary.write_bytes(lzma.compress(data))


def recorded(name: str, make: Callable[[], Any]) -> None:
    """Have a record.

    Args:
        name: Of the record.
        make: Makes it, if it is not there.
    """
    if name not in load(FILE):
        add({name: make()})
    print(f"recorded {name}", flush=True)


def add_option(parser: argparse.ArgumentParser, name: str) -> None:
    """Give a benchmark the option ``--record``, whose value is for ``keep``.

    Args:
        parser: Of the benchmark's options.
        name: Of the benchmark. A record may have a name below it, so that several make one table.
    """

    def below(text: str) -> str:
        if text != name and not text.startswith(f"{name}/"):
            raise argparse.ArgumentTypeError(f"must be {name} or begin with {name}/")
        return text

    explained = f"add the result to the records; NAME is {name}, which is the default, or begins with {name}/"
    parser.add_argument("--record", nargs="?", const=name, type=below, metavar="NAME", help=explained)


def keep(name: str | None, result: Any, *, threads: int) -> None:
    """Put a result with its origin into the file.

    Args:
        name: Of the record; None, where ``--record`` was not given: does nothing.
        result: What JSON can hold.
        threads: Of each process that was measured.
    """
    if name is not None:
        add({name: {**origin(threads), "result": result}})
        print(f"recorded {name}", flush=True)


def merge(other: Path) -> None:
    """Take over the records of another file.

    Args:
        other: Written by ``add``, perhaps elsewhere.

    Raises:
        ValueError: Both files have a record of one name, and the two differ.
    """
    ours, theirs = load(FILE), load(other)
    different = sorted(name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name])
    if different:
        raise ValueError(f"{FILE} and {other} have different records of {', '.join(different)}")
    add(theirs)


def main() -> None:
    """List the records, show one, or take over those of another file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="name of the record to show; without it, all names are listed")
    parser.add_argument("--merge", type=Path, metavar="FILE", help="add the records of this file")
    arguments = parser.parse_args()
    if arguments.merge:
        try:
            merge(arguments.merge)
        except (OSError, ValueError, lzma.LZMAError) as error:
            parser.error(str(error))
    found = load(FILE)
    if arguments.name is None:
        print("\n".join(found))
    elif arguments.name in found:
        print(json.dumps(found[arguments.name], indent=1))
    else:
        parser.error(f"there is no record {arguments.name!r}; leave the name out to list all records")


if __name__ == "__main__":
    main()
