"""Role configuration, the shapes of the team file that holds it, and which roles share an adapter."""
