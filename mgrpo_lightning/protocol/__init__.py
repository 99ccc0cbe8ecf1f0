"""The text protocol between agents: parse actions, check arguments, write prompts, draw a rollout as a tree."""
