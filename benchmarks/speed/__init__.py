"""What a step costs: seconds, memory and their limits, beside TRL and ``generate``: docs/performance.md."""
