"""Ratio files: write and read log(current / behaviour) of each sampled token of an update, beside the journal.

Each update writes one Parquet file, ``ratios/000012.parquet`` in the journal's folder. It has one row per trajectory
that changed its adapter: key, role, and log(current / behaviour) of the sampled tokens before the step. The ratio is 0
except for numerics if the step trains on its own rollouts. For a role with ``lag`` or ``queue`` the rows come from
earlier steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mgrpo_lightning.persistence.atomic import atomic_path
from mgrpo_lightning.persistence.parquet import read_table
from mgrpo_lightning.records.trajectory import Key

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "ratios"
_COLUMNS: list[tuple[str, pa.DataType]] = [
    *((name, pa.int64()) for name in Key._fields),
    ("role", pa.string()),
    ("log_ratio", pa.list_(pa.float32())),
]
SCHEMA = pa.schema(_COLUMNS)


def write_ratios(
    folder: Path, step: int, ratios: Mapping[str, Mapping[Key, Tensor]], *, rank: int = 0, num_ranks: int = 1
) -> Path | None:
    """Write the file of one update atomically; return None if no trajectory changed an adapter.

    Args:
        folder: Folder of the journal.
        ratios: Log ratios by role and trajectory, float32, shape (n,).
        rank: Rank of this process; each rank writes its own file.
        num_ranks: Number of ranks; files of higher ranks, from an earlier run with more ranks, are removed.

    Raises:
        MgrpoError: The disk is full.
    """
    # Only rank 0 removes files, so that ranks do not race.
    for other in (folder / FOLDER).glob(f"{step:06d}-*.parquet") if rank == 0 else ():
        if (number := other.stem.partition("-")[2]).isdigit() and int(number) >= num_ranks:
            other.unlink(missing_ok=True)
    rows = [
        {**key._asdict(), "role": role, "log_ratio": values.numpy()}
        for role, found in ratios.items()
        for key, values in sorted(found.items())
    ]
    if not rows:
        return None
    path = folder / FOLDER / f"{step:06d}{f'-{rank}' if rank else ''}.parquet"
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), temporary, compression="zstd")
    return path


def read_steps(path: Path) -> set[int]:
    """Return the steps in which a file's trajectories were played.

    Args:
        path: A file of ``write_ratios``.

    Raises:
        DataError: The file is missing or damaged.
    """
    return {row["step"] for row in read_table(path, SCHEMA, ["step"]).to_pylist()}


def read_ratios(path: Path, step: int) -> dict[Key, list[float]]:
    """Return the log ratios of the trajectories of one step.

    Args:
        path: A file of ``write_ratios``.
        step: Step in which the trajectories were played.

    Raises:
        DataError: The file is missing or damaged.
    """
    table = read_table(path, SCHEMA).filter(pc.field("step") == step)
    return {Key(*(row[name] for name in Key._fields)): row["log_ratio"] for row in table.to_pylist()}
