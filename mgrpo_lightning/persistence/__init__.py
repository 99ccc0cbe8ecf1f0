"""Files that survive a crash: atomic writes, checkpoints, the log of an open step, the lock of a run."""
