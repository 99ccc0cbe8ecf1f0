"""Training results for docs/results.md: arms, lag, credit, crossplay, mismatch, the quickstart and SmolLM2."""
