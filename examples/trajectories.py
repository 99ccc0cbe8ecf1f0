"""Query a run's journal with pandas, DuckDB and Polars. The journal is Parquet with one row for each trajectory.

    python examples/trajectories.py runs/quickstart

The three queries are the same. By step and role: the number of trajectories, the mean reward, and the number of
trajectories that broke a rule of the protocol.
"""

from __future__ import annotations

import sys
from typing import Any


def with_pandas(run: str) -> Any:
    """Run the query with pandas; returns a DataFrame."""
    # Imported in each function, so that you need only the library that you use.
    from pathlib import Path

    import pandas as pd

    files = sorted(Path(run, "journal").glob("step-*.parquet"))
    rows = pd.concat(pd.read_parquet(file, columns=["step", "role", "score_total", "valid"]) for file in files)
    return rows.groupby(["step", "role"]).agg(
        count=("valid", "size"), reward=("score_total", "mean"), broken=("valid", lambda valid: (~valid).sum())
    )


def with_duckdb(run: str) -> Any:
    """Run the query with DuckDB; returns a relation."""
    import duckdb

    return duckdb.sql(f"""
        select step, role, count(*) as count, avg(score_total) as reward, count(*) filter (not valid) as broken
        from read_parquet('{run}/journal/step-*.parquet') group by all order by all
    """)


def with_polars(run: str) -> Any:
    """Run the query with Polars; returns a DataFrame."""
    import polars as pl

    valid, reward = pl.col("valid"), pl.col("score_total")
    rows = pl.scan_parquet(f"{run}/journal/step-*.parquet").group_by("step", "role")
    found = rows.agg(count=pl.len(), reward=reward.mean(), broken=(~valid).sum())
    return found.sort("step", "role").collect()


if __name__ == "__main__":
    for ask in (with_pandas, with_duckdb, with_polars):
        print(ask(sys.argv[1]))
