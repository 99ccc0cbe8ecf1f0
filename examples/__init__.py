"""Small examples: your own tool, task and reward, and queries to a run's journal."""
