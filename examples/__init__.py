"""Small examples: one training step, your own tool, task and reward, and queries to a run's journal."""
