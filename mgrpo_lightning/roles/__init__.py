"""Role configuration, and which roles share an adapter."""
