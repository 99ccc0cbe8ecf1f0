"""Serve a team: an OpenAI-compatible endpoint behind which a whole team answers."""
