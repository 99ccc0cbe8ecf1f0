"""Micro-batches hold every row once, keep to the token budget, and compute once what rows begin with."""

from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st

from mgrpo_lightning.modules.microbatch import MicroBatch, collate, split
from mgrpo_lightning.policy.prefix_tree import LAID_OUT, PrefixTree
from mgrpo_lightning.records.batch import TrainingRow
from mgrpo_lightning.records.trajectory import Key


def row(index: int, length: int, *, temperature: float = 1.0) -> TrainingRow:
    mask = torch.arange(length) % 3 == 2
    return TrainingRow(
        key=Key(0, index, 0, 0),
        ids=torch.arange(length) + 100 * index,
        mask=mask,
        behaviour=-torch.arange(int(mask.sum()), dtype=torch.float32) - index,
        advantage=float(index),
        coefficient=0.5,
        temperature=temperature,
        versions=(0,),
    )


def collated(rows: list[TrainingRow]) -> MicroBatch:
    return collate(rows, PrefixTree.of(row.ids for row in rows), torch.device("cpu"))


@given(lengths=st.lists(st.integers(1, 50), max_size=30), shared=st.integers(0, 40), budget=st.integers(1, 200))
def test_split_keeps_every_row_within_the_budget(lengths: list[int], shared: int, budget: int) -> None:
    rows = [row(i, length) for i, length in enumerate(lengths)]
    rows = [replace(r, ids=torch.where(torch.arange(len(r.ids)) < shared, 7, r.ids)) for r in rows]
    batches = list(split(rows, budget))
    assert sorted(r.key.query for batch, _ in batches for r in batch) == list(range(len(rows)))
    for batch, prefix_tree in batches:
        assert [prefix_tree.ids[path].tolist() for path in prefix_tree.paths] == [r.ids.tolist() for r in batch]
        tokens = len(prefix_tree.ids)
        assert len(batch) == 1 or (tokens <= budget and sum(len(r.ids) for r in batch) <= LAID_OUT * budget)


def test_the_same_words_are_computed_once_and_scored_for_each_row() -> None:
    one, other = row(1, 9), row(2, 6)
    again = replace(one, key=Key(0, 3, 0, 0), advantage=-2.0, behaviour=one.behaviour - 10)
    elsewhere = replace(other, key=Key(0, 4, 0, 0), mask=torch.arange(6) == 3, behaviour=torch.tensor([-7.0]))
    ((batch, prefix_tree),) = split([one, other, again, elsewhere], 15)
    micro = collate(batch, prefix_tree, torch.device("cpu"))
    assert len(micro.prefix_tree.ids) == 15
    assert micro.prefix_tree.ids[micro.scored].tolist() == [102, 105, 108, 202, 203, 205]
    assert micro.places.tolist() == [0, 1, 2, 0, 1, 2, 3, 5, 4]
    assert micro.rows.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 3]
    assert micro.behaviour.tolist() == [-1, -2, -3, -11, -12, -13, -2, -3, -7]
    assert micro.advantages.tolist() == [1.0, -2.0, 2.0, 2.0]


def test_a_shared_prompt_is_computed_once_and_what_follows_it_is_each_rows_own() -> None:
    prompt, mask = torch.arange(40), torch.arange(44) >= 40
    rows = [
        replace(row(i, 44), ids=torch.cat([prompt, torch.tensor([90, 91, 92 + i, 93])]), mask=mask) for i in range(3)
    ]
    micro = collated(rows)
    assert len(micro.prefix_tree.ids) == 42 + 3 * 2
    assert micro.prefix_tree.ids[micro.scored[micro.places]].tolist() == [
        90,
        91,
        92,
        93,
        90,
        91,
        93,
        93,
        90,
        91,
        94,
        93,
    ]
    assert len(micro.scored) == 2 + 3 * 2


def test_rows_that_only_look_alike_are_computed_apart() -> None:
    """Equal length and places, and all but one id: no row is scored with what stands in another."""
    one = row(1, 30)
    for place in range(30):
        ids = one.ids.clone()
        ids[place] += 1
        other = replace(row(2, 30), ids=ids, mask=one.mask)
        micro = collated([one, other])
        assert micro.prefix_tree.ids[micro.scored[micro.places]].tolist() == [*one.ids[one.mask], *ids[one.mask]]
        for path, own in zip(micro.prefix_tree.paths, (one, other), strict=True):
            assert micro.prefix_tree.ids[path].tolist() == own.ids.tolist()


def test_temperatures_are_never_mixed() -> None:
    rows = [row(i, 5, temperature=t) for i, t in enumerate((1.0, 0.6, 1.0, 0.6))]
    assert [{r.temperature for r in batch} for batch, _ in split(rows, 1000)] == [{0.6}, {1.0}]


def test_collate_puts_each_token_where_its_row_has_it() -> None:
    micro = collated([row(1, 9), row(2, 6)])
    assert micro.prefix_tree.ids.tolist() == [*range(100, 109), *range(200, 206)]
    assert micro.prefix_tree.ids[micro.scored].tolist() == [102, 105, 108, 202, 205]
    assert micro.places.tolist() == [0, 1, 2, 3, 4]
    assert micro.rows.tolist() == [0, 0, 0, 1, 1]
    assert micro.behaviour.tolist() == [-1, -2, -3, -2, -3]
    assert micro.advantages.tolist() == [1.0, 2.0]
