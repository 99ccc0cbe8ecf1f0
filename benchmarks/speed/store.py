"""Store benchmark: records a second, delay from writer to reader, files of a step, and a million records.

    python -m benchmarks.speed.store [--writers 1 64] [--rate 12000] [--seconds 5] [--million 1000000]
                                     [--record [NAME]]

Every writer is a process that says ``rate`` records a second and publishes what has come together every ``BATCH``
seconds, each batch with two fsyncs; one more process tails the store and compares with the time at which a record was
said (one machine, one clock). With many writers the rate is shared among them. At the end every record must have been
seen once, in order. Then what one training step of the quickstart's size leaves on the disk, and a store of a million
records: one process opens, tails and verifies it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from benchmarks.records import add_option, keep
from benchmarks.tables import markdown
from mgrpo_lightning.commands.store import examine
from mgrpo_lightning.records.trajectory import Key
from mgrpo_lightning.store.layout import writer_name
from mgrpo_lightning.store.record import Closed, Record
from mgrpo_lightning.store.tail import Tail
from mgrpo_lightning.store.writer import CHUNK, StoreWriter

NAME = "speed/store"
BATCH = 0.025
"""Seconds between two publications."""
POLL = 0.002
"""Seconds between two looks of the reader."""
TASK = "Find out which currency the country with the longest coastline uses, and say since when."


def said(number: int) -> Record:
    """A delegation of ordinary size, with the time at which it is said.

    Args:
        number: Its own.
    """
    key = Key(number // 512, number // 64 % 8, number // 8 % 8, number % 8)
    return Record("delegations", "train", key, "searcher", text=f"{number} {TASK}", parent=0, seconds=time.monotonic())


def write(root: str, rank: int, rate: float, seconds: float, ready: Barrier) -> None:
    """One writer: says records at a rate, and publishes them in batches.

    Args:
        root: The store.
        rank: Of the writer.
        rate: Records a second.
        seconds: How long.
        ready: Passed when all writers have been started.
    """
    writer = StoreWriter(Path(root), "main", rank)
    writer.publish([replace(said(0), role="")])  # what the first one imports is no part of the delay
    ready.wait()
    started = time.monotonic()
    number = 0
    waiting: list[Record] = []
    while (now := time.monotonic() - started) < seconds:
        while number < now * rate:
            waiting.append(said(number))
            number += 1
        writer.publish(waiting)
        waiting = []
        time.sleep(max(0.0, BATCH - (time.monotonic() - started - now)))


def measure(writers: int, rate: float, seconds: float) -> dict[str, Any]:
    """Delays, rate and files of some writers and one reader.

    Args:
        writers: Their number.
        rate: Records a second of all of them.
        seconds: How long they write.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "store"
        first = StoreWriter(root, "reader")
        first.publish([replace(said(0), role="")])
        tail = Tail(root)
        tail.poll()  # what the first one imports is no part of the delay
        context = multiprocessing.get_context("spawn")
        ready = context.Barrier(writers + 1)
        processes = [
            context.Process(target=write, args=(str(root), rank, rate / writers, seconds, ready))
            for rank in range(writers)
        ]
        for process in processes:
            process.start()
        ready.wait()
        delays: list[float] = []
        numbers: dict[str, list[str]] = {writer_name("main", rank): [] for rank in range(writers)}
        while any(process.is_alive() for process in processes) or tail_has_more(root, numbers):
            entries = tail.poll()
            now = time.monotonic()
            for entry in entries:
                if not entry.record.role:
                    continue
                assert entry.record.seconds is not None
                assert entry.record.text is not None
                delays.append(now - entry.record.seconds)
                numbers[entry.writer].append(entry.record.text.split()[0])
            time.sleep(POLL)
        assert all(found == [str(i) for i in range(len(found))] for found in numbers.values()), "lost or out of order"
        files = sum(status.num_files for status in examine(root))
        size = sum(status.num_bytes for status in examine(root))
    ordered = sorted(delays)
    return {
        "writers": writers,
        "records": len(delays),
        "records_per_second_per_writer": len(delays) / seconds / writers,
        "p50_ms": statistics.median(ordered) * 1e3,
        "p99_ms": ordered[int(0.99 * len(ordered))] * 1e3,
        "files_per_1000_records": files / len(delays) * 1e3,
        "bytes_per_record": size / len(delays),
    }


def tail_has_more(root: Path, numbers: dict[str, list[str]]) -> bool:
    """Whether something is on the disk that was not seen.

    Args:
        root: The store.
        numbers: What was seen, by writer.
    """
    on_disk = {status.name: status.records.total() for status in examine(root)}
    return any(on_disk.get(name, 0) > len(found) + 1 for name, found in numbers.items())


