"""What the method learns, beside everything it is compared with: the figures of docs/results.md."""
