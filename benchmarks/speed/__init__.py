"""Speed and memory for docs/performance.md: steps beside TRL and ``generate``, scaling, store, viewer."""