def training_step(rollouts: int = 64, calls: int = 2, rounds: int = 12) -> dict[str, int]:
    """What one decoupled step leaves, once it is closed: two roles, every call and report, and the marks of all rounds.

    Args:
        rollouts: Of the step.
        calls: Of each.
        rounds: In which they are said, a segment each.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "store"
        main, searcher = StoreWriter(root, "main"), StoreWriter(root, "searcher")
        made = [replace(said(n), seconds=None, round=n % rounds) for n in range(rollouts * calls)]
        for number in range(rounds):
            mark = Record("frontiers", "train", Key(0, 0, -1, -1), "main", event="round", round=number)
            mine = [call for call in made if call.round == number]
            main.publish([*mine, mark])
            reports = [
                Record(
                    "returns", "train", one.key, "searcher", of=one.hash, text=TASK, trajectory=one.hash, failed=False
                )
                for one in mine
            ]
            searcher.publish([*reports, replace(mark, role="searcher")])
        outcomes = [
            Record("outcomes", "train", Key(0, 0, k, 0), "main", text=TASK, valid=True, correct=1.0)
            for k in range(rollouts)
        ]
        closed = tuple(Closed(*call.key[1:], call.hash) for call in made)
        main.publish([*outcomes, Record("frontiers", "train", Key(0, 0, -1, -1), "main", event="step", calls=closed)])
        for writer in (main, searcher):
            writer.close_step(0)
        statuses = examine(root)
        return {
            "records": sum(status.records.total() for status in statuses),
            "files": sum(status.num_files for status in statuses),
            "bytes": sum(status.num_bytes for status in statuses),
        }


def million(count: int) -> dict[str, float]:
    """Seconds to open, tail and verify a store of many records.

    Args:
        count: Records.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "store"
        writer = StoreWriter(root, "main")
        one = said(0)
        started = time.monotonic()
        for first in range(0, count, CHUNK):
            numbers = range(first, min(first + CHUNK, count))
            writer.publish([replace(one, key=Key(n // 512, n // 64 % 8, n // 8 % 8, n % 8)) for n in numbers])
        times = [time.monotonic()]
        tail = Tail(root)
        assert len(tail.poll()) == count
        times.append(time.monotonic())
        writer.publish([one])
        assert len(tail.poll()) == 1
        times.append(time.monotonic())
        (status,) = examine(root)
        assert status.records.total() == count + 1
        assert not status.problems
        times.append(time.monotonic())
    names = ("written", "opened", "one more", "verified")
    return dict(zip(names, (b - a for a, b in zip([started, *times], times, strict=False)), strict=True))


def table(*results: Mapping[str, Any]) -> str:
    """Delays by number of writers, the seconds of a large store, and what a training step leaves, in Markdown.

    Args:
        results: Of ``main``.
    """
    delays = ("records/s a writer", "p50, ms", "p99, ms")
    columns = ("writers", "records", *delays, "files per 1,000 records", "bytes a record")
    tailed = [
        (
            f["writers"],
            f"{f['records']:,}",
            f"{f['records_per_second_per_writer']:,.0f}",
            *(f"{f[name]:.1f}" for name in ("p50_ms", "p99_ms", "files_per_1000_records")),
            f"{f['bytes_per_record']:.0f}",
        )
        for result in results
        for f in result["tailed"]
    ]
    names = results[0]["large"]
    large = [(f"{r['count']:,}", *(f"{r['large'][name]:.3g}" for name in names)) for r in results]
    left = [[f"{value:,}" for value in r["step"].values()] for r in results]
    return "\n\n".join(
        [
            markdown(columns, tailed),
            markdown(("records", *(f"{name}, s" for name in names)), large),
            markdown([f"{name} of a training step" for name in results[0]["step"]], left),
        ]
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writers", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--rate", type=float, default=12_000, help="records per second, all writers together")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--million", type=int, default=1_000_000, help="number of records in the large store")
    add_option(parser, NAME)
    arguments = parser.parse_args()
    tailed = []
    for writers in arguments.writers:
        tailed.append(measure(writers, arguments.rate, arguments.seconds))
        print(f"{writers} writers measured", flush=True)
    result = {
        "tailed": tailed,
        "step": training_step(),
        "count": arguments.million,
        "large": million(arguments.million),
    }
    print(table(result))
    keep(arguments.record, result, threads=1)


if __name__ == "__main__":
    main()
