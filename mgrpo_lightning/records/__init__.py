"""The data types of a run: questions, trajectories and batches; the journal and the ratio files that store them."""
