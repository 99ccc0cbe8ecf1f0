"""The data module: questions of a step, play, scores, alignment, delayed batches, resume logs; trainer's batches."""
