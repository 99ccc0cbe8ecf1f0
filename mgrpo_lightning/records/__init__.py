"""What was played and what is trained on: questions, trajectories, batches, the journal, ratios."""
