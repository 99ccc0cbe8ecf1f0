"""Files that survive a crash: atomic writes, checkpoints, resume logs, the lock of a run folder."""
