"""What an exchange keeps of old steps: all that a role could still ask for when it is started again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mgrpo_lightning.data.store_connection import PeersConfig
from mgrpo_lightning.errors import ConfigurationError, DataError
from mgrpo_lightning.store.exchange import Exchange
from mgrpo_lightning.store.tail import Tail
from tests.store.said import call, records

PAIR = ("main", "searcher")


@contextmanager
def open_pair(root: Path, *, first_steps: tuple[int, int] = (0, 0), keep: int | None = 0) -> Iterator[list[Exchange]]:
    pair = [
        Exchange(root, name, peers=[peer for peer in PAIR if peer != name], first_step=first, keep_steps=keep)
        for name, first in zip(PAIR, first_steps, strict=True)
    ]
    for one in pair:
        one.refresh()
    yield pair
    for one in pair:
        one.close()


def run(pair: list[Exchange], steps: range, lags: tuple[int, int]) -> None:
    """Each says something of each step, and has a checkpoint that lags behind."""
    for step in steps:
        for one, lag in zip(pair, lags, strict=True):
            one.say([call(number, f"of {one.role}", step=step) for number in range(3)])
            one.refresh()
            one.close_step(step, saved=max(step - lag, 0))


def kept(root: Path, role: str) -> set[int]:
    return {
        record.key.step
        for record in records(Tail(root).poll())
        if record.kind == "delegations" and record.text == f"of {role}"
    }


@pytest.mark.parametrize(("lags", "keep"), [((0, 4), 0), ((3, 1), 0), ((0, 0), 5), ((2, 2), 9)])
def test_steps_go_when_nobody_could_begin_at_them_again(tmp_path: Path, lags: tuple[int, int], keep: int) -> None:
    oldest = 19 - max(lags) - keep
    root = tmp_path / "store"
    with open_pair(root, keep=keep) as pair:
        run(pair, range(20), lags)
    for role in PAIR:
        found = kept(root, role)
        assert found >= set(range(oldest, 20)), "a role that begins again needs them"
        assert min(found) >= oldest - 1, "what nobody needs is gone, but for the last checkpoint, not yet heard of"
        files = list((root / "writers" / f"{role}-0").glob("*/*.arrow"))
        assert len(files) <= 20 - oldest + 3, "one a step, and the last words"


def test_all_is_kept_by_default_and_where_a_role_has_no_checkpoint(tmp_path: Path) -> None:
    for keep, lags in ((None, (0, 0)), (0, (0, 100))):
        root = tmp_path / f"store-{keep}"
        with open_pair(root, keep=keep) as pair:
            run(pair, range(8), lags)
        assert kept(root, "main") == kept(root, "searcher") == set(range(8))


def test_a_restarted_role_removes_what_it_carried_over(tmp_path: Path) -> None:
    root = tmp_path / "store"
    with open_pair(root) as pair:
        run(pair, range(6), (0, 0))
    with open_pair(root, first_steps=(6, 6)) as pair:
        run(pair, range(6, 12), (0, 0))
    assert min(kept(root, "main")) >= 10


def test_a_role_that_begins_before_what_is_kept_is_told(tmp_path: Path) -> None:
    root = tmp_path / "store"
    with open_pair(root) as (main, searcher):
        run([main, searcher], range(10), (0, 0))
        main.close()
        again = Exchange(root, "main", peers=["searcher"], first_step=4, keep_steps=0)
        searcher.refresh()
        with pytest.raises(
            DataError, match=r"'main' starts at step 4.*has removed its records before step \d.*keep_steps"
        ):
            searcher.check("a call")
        again.close()


def test_both_may_begin_at_an_older_step(tmp_path: Path) -> None:
    root = tmp_path / "store"
    with open_pair(root) as pair:
        run(pair, range(10), (0, 0))
    with open_pair(root, first_steps=(4, 4)) as pair:
        for one in pair:
            one.check("a call")
        run(pair, range(4, 12), (0, 0))
    assert max(kept(root, "main")) == 11


def test_a_number_of_steps_below_zero_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"keep_steps is -1"):
        PeersConfig(keep_steps=-1)
