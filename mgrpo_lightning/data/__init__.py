"""The data module: plays, scores and aligns, and streams one batch per optimizer step."""
