"""What an agent may call besides its sub-agents: search, visit, and tools made of typed functions."""
