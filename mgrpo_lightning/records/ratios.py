"""What updates made of sampled tokens: the log of the importance ratio of each, beside the journal of what was played.

One Parquet file an update, ``ratios/000012.parquet`` in the journal's folder, one row a trajectory that moved its
adapter: key, role, and log(current / behaviour) of its sampled ids before the step. It is 0 but for numerics where a
step trains on what it has played; where a role is behind (``lag``, ``queue``) the rows are of earlier steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mgrpo_lightning.persistence.atomic import atomic_path
from mgrpo_lightning.persistence.tables import read_table
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
    """Write the file of one update, atomically; None where no trajectory moved an adapter.

    Args:
        folder: Of the journal.
        step: Training step.
        ratios: By role and trajectory, float32, shape (n,).
        rank: Each has a file of its own.
        num_ranks: How many there are; files of others, when there were more, go.

    Raises:
        MgrpoError: The disk is full.
    """
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
    """Of which steps' play a file tells.

    Args:
        path: Written by ``write_ratios``.

    Raises:
        DataError: It is missing or damaged.
    """
    return {row["step"] for row in read_table(path, SCHEMA, ["step"]).to_pylist()}


def read_ratios(path: Path, step: int) -> dict[Key, list[float]]:
    """The log ratios of one step's trajectories.

    Args:
        path: Written by ``write_ratios``.
        step: In which they were played.

    Raises:
        DataError: It is missing or damaged.
    """
    table = read_table(path, SCHEMA).filter(pc.field("step") == step)
    return {Key(*(row[name] for name in Key._fields)): row["log_ratio"] for row in table.to_pylist()}
