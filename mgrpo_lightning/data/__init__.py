"""The data module: runs the rollouts, scores and aligns them, and yields one batch per training step."""
