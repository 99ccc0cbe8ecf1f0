"""Files that survive a crash: atomic writes, checkpoints, resume logs, Parquet tables, the lock of a run folder."""
